"""From a run's parameters to an index with a training, a held-out and a test part."""

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from nlalib.data.candidates import candidate_sets, candidates_from_scores, random_candidates
from nlalib.data.choice import CandidateChoice, DataChoice
from nlalib.data.index import VOTE_COLUMNS
from nlalib.data.label_noise import long_tailed, noisy_labels
from nlalib.data.label_sources import MATCHED, RULE, matched_labels
from nlalib.data.labels import probability_columns
from nlalib.data.sets import SETS
from nlalib.paths import resolve

# The parts that images play in a run.
TRAIN, HELD_OUT, TEST = "train", "held_out", "test"


def load_dataset(choice: DataChoice) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the index of a run and a table of what the set's label rule dropped.

    The index has one more column, `part`: "train", "held_out" (a stratified share of the
    training images, to select the epoch with) or "test". Images that play no part (FERPlus'
    own validation split, training images beyond `train_images`) are left out. Where the run asks
    for it, the training images are made long-tailed (by the labels given, which so decide who
    plays a part; then `train_images` of them in all) and their labels noisy, held-out ones
    included, as they would be in practice; the same goes for
    the labels of another source than the rule (`nlalib.data.label_sources`). Test labels are
    always the rule's, and so are the strata (of a list of noisy labels those of the set): the same
    images play the same parts whatever the labels. Not so of rendered faces, whose wrong labels
    are a part of the set; for them, all means RAF-DB's counts: 12,271 for training and 3,068 for
    the test.

    Returns
    -------
    index : pandas.DataFrame
        As `nlalib.data.index` describes, with `part`.
    dropped : pandas.DataFrame
        Columns `split`, `reason`, `images`.

    Raises
    ------
    ValueError
        If there are fewer images than asked for, or too few of a class to hold some out.
    """
    index, dropped = choice.set.read(choice)
    if choice.label_source != RULE:  # of all images, so that a subset changes none
        index = index.assign(given_label=choice.set.given_labels(index, choice))
    if choice.imbalance_factor > 1:
        index = long_tailed(
            index,
            choice.imbalance_factor,
            choice.num_classes,
            choice.seed,  # each seed has a subset of its own
            images=choice.train_images,
        )
    train = index[index["split"] == "train"]
    test = index[index["split"] == "test"]
    for split, rows in {"train": train, "test": test}.items():
        if rows.empty:
            raise ValueError(
                f"{choice.root} has no image of the split {split!r}: a run trains on one and is "
                "tested on the other; unpack that part of the set too"
            )
    by = "true_label" if choice.label_file else "label"
    if not choice.set.is_made:
        if choice.imbalance_factor == 1:
            train = stratified_subset(train, choice.train_images, choice.data_seed, by)
        test = stratified_subset(test, choice.test_images, choice.data_seed, by)
    kept, held_out = _stratified_split(train, choice.data_seed, by, test_size=choice.held_out)
    if choice.noise_rate and not choice.set.is_made:
        # After the split, which so is the same for every rate; a seed has wrong labels of its own.
        clean = train["label"].to_numpy(np.int64)
        noisy = noisy_labels(
            clean, choice.noise_rate, choice.num_classes, choice.seed, choice.noise_kind
        )
        train = train.assign(label=noisy, true_label=clean, is_flipped=noisy != clean)
        test = test.assign(true_label=test["label"], is_flipped=False)
    if choice.label_source != RULE:
        train = _with_given_labels(train, choice, [kept, held_out])
        # Of rendered faces the truth is known beside the votes.
        test = test.assign(true_label=test.get("true_label", test["label"]), is_flipped=False)
        test = test.drop(columns="given_label")
    parts = [(train.iloc[np.sort(kept)], TRAIN), (train.iloc[np.sort(held_out)], HELD_OUT)]
    index = pd.concat([part.assign(part=name) for part, name in [*parts, (test, TEST)]])
    return index.reset_index(drop=True), dropped


def _with_given_labels(
    train: pd.DataFrame, choice: DataChoice, parts: list[np.ndarray]
) -> pd.DataFrame:
    """Return the rows with the source's labels, or its twin's, given.

    `true_label` is the rule's, but of rendered faces the truth; `is_flipped` says where the given
    label is not the rule's. The twin shuffles within each part, so that both have the source's
    transition matrix exactly.
    """
    clean, given = train["label"].to_numpy(), np.array(train["given_label"])
    if choice.noise_kind == MATCHED:
        for number, positions in enumerate(parts):
            given[positions] = matched_labels(
                clean[positions], given[positions], [choice.seed, number]
            )
    true = train.get("true_label", train["label"])
    rows = train.assign(label=given, true_label=true, is_flipped=given != clean)
    return rows.drop(columns="given_label")


def class_votes(index: pd.DataFrame, num_classes: int) -> np.ndarray:
    """Return annotators' votes for the classes, (N, K) float32; votes for others are left out.

    Raises
    ------
    ValueError
        If the index has no votes.
    """
    missing = sorted(set(VOTE_COLUMNS) - set(index))
    if missing:
        raise ValueError(
            "annotators' votes are asked for, but this data set has none; use one of "
            f"{', '.join(name for name, data_set in SETS.items() if data_set.has_votes)}"
        )
    return index[VOTE_COLUMNS[:num_classes]].to_numpy(np.float32)


def training_candidates(
    choice: DataChoice, candidates: CandidateChoice, rows: pd.DataFrame
) -> np.ndarray:
    """Return the candidate label sets of training images, (N, K) bool, by the run's rule.

    The rule "random" takes the given labels and lets each other class in at random, "model" those
    and the classes that `nlalib.training.scores` found most likely.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no file of scores, or it lacks images or classes.
    """
    if candidates.candidate_rule == "random":
        return random_candidates(
            rows["label"].to_numpy(),
            choice.num_classes,
            flip_rate=candidates.candidate_threshold,
            seed=choice.data_seed,
        )
    if candidates.candidate_rule == "model":
        scores = read_scores(candidates.candidate_scores, rows["image_id"], choice.num_classes)
        return candidates_from_scores(
            scores, int(candidates.candidate_threshold), rows["label"].to_numpy()
        )
    votes = class_votes(rows, choice.num_classes)
    return candidate_sets(votes, candidates.candidate_rule, candidates.candidate_threshold)


def read_scores(path: str, image_ids: pd.Series, num_classes: int) -> np.ndarray:
    """Return a model's scores of images, (N, K) float32, from the file of `nlalib.training.scores`.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it lacks images or classes.
    """
    file = resolve(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"no scores at {file}; `python -m nlalib scores RUN_ID` writes them, of the training "
            "images of a finished run"
        )
    table = pd.read_parquet(file).set_index("image_id")
    columns = probability_columns(num_classes)
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}: its run has other classes")
    found = table.reindex(image_ids)[columns].to_numpy(np.float32)
    without = ~np.isfinite(found).all(axis=1)
    if without.any():
        raise ValueError(
            f"{path} has no finite scores of {without.sum():,} of {len(found):,} training images, "
            f"first {image_ids.to_numpy()[without.argmax()]}: write them again, or take those of a "
            "run on the same images"
        )
    return found


def _stratified_split(index: pd.DataFrame, seed: int, by: str, **size) -> list[np.ndarray]:
    """Return the positions of two parts of the index, both with the shares of its column `by`."""
    try:
        return train_test_split(
            np.arange(len(index)), stratify=index[by], random_state=seed, **size
        )
    except ValueError as error:
        raise ValueError(
            f"{len(index):,} images, {index[by].value_counts().min()} of the rarest class, "
            f"cannot be split with {size} so that each class is in both parts: {error} "
            "Ask for more images, or for all of them"
        ) from error


def stratified_subset(
    index: pd.DataFrame, images: int, seed: int, by: str = "label"
) -> pd.DataFrame:
    """Return `images` rows with the class shares of `index`, in its order; all where `images` is 0.

    `by` is the column of the classes.

    Raises
    ------
    ValueError
        If the index has fewer rows than asked for, or too few of a class.
    """
    if images in (0, len(index)):
        return index
    if images > len(index):
        raise ValueError(
            f"{images:,} images asked for, but the set has {len(index):,}; ask for fewer, "
            "or 0 for all"
        )
    kept, _ = _stratified_split(index, seed, by, train_size=images)
    return index.iloc[np.sort(kept)]
