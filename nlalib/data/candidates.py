"""Candidate label sets: which classes an image's label may be, and how good such sets are.

Partial-label learning takes a set of candidates for each image in place of one label. Here the
sets come from annotators' votes, from a model's scores, or from random flips of a label.

======  ==========================================================================================
rule    a class is a candidate if ...
======  ==========================================================================================
count   at least `threshold` annotators voted for it
share   at least the share `threshold` of the image's votes is for it
mass    it belongs to the smallest set of most-voted classes that holds the share `threshold` of
        the image's votes; 1 gives every class that has a vote
random  (not of votes) it is the label, or a draw lets it in: see `random_candidates`
model   (not of votes) it is the label, or among a model's `threshold` most likely classes: see
        `candidates_from_scores`; for sets without votes
======  ==========================================================================================

Under the rules on votes the most-voted class is always a candidate, also where it lies below the
threshold, and classes with equally many votes enter together: neither the order of the classes
nor a draw decides. How the paper on the learning paradigm (Wang et al., arXiv 2209.15402) gets
its sets is not known to us: these rules are a re-interpretation.
"""

import numpy as np
import pandas as pd

from nlalib.data.labels import expressions
from nlalib.names import named

# Shares are sums of fractions, which may miss a threshold by rounding.
TOLERANCE = 1e-9


def _enters_by_count(votes: np.ndarray, threshold: float) -> np.ndarray:
    return votes >= threshold


def _enters_by_share(votes: np.ndarray, threshold: float) -> np.ndarray:
    return votes / votes.sum(axis=1, keepdims=True) >= threshold - TOLERANCE


def _enters_by_mass(votes: np.ndarray, threshold: float) -> np.ndarray:
    # Share of the classes that have more votes: while it is too small, this one is needed.
    ahead = votes[:, None, :] > votes[:, :, None]  # (N, K, K): class 2 is ahead of class 1
    share_ahead = (ahead * votes[:, None, :]).sum(axis=2) / votes.sum(axis=1, keepdims=True)
    return (share_ahead < threshold - TOLERANCE) & (votes > 0)


_ENTERS = {"count": _enters_by_count, "share": _enters_by_share, "mass": _enters_by_mass}
VOTE_RULES = tuple(_ENTERS)
CANDIDATE_RULES = (*VOTE_RULES, "random", "model")
# What `threshold` (for "random" the rate, for "model" k) may be: a number of votes or classes, or a
# share. A share of 0 would make every class a candidate of every image.
THRESHOLD_RANGES = {
    "count": (1.0, float("inf")),
    "share": (1e-6, 1.0),
    "mass": (1e-6, 1.0),
    "random": (0.0, 1.0),
    "model": (1.0, 8.0),
}


def candidate_sets(votes: np.ndarray, rule: str, threshold: float) -> np.ndarray:
    """Return the candidates of each image by a rule on its votes (the table above).

    Parameters
    ----------
    votes : ndarray, (N, K)
        Votes for the K classes, >= 0; shares are of the votes given here.
    rule : {"count", "share", "mass"}
    threshold : float
        Votes, at least 1, for "count"; a share, above 0 and up to 1, for the others.

    Returns
    -------
    ndarray, (N, K) bool
        At least one candidate in each row, and none without a vote.

    Raises
    ------
    ValueError
        For another rule, or a row without votes.
    """
    votes = np.asarray(votes, dtype=np.float64)
    empty = np.flatnonzero(votes.sum(axis=1) == 0)
    if len(empty):
        raise ValueError(
            f"{len(empty)} rows have no vote for any class, first row {empty[0]}: drop them, or "
            "take a model's scores with candidates_from_scores"
        )
    enters = named(_ENTERS, rule, "rule for candidates from votes")
    return enters(votes, threshold) | (votes == votes.max(axis=1, keepdims=True))


def candidates_from_scores(scores: np.ndarray, k: int, labels: np.ndarray) -> np.ndarray:
    """Return a model's `k` highest classes and the label, for data sets without votes.

    Parameters
    ----------
    scores : ndarray, (N, K)
        Logits or probabilities; of equal ones the class that comes first counts as higher.
    k : int
        From 1 to K.
    labels : ndarray, (N,) int
        Always candidates, so that a row has k or k + 1.

    Returns
    -------
    ndarray, (N, K) bool
    """
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"k is {k!r}; it lies from 1 to the number of classes {scores.shape[1]}")
    candidates = _one_hot(labels, scores.shape[1])
    highest = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.put_along_axis(candidates, highest, True, axis=1)
    return candidates


def random_candidates(
    labels: np.ndarray, num_classes: int, flip_rate: float, seed: int | np.random.Generator
) -> np.ndarray:
    """Return sets that hold the label, and each other class with probability `flip_rate`.

    P(c in S | y) = 1 for c = y and q for each c != y, independently: the uniform generation of
    Wang et al. 2022 (PiCO) and many after it. The set is the label alone with probability
    (1 - q)^(K - 1), and has 1 + (K - 1) q members on average; q = 1/2 makes all sets that hold
    the label equally likely. PRODEN's released code (lvjiaqi77/PRODEN, `partialize`) draws the
    same, but gives a set that has only the label one more class.

    Parameters
    ----------
    labels : ndarray, (N,) int
    num_classes : int
    flip_rate : float
        q, from 0 to 1.
    seed : int or numpy.random.Generator

    Returns
    -------
    ndarray, (N, K) bool
    """
    is_label = _one_hot(labels, num_classes)
    return is_label | (np.random.default_rng(seed).random(is_label.shape) < flip_rate)


def candidate_statistics(candidates: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Return how large the sets are and how often they hold the label, class by class.

    Parameters
    ----------
    candidates : ndarray, (N, K) bool
        Of 7 or 8 classes.
    labels : ndarray, (N,) int
        For example the majority of the votes.

    Returns
    -------
    pandas.DataFrame
        A row for each class, of the images with that label, and a last row "all"; the index is
        `expression`. `images` (int); `mean_size`, `largest_size` of the sets; `single`: share of
        sets with one member; `coverage`: share that hold the label; `intruder`: share of the
        sets of images with another label that hold this class. NaN where there is no image; the
        last row's `intruder` is the share of wrong classes that are candidates.
    """
    classes = expressions(candidates.shape[1])
    is_label = _one_hot(labels, len(classes))
    sizes = candidates.sum(axis=1)
    groups = {name: labels == number for number, name in enumerate(classes)}
    rows = {}
    for number, (name, group) in enumerate([*groups.items(), ("all", labels >= 0)]):
        wrong = candidates[~group, number] if name != "all" else candidates[~is_label]
        rows[name] = {
            "images": group.sum(),
            "mean_size": _mean(sizes[group]),
            "largest_size": sizes[group].max() if group.any() else np.nan,
            "single": _mean(sizes[group] == 1),
            "coverage": _mean(candidates[is_label][group]),
            "intruder": _mean(wrong),
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("expression")
    return table.astype({"images": "int64"})


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    return np.arange(num_classes) == labels[:, None]
