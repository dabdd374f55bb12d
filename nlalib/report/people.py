"""How near networks come to people, beside a person and beside what ten votes allow.

=================  ===============================================================================
who                is scored against
=================  ===============================================================================
a run              the ten votes, and (`against` "nine others") all but one of them, each left out
                   in turn: what the person below is scored against
person             one of an image's annotators against its others, each in turn; as a distribution
                   all of it lies on one class, so that KL and confidence say nothing: no number
person again       on the images that were annotated twice, one of the second panel against the ten
                   votes of the first
panel again        there, the shares of the second panel's votes
true distribution  the best possible: what people would say, against ten votes drawn from it;
                   see `nlalib.report.true_votes`
=================  ===============================================================================

Votes for none of the classes are left out throughout, as they are for networks. Labels are those
of the most votes, of equals the first in the order of FERPlus's files.
"""

import hashlib

import numpy as np
import pandas as pd

from nlalib.data.choice import DataChoice
from nlalib.data.index import VOTE_COLUMNS
from nlalib.data.labels import probability_columns
from nlalib.data.pixels import image_array
from nlalib.data.sets.ferplus import read_ferplus_votes
from nlalib.data.splits import TEST, class_votes, load_dataset
from nlalib.data.votes import label_from_votes
from nlalib.files import write_csv
from nlalib.metrics import agreement_accuracies, selective_risks, vote_metrics
from nlalib.paths import display_path
from nlalib.report.collect import (
    identity_columns,
    require_test_images,
    some_runs_at_hand,
    votes_of_test,
)
from nlalib.report.frame import SETTING, published_file
from nlalib.report.records import KEPT_RULES, read_record
from nlalib.report.studies import Study, read_study
from nlalib.report.true_votes import fit_votes, pair_agreement

TEN, NINE = "ten votes", "nine others"
COLUMNS = ["study", "who", "run_id", *SETTING, "seed", "selection", "against", "images"]
COLUMNS += ["metric", "value"]
# What a single vote says nothing about.
_NOT_OF_ONE_VOTE = ("kl_to_votes", "vote_entropy_correlation")
_REPEATS = 20  # of the draws of the best possible


def label_of(votes: np.ndarray) -> np.ndarray:
    """Return the label of each row of votes for the K classes, (N,) int64."""
    table = pd.DataFrame(0, index=range(len(votes)), columns=VOTE_COLUMNS)
    table[VOTE_COLUMNS[: votes.shape[1]]] = votes.astype(np.int64)
    return label_from_votes(table, "argmax", votes.shape[1])["label"].to_numpy()


def agreement(
    votes: np.ndarray,
    probabilities: np.ndarray,
    *,
    labels: np.ndarray | None = None,
    of_ten: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> dict[str, float]:
    """Return all numbers of agreement with votes.

    Parameters
    ----------
    votes : numpy.ndarray, (N, K)
        What is to be met; at least one vote a row.
    probabilities : numpy.ndarray, (N, K)
    labels : numpy.ndarray, (N,), optional
        `label_of` the votes without it.
    of_ten : numpy.ndarray, (N, K), optional
        The votes that tell the bin of agreement, where `votes` are a part of them.
    weights : numpy.ndarray, (N,), optional
        How much each row counts.
    """
    labels = label_of(votes) if labels is None else labels
    predicted = probabilities.argmax(axis=1)
    is_right = (predicted == labels).astype(float)
    found = {"overall_accuracy": float(np.average(is_right, weights=weights))}
    found |= vote_metrics(votes, probabilities, weights)
    bins = votes if of_ten is None else of_ten
    found |= agreement_accuracies(labels, bins, predicted, weights)
    return found if weights is not None else {**found, **selective_risks(labels, probabilities)}


def one_left_out(votes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return each image once for each class that an annotator named, that annotator left out.

    Parameters
    ----------
    votes : numpy.ndarray, (N, K) int
        Images with fewer than two votes have no rows.

    Returns
    -------
    image : numpy.ndarray, (M,) int
        Its row.
    answer : numpy.ndarray, (M,) int
        The class that was named.
    weights : numpy.ndarray, (M,) float
        The share of the image's annotators who did; they sum to 1 over an image.
    others : numpy.ndarray, (M, K) int
        The votes of all but one of them.
    """
    image, answer = np.nonzero(votes * (votes.sum(axis=1, keepdims=True) > 1))
    others = votes[image].astype(np.int64)
    others[np.arange(len(image)), answer] -= 1
    weights = votes[image, answer] / votes[image].sum(axis=1)
    return image, answer, weights, others


def person(votes: np.ndarray) -> dict[str, float]:
    """Return `agreement` of one annotator with the others, each image's taken in turn."""
    image, answer, weights, others = one_left_out(votes)
    return _of_single_votes(others, answer, votes[image], weights)


def person_again(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Return `agreement` of the second panel's annotators, one by one, with the first's votes."""
    image, answer = np.nonzero(second)
    weights = second[image, answer] / second[image].sum(axis=1)
    return _of_single_votes(first[image], answer, first[image], weights)


def _of_single_votes(votes, answer, of_ten, weights) -> dict[str, float]:
    found = agreement(votes, np.eye(votes.shape[1])[answer], of_ten=of_ten, weights=weights)
    return {name: value for name, value in found.items() if name not in _NOT_OF_ONE_VOTE}


def against_nine(votes: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Return `agreement` of predictions with what a person is scored against."""
    image, _, weights, others = one_left_out(votes)
    return agreement(others, probabilities[image], of_ten=votes[image], weights=weights)


def best_possible(votes: np.ndarray, seen: np.ndarray) -> dict[str, float]:
    """Return `agreement` of the true distributions with as many votes as there are.

    Parameters
    ----------
    votes : numpy.ndarray, (N, K) int
        Of the images that networks are tested on.
    seen : numpy.ndarray, (M, K) int
        Votes that the model of `nlalib.report.true_votes` is fitted to.

    Returns
    -------
    dict of float
        Means over draws; also `pair_agreement` of the votes and `pair_agreement_modelled`, which
        should be near it, and `manhattan_of_two_panels`, how far two panels drawn from one
        distribution are from each other.
    """
    model, generator = fit_votes(seen), np.random.default_rng([0, 1])
    found, sizes = [], votes.sum(axis=1)
    for _ in range(_REPEATS):
        true = model.draw(votes, generator)
        drawn = generator.multinomial(sizes, true)
        again = generator.multinomial(sizes, true)
        apart = np.abs(drawn - again).sum(axis=1) / sizes
        numbers = {"manhattan_of_two_panels": apart.mean()}
        numbers["pair_agreement_modelled"] = (true**2).sum(axis=1).mean()
        found.append({**agreement(drawn, true), **numbers})
    means = pd.DataFrame(found).mean().to_dict()
    return {**means, "pair_agreement": pair_agreement(votes)}


def annotated_twice(choice: DataChoice) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the votes of two panels of FERPlus's annotators on the same images, (M, K) each.

    Copies of one image have the first one's votes in `fer2013new.csv` and votes of their own in
    `label.csv`: all but the first copy were annotated twice. Those stay whose first votes are
    mostly for a class and of whose second ones some are. None for a set without such files.
    """
    has_second = choice.dataset == "ferplus" and (choice.root / "FER2013Test/label.csv").is_file()
    if not has_second:
        return None
    first, _ = read_ferplus_votes(choice.root)
    second, _ = read_ferplus_votes(choice.root, votes="label")
    pixels = image_array(first, root=choice.root, size=48)
    digests = pd.Series([hashlib.sha256(image.tobytes()).digest() for image in pixels])
    chosen = digests.duplicated().to_numpy() & first["image_id"].isin(second["image_id"]).to_numpy()
    first = first[chosen]
    second = second.set_index("image_id").loc[first["image_id"]]
    votes = [class_votes(rows, choice.num_classes).astype(int) for rows in (first, second)]
    labelled = label_from_votes(first, choice.label_rule, choice.num_classes)["label"].to_numpy()
    kept = (labelled >= 0) & (votes[1].sum(axis=1) > 0)
    return votes[0][kept], votes[1][kept]


def study_agreement(study: Study) -> pd.DataFrame:
    """Return the long table of a study's finished runs beside people (columns `COLUMNS`).

    Raises
    ------
    FileNotFoundError
        If no run of the study is done or kept.
    ValueError
        If the study's set has no votes, or its runs are on several.
    """
    runs = list(some_runs_at_hand(study).values())
    if len({(c.dataset, c.num_classes, c.test_images, c.label_rule) for c in runs}) > 1:
        raise ValueError(f"the runs of {study.name} have several test sets: beside which people?")
    rows, (index, _) = [], load_dataset(runs[0].data)
    of_test = votes_of_test(index, runs[0].num_classes)
    if of_test is None:
        raise ValueError(f"{runs[0].data.set.title} has no annotators' votes to compare with")

    def add(who: str, against: str, images: str, numbers: dict, **identity) -> None:
        told = {"study": study.name, "who": who, "against": against, "images": images, **identity}
        rows.extend({**told, "metric": m, "value": v} for m, v in numbers.items())

    names = probability_columns(runs[0].num_classes)
    for config in runs:
        record, identity = read_record(config, study.name), identity_columns(config, study.name)
        for rule in KEPT_RULES:
            table = record.at(rule)
            require_test_images(config, table, of_test)
            votes, probabilities = of_test.loc[table.index].to_numpy(), table[names].to_numpy()
            labels = table["label"].to_numpy()
            of_run = {**identity, "selection": rule}
            ten = agreement(votes, probabilities, labels=labels)
            add("run", TEN, TEST, ten, **of_run)
            add("run", NINE, TEST, against_nine(votes, probabilities), **of_run)
    votes = of_test.to_numpy().astype(int)
    add("person", NINE, TEST, person(votes))
    others = class_votes(index[index["part"] != TEST], runs[0].num_classes).astype(int)
    add("true distribution", TEN, TEST, best_possible(votes, others))
    twice = annotated_twice(runs[0].data)
    if twice is not None:
        first, second = twice
        twice_name = f"annotated twice ({len(first):,})"
        add("person", NINE, twice_name, person(first))
        add("person again", TEN, twice_name, person_again(first, second))
        panel = agreement(first, second / second.sum(axis=1, keepdims=True))
        add("panel again", TEN, twice_name, {k: v for k, v in panel.items() if k != "kl_to_votes"})
        add("true distribution", TEN, twice_name, best_possible(first, others))
    return pd.DataFrame(rows).reindex(columns=COLUMNS)


def write_agreement(config: str) -> None:
    """Write `results/<study>_agreement.csv` of a study's finished runs, to six decimals."""
    study = read_study(config)
    table = study_agreement(study)
    path = published_file(f"{study.name}_agreement.csv")
    write_csv(path, table.round(6))
    runs = table.loc[table["who"] == "run", "run_id"].nunique()
    print(f"{runs} of {len(study.runs)} runs beside people: {display_path(path)}")
