"""A run's index: three parts that share no image, stratified, the same for the same seed."""

import numpy as np
import pandas as pd
import pytest

from made_sets import write_rafdb
from nlalib.data.index import VOTE_COLUMNS
from nlalib.data.label_sources import LABEL_SOURCES, VOTE_SOURCES
from nlalib.data.labels import FERPLUS_COLUMNS, RAFDB_TEST_COUNTS, RAFDB_TRAIN_COUNTS
from nlalib.data.sets.ferplus import FOLDERS
from nlalib.data.sets.rafdb import LABEL_FILE
from nlalib.data.splits import (
    class_votes,
    load_dataset,
    stratified_subset,
    training_candidates,
)
from nlalib.paths import ROOT
from nlalib.training.config import RunConfig

RENDERED = RunConfig(train_images=300, test_images=90, held_out=0.2)


@pytest.fixture(scope="module")
def rendered():
    return load_dataset(RENDERED.data)


def labelled(counts: dict[int, int], split: str, start: int = 0) -> pd.DataFrame:
    """An index with so many images of each class, the classes mixed."""
    labels = np.repeat(list(counts), list(counts.values()))
    labels = np.random.default_rng(0).permutation(labels)
    names = [f"{split}{number:05d}" for number in range(start, start + len(labels))]
    return pd.DataFrame(
        {"image_id": names, "path": [f"{n}.png" for n in names], "split": split, "label": labels}
    )


@pytest.fixture
def ferplus(monkeypatch):
    """A stand-in for the FERPlus reader; returns what it is asked with."""
    asked = {}
    index = pd.concat(
        [
            labelled({0: 200, 1: 40, 2: 60}, "train"),
            labelled({0: 20, 1: 4, 2: 6}, "validation"),
            labelled({0: 50, 1: 10, 2: 40}, "test"),
        ]
    )
    dropped = pd.DataFrame({"split": ["train"], "reason": ["tie"], "images": [3]})

    def read(root, **options):
        asked.update(root=root, **options)
        return index, dropped

    monkeypatch.setattr("nlalib.data.sets.ferplus.read_ferplus", read)
    return index, dropped, asked


def part(index: pd.DataFrame, name: str) -> pd.DataFrame:
    return index[index["part"] == name]


def test_parts_are_disjoint_and_complete(rendered):
    index, dropped = rendered
    assert index["image_id"].is_unique
    assert index["path"].is_unique
    assert index["part"].value_counts().to_dict() == {"train": 240, "held_out": 60, "test": 90}
    assert set(part(index, "test")["split"]) == {"test"}
    assert set(index[index["part"] != "test"]["split"]) == {"train"}
    assert list(index.index) == list(range(390))
    assert list(dropped.columns) == ["split", "reason", "images"]
    assert dropped.empty


def test_held_out_part_has_the_class_shares_of_the_training_images(rendered):
    index, _ = rendered
    for _, images in index[index["part"] != "test"].groupby("label"):
        assert abs((images["part"] == "held_out").sum() - 0.2 * len(images)) <= 1


def test_same_seed_same_index_other_seed_another(rendered):
    again, _ = load_dataset(RENDERED.data)
    pd.testing.assert_frame_equal(again, rendered[0])
    other, _ = load_dataset(RunConfig(train_images=300, test_images=90, data_seed=1).data)
    assert not set(other["path"]) & set(again["path"])
    # The seed of the training touches no image.
    same, _ = load_dataset(RunConfig(train_images=300, test_images=90, held_out=0.2, seed=5).data)
    pd.testing.assert_frame_equal(same, again)


def test_noise_changes_its_share_of_training_labels_and_no_other(rendered):
    clean, _ = rendered
    noisy, _ = load_dataset(
        RunConfig(train_images=300, test_images=90, held_out=0.2, noise_rate=0.2).data
    )
    labels = clean.set_index("image_id")["label"]
    is_changed = noisy["label"].to_numpy() != labels[noisy["image_id"]].to_numpy()
    is_test = (noisy["part"] == "test").to_numpy()
    assert is_changed[~is_test].sum() == 60
    assert not is_changed[is_test].any()
    assert np.array_equal(is_changed, noisy["is_flipped"])
    assert len(part(noisy, "test")) == 90


def test_all_rendered_images_are_as_many_as_rafdb_has(monkeypatch):
    asked = {}

    def stand_in(**options):
        asked.update(options)
        raise InterruptedError

    monkeypatch.setattr("nlalib.data.sets.rendered.rendered_index", stand_in)
    with pytest.raises(InterruptedError):
        load_dataset(RunConfig(train_images=0, test_images=0, data_seed=3, noise_rate=0.1).data)
    train, test = sum(RAFDB_TRAIN_COUNTS.values()), sum(RAFDB_TEST_COUNTS.values())
    assert (train, test) == (12271, 3068)
    assert asked == {"train": train, "test": test, "seed": 3, "flip_rate": 0.1}


def test_all_images_of_a_real_set_but_its_own_validation_split(ferplus):
    whole, dropped, asked = ferplus
    config = RunConfig(dataset="ferplus", train_images=0, test_images=0, label_rule="majority")
    index, found_dropped = load_dataset(config.data)
    wanted = set(whole.loc[whole["split"] != "validation", "image_id"])
    assert set(index["image_id"]) == wanted
    assert len(index) == len(wanted)
    assert found_dropped is dropped
    assert asked == {"root": ROOT / "data" / "ferplus", "rule": "majority", "num_classes": 7}


def test_subset_of_a_real_set_has_the_counts_asked_for(ferplus):
    config = RunConfig(dataset="ferplus", train_images=150, test_images=50, held_out=0.1)
    index, _ = load_dataset(config.data)
    counts = index.groupby(["part", "label"]).size().unstack()
    assert counts.loc["test"].tolist() == [25, 5, 20]
    assert (counts.loc["train"] + counts.loc["held_out"]).tolist() == [100, 20, 30]
    assert counts.loc["held_out"].tolist() == [10, 2, 3]


def test_too_many_images_asked_for(ferplus):
    with pytest.raises(ValueError, match="301 images asked for, but the set has 300; ask for few"):
        load_dataset(RunConfig(dataset="ferplus", train_images=301, test_images=0).data)
    with pytest.raises(ValueError, match="101 images asked for, but the set has 100"):
        load_dataset(RunConfig(dataset="ferplus", train_images=0, test_images=101).data)


def test_too_few_images_to_hold_some_out():
    with pytest.raises(ValueError, match="20 images, 1 of the rarest class, cannot be split"):
        load_dataset(RunConfig(train_images=20, test_images=10).data)


def test_subset_keeps_the_order_and_depends_on_the_seed():
    index = labelled({0: 300, 1: 30}, "train")
    subset = stratified_subset(index, 110, seed=0)
    assert subset["label"].value_counts().to_dict() == {0: 100, 1: 10}
    assert subset.index.is_monotonic_increasing
    pd.testing.assert_frame_equal(subset, stratified_subset(index, 110, seed=0))
    assert set(subset["image_id"]) != set(stratified_subset(index, 110, seed=1)["image_id"])
    assert stratified_subset(index, 0, seed=0) is index
    assert stratified_subset(index, 330, seed=0) is index


def test_root_is_the_given_folder_or_the_one_of_the_set(tmp_path):
    assert RunConfig(dataset="ferplus").data.root == ROOT / "data" / "ferplus"
    assert RunConfig(data_root=str(tmp_path)).data.root == tmp_path
    assert RunConfig(data_root="data/mine").data.root == ROOT / "data" / "mine"


# Noise and imbalance on a tree of files, read by FERPlus' own reader.

EXPRESSIONS = (60, 45, 40, 35, 30, 20, 25)  # training images of each class, the files' order
TREE = {"dataset": "ferplus", "train_images": 0, "test_images": 0, "held_out": 0.2}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> str:
    """A FERPlus tree with images of clear votes: eight for one class, two for the next."""
    root, rows, number = tmp_path_factory.mktemp("ferplus"), [], 0
    columns = list(FERPLUS_COLUMNS)
    sizes = {"Training": EXPRESSIONS, "PublicTest": (3,) * 7, "PrivateTest": (8,) * 7}
    for (usage, counts), folder in zip(sizes.items(), FOLDERS.values(), strict=True):
        (root / folder).mkdir()
        for expression, count in enumerate(counts):
            for _ in range(count):
                name = f"fer{number:07d}.png"
                (root / folder / name).write_bytes(b"no reader of an index looks inside")
                votes = dict.fromkeys(columns, 0)
                votes[columns[expression]] = 8
                votes[columns[(expression + 1) % 7]] = 2
                rows.append({"Usage": usage, "Image name": name, **votes})
                number += 1
    pd.DataFrame(rows).to_csv(root / "fer2013new.csv", index=False)
    return str(root)


def loaded(tree: str, **changes) -> pd.DataFrame:
    return load_dataset(RunConfig(**{**TREE, "data_root": tree, **changes}).data)[0]


@pytest.mark.parametrize("kind", ["symmetric", "pair"])
def test_noise_of_a_real_set(tree, kind):
    clean = loaded(tree)
    noisy = loaded(tree, noise_rate=0.2, noise_kind=kind)
    # The same images play the same parts at each rate.
    same = ["image_id", "path", "split", "part"]
    pd.testing.assert_frame_equal(noisy[same], clean[same])
    assert noisy["true_label"].tolist() == clean["label"].tolist()
    assert (noisy["is_flipped"] == (noisy["label"] != clean["label"])).all()
    assert not part(noisy, "test")["is_flipped"].any()
    known = noisy[noisy["part"] != "test"]
    for _, images in known.groupby("true_label"):
        assert images["is_flipped"].sum() == round(0.2 * len(images))
    assert part(noisy, "held_out")["is_flipped"].any()
    if kind == "pair":
        wrong = noisy[noisy["is_flipped"]]
        assert (wrong["label"] == (wrong["true_label"] + 1) % 7).all()


def test_noise_is_drawn_by_the_runs_seed_and_leaves_the_votes(tree):
    first, again, other = (loaded(tree, noise_rate=0.1, seed=seed) for seed in (3, 3, 4))
    pd.testing.assert_frame_equal(first, again)
    assert first["image_id"].tolist() == other["image_id"].tolist()
    assert first["part"].tolist() == other["part"].tolist()
    assert first["label"].tolist() != other["label"].tolist()
    pd.testing.assert_frame_equal(first[VOTE_COLUMNS], loaded(tree)[VOTE_COLUMNS])


def test_long_tail_of_a_real_set(tree):
    tail = loaded(tree, imbalance_factor=8.0, train_images=120, seed=1)
    train = tail[tail["part"] != "test"]
    counts = np.sort(np.bincount(train["label"], minlength=7))[::-1]
    assert abs(len(train) - 120) <= 4
    assert counts[0] / counts[-1] == pytest.approx(8, rel=0.1)
    assert len(part(tail, "test")) == 56
    assert set(train["image_id"]) <= set(loaded(tree)["image_id"])
    assert abs((train["part"] == "held_out").sum() - 0.2 * len(train)) <= 1
    other = loaded(tree, imbalance_factor=8.0, train_images=120, seed=2)
    assert set(other["image_id"]) != set(tail["image_id"])


def test_noise_on_a_long_tail_keeps_its_images(tree):
    tail = loaded(tree, imbalance_factor=8.0, train_images=120)
    noisy = loaded(tree, imbalance_factor=8.0, train_images=120, noise_rate=0.3)
    assert noisy["image_id"].tolist() == tail["image_id"].tolist()
    assert noisy["true_label"].tolist() == tail["label"].tolist()
    assert noisy["is_flipped"].any()


def test_runs_share_an_index_where_they_load_the_same(tree):
    """`RunConfig.data` is equal exactly where the index is."""
    noise = {"noise_rate": 0.1}
    pairs = [
        ({"seed": 1}, {"seed": 2, "method": "ce"}, True),
        ({**noise, "seed": 1}, {**noise, "seed": 2}, False),
        ({**noise, "seed": 1}, {**noise, "seed": 1, "batch_size": 8}, True),
        ({**noise, "seed": 1}, {**noise, "seed": 1, "noise_kind": "pair"}, False),
    ]
    for first, second, equal in pairs:
        configs = [RunConfig(**TREE, data_root=tree, **changes) for changes in (first, second)]
        names = [config.data for config in configs]
        indices = [load_dataset(config.data)[0] for config in configs]
        assert (names[0] == names[1]) is indices[0].equals(indices[1]) is equal


def test_votes_of_the_classes_and_candidates_from_them(tree):
    index = loaded(tree)
    votes = class_votes(index, 7)
    assert votes.dtype == np.float32
    assert votes.sum(axis=1).tolist() == [10] * len(index)
    assert votes.argmax(axis=1).tolist() == index["label"].tolist()
    config = RunConfig(**TREE, data_root=tree, method="proden")
    assert np.array_equal(training_candidates(config.data, config.candidates, index), votes > 0)
    strict = RunConfig(**TREE, data_root=tree, method="proden", candidate_threshold=3.0)
    assert np.array_equal(
        training_candidates(strict.data, strict.candidates, index),
        np.eye(7, dtype=bool)[index["label"]],
    )
    with pytest.raises(ValueError, match="this data set has none; use one of rendered, ferplus"):
        class_votes(index.drop(columns=VOTE_COLUMNS[0]), 7)


# Labels of people on the same tree: eight annotators say one thing, two the next.


@pytest.fixture(scope="module")
def labelled_tree(tree) -> str:
    """FER2013's labels beside it: every third image, an annotator's other word."""
    votes = pd.read_csv(f"{tree}/fer2013new.csv")
    ranked = np.argsort(-votes[list(FERPLUS_COLUMNS)].to_numpy(), axis=1, kind="stable")
    second = np.arange(len(votes)) % 3 == 0
    words = np.array(list(FERPLUS_COLUMNS.values()))[np.where(second, ranked[:, 1], ranked[:, 0])]
    table = pd.DataFrame({"name": votes["Image name"], "fer2013_label": words})
    table.to_csv(f"{tree}/fer2013_labels.csv", index=False)
    return tree


@pytest.mark.parametrize("source", LABEL_SOURCES[1:])
def test_given_labels_of_people_and_of_their_twin(labelled_tree, source):
    clean = loaded(labelled_tree)
    given = loaded(labelled_tree, label_source=source)
    twin = loaded(labelled_tree, label_source=source, noise_kind="matched", seed=4)
    same = ["image_id", "path", "split", "part", *VOTE_COLUMNS]
    for index in (given, twin):
        pd.testing.assert_frame_equal(index[same], clean[same])
        assert set(index) == set(clean) | {"true_label", "is_flipped"}
        assert index["true_label"].tolist() == clean["label"].tolist()
        assert (index["is_flipped"] == (index["label"] != clean["label"])).all()
        assert not part(index, "test")["is_flipped"].any()
        assert part(index, "held_out")["is_flipped"].any()
    for name in ("train", "held_out"):  # cell by cell, in each part
        cells = [
            part(i, name).value_counts(["true_label", "label"]).to_dict() for i in (given, twin)
        ]
        assert cells[0] == cells[1]
    # Of a class's images here all have the same second word: no twin of the worst vote is another.
    assert (given["label"].tolist() == twin["label"].tolist()) == (source == "worst_vote")
    if source in ("worst_vote", "random_vote"):
        voted = given[given["part"] != "test"]
        votes = voted[VOTE_COLUMNS].to_numpy()[np.arange(len(voted)), voted["label"]]
        assert set(votes) == ({2} if source == "worst_vote" else {2, 8})


def test_people_are_drawn_by_the_data_seed_and_twins_by_the_runs(labelled_tree):
    people = {"label_source": "random_vote"}
    first, other = (loaded(labelled_tree, **people, seed=seed) for seed in (0, 1))
    pd.testing.assert_frame_equal(first, other)
    drawn = loaded(labelled_tree, **people, data_seed=1).set_index("image_id")["label"]
    assert (drawn.loc[first["image_id"]].to_numpy() != first["label"].to_numpy()).any()
    twins = [
        loaded(labelled_tree, **people, noise_kind="matched", seed=seed)["label"].tolist()
        for seed in (0, 0, 1)
    ]
    assert twins[0] == twins[1] != twins[2]


def test_a_subset_has_the_labels_of_the_whole(labelled_tree):
    for source in LABEL_SOURCES[1:]:
        whole = loaded(labelled_tree, label_source=source).set_index("image_id")
        some = loaded(labelled_tree, label_source=source, train_images=100)
        some = some[some["part"] != "test"]
        assert some["label"].tolist() == whole.loc[some["image_id"], "label"].tolist()


def test_rendered_faces_have_annotators_too(rendered):
    clean, _ = rendered
    for source in VOTE_SOURCES:
        given, _ = load_dataset(
            RunConfig(train_images=300, test_images=90, held_out=0.2, label_source=source).data
        )
        assert given["image_id"].tolist() == clean["image_id"].tolist()
        assert given["true_label"].tolist() == clean["true_label"].tolist()  # the mixture's
        assert (given["is_flipped"] == (given["label"] != clean["label"])).all()
        assert part(given, "train")["is_flipped"].mean() > 0.1
        assert not part(given, "test")["is_flipped"].any()


def test_a_list_of_noisy_labels_leaves_images_in_their_parts(tmp_path):
    root = write_rafdb(tmp_path / "set")
    chosen = {"dataset": "rafdb", "data_root": str(root), "train_images": 0, "test_images": 0}
    clean, _ = load_dataset(RunConfig(**chosen, held_out=0.25).data)
    lines = (root / LABEL_FILE).read_text().splitlines()
    of_train = [number for number, line in enumerate(lines) if line.startswith("train")]
    codes = [lines[number].split()[1] for number in of_train]
    for number, code in zip(of_train, [*codes[5:], *codes[:5]], strict=True):
        lines[number] = f"{lines[number].split()[0]} {code}"
    (tmp_path / "noisy.txt").write_text("\n".join(lines) + "\n")
    noisy, _ = load_dataset(
        RunConfig(**chosen, held_out=0.25, label_file=str(tmp_path / "noisy.txt")).data
    )
    assert (noisy["label"] != noisy["true_label"]).any()
    assert noisy["true_label"].tolist() == clean["label"].tolist()
    assert noisy[["image_id", "part"]].equals(clean[["image_id", "part"]])
