"""Metrics of predictions, and the rules that pick an epoch."""

import numpy as np
import pandas as pd
from scipy.special import entr, rel_entr
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, recall_score

from nlalib.data.labels import expressions
from nlalib.names import named

CALIBRATION_BINS = 15
# How many of ten annotators name the class that most of them name: from, to.
AGREEMENT_BINS = {"10": (10, 10), "7_to_9": (7, 9), "4_to_6": (4, 6), "below_4": (0, 3)}
COVERAGES = tuple(range(10, 101, 10))  # percent
# Which epochs of a run count, and what tables call that.
SELECTION_RULES = {
    "last": "last",
    "best_validation": "chosen on held-out images",
    # What EAC's authors say that their tables hold.
    "last_five": "mean of the last five",
    # As the released code of NLA and of its peers does: it looks at the test set. Kept beside the
    # others to show what that is worth, no fair estimate.
    "best_test": "best on test",
}
_LATE = {"last": 1, "last_five": 5}  # of how many epochs at the end the test metric is averaged
# Those that pick a single epoch, whose predictions a run keeps.
ONE_EPOCH_RULES = ("last", "best_validation", "best_test")


def classification_metrics(
    labels: np.ndarray, probabilities: np.ndarray, num_classes: int
) -> dict[str, float]:
    """Return the metrics of one set of predictions.

    Parameters
    ----------
    labels : numpy.ndarray, (N,) int
    probabilities : numpy.ndarray, (N, num_classes) float
    num_classes : int

    Returns
    -------
    dict of float, fractions
        `overall_accuracy`; `mean_accuracy`, the mean of the recalls of the classes that occur;
        `worst_class_recall`; `macro_f1`, the mean over all `num_classes` classes, where one
        that neither occurs nor is predicted counts as 0; `mean_average_precision`, of one class
        against the rest, over the classes that occur; `recall_<expression>`, NaN for a class that
        does not occur; `nll`, the mean negative log-likelihood in nats, with probabilities below
        1e-12 taken as 1e-12; `brier`, the mean squared distance to the one-hot label, 0 to 2; and
        `ece`, see `expected_calibration_error`.
    """
    predicted = probabilities.argmax(axis=1)
    classes = np.arange(num_classes)
    recalls = recall_score(labels, predicted, labels=classes, average=None, zero_division=np.nan)
    true_probability = probabilities[np.arange(len(labels)), labels]
    is_label = labels[:, None] == classes  # (N, K)
    occurs = is_label.any(axis=0)
    precision = average_precision_score(
        is_label[:, occurs], probabilities[:, occurs], average="macro"
    )
    return {
        "overall_accuracy": accuracy_score(labels, predicted),
        "mean_accuracy": float(np.nanmean(recalls)),
        "worst_class_recall": float(np.nanmin(recalls)),
        "macro_f1": f1_score(labels, predicted, labels=classes, average="macro", zero_division=0),
        "mean_average_precision": float(precision),
        "brier": float(((probabilities - is_label) ** 2).sum(axis=1).mean()),
        "ece": expected_calibration_error(labels, probabilities),
        "nll": float(-np.log(np.maximum(true_probability, 1e-12)).mean()),
        **{
            f"recall_{name}": float(recall)
            for name, recall in zip(expressions(num_classes), recalls, strict=True)
        },
    }


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean gap between confidence and accuracy over bins of confidence, a fraction.

    Guo et al. 2017, equation 3: `CALIBRATION_BINS` bins of equal width, each weighted by the
    share of samples in it. A confidence on an edge belongs to the bin below.

    Parameters
    ----------
    labels : numpy.ndarray, (N,) int
    probabilities : numpy.ndarray, (N, K) float
    """
    table = reliability_bins(labels, probabilities)
    gap = (table["confidence"] - table["accuracy"]).abs() * table["images"]
    return float(gap.sum() / len(labels))


def reliability_bins(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Return what a reliability diagram draws (Guo et al. 2017), bins as in the ECE.

    Parameters
    ----------
    labels : numpy.ndarray, (N,) int
    probabilities : numpy.ndarray, (N, K) float

    Returns
    -------
    pandas.DataFrame
        A row for each of the `CALIBRATION_BINS` bins of confidence: `bin` (from 0), `images`,
        and their mean `confidence` and `accuracy`, NaN where there are no images. The mean of
        |confidence - accuracy| over images is the expected calibration error.
    """
    confidence = probabilities.max(axis=1)
    number = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, None)
    is_right = probabilities.argmax(axis=1) == labels
    samples = pd.DataFrame({"bin": number, "confidence": confidence, "accuracy": is_right})
    samples = samples.astype({"confidence": np.float64, "accuracy": np.float64})
    grouped = samples.groupby("bin")
    table = grouped.mean().assign(images=grouped.size()).reindex(range(CALIBRATION_BINS))
    table["images"] = table["images"].fillna(0).astype(int)
    return table.rename_axis("bin").reset_index()[["bin", "images", "confidence", "accuracy"]]


def vote_metrics(
    votes: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None
) -> dict[str, float]:
    """Return how far predictions are from the annotators' votes.

    Parameters
    ----------
    votes : numpy.ndarray, (N, K) float
        Votes for the K classes. Images without any are left out.
    probabilities : numpy.ndarray, (N, K) float
    weights : numpy.ndarray, (N,) float, optional
        How much each image counts; all alike without it.

    Returns
    -------
    dict of float
        Means over images: `kl_to_votes`, KL(votes || prediction) in nats, probabilities below 1e-12
        taken as 1e-12; `jsd_to_votes`, the Jensen-Shannon divergence in nats, 0 to ln 2;
        `manhattan_to_votes`, the sum of absolute differences of the shares, 0 to 2, which the
        shared tasks on learning with disagreements rank by; `vote_rank_correlation`, Spearman's
        rank correlation (ties by mean rank) between the votes and the probabilities of the K
        classes. And `vote_entropy_correlation`, Pearson's correlation over images of the entropy
        of the votes with that of the prediction. Images whose votes or predictions are all level
        have no rank correlation and are left out of it; NaN where nothing is left, and where all
        entropies of one side are equal.
    """
    voted = votes.sum(axis=1) > 0
    votes, probabilities = votes[voted], probabilities[voted].astype(np.float64)
    counts = np.ones(len(votes)) if weights is None else np.asarray(weights, np.float64)[voted]
    shares = votes / votes.sum(axis=1, keepdims=True)
    middle = (shares + probabilities) / 2
    ranks = [pd.DataFrame(values).rank(axis=1) for values in (votes, probabilities)]
    of_images = {
        "kl_to_votes": rel_entr(shares, np.maximum(probabilities, 1e-12)).sum(axis=1),
        "jsd_to_votes": (rel_entr(shares, middle) + rel_entr(probabilities, middle)).sum(axis=1)
        / 2,
        "manhattan_to_votes": np.abs(shares - probabilities).sum(axis=1),
        "vote_rank_correlation": ranks[0].corrwith(ranks[1], axis=1).to_numpy(),
    }
    entropies = entr(shares).sum(axis=1), entr(probabilities).sum(axis=1)
    return {
        **{name: _weighted_mean(values, counts) for name, values in of_images.items()},
        "vote_entropy_correlation": _weighted_correlation(*entropies, counts),
    }


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> float:
    """Return the mean of what is no NaN; NaN where nothing is left."""
    known = ~np.isnan(values)
    return float(np.average(values[known], weights=weights[known])) if known.any() else float("nan")


def _weighted_correlation(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> float:
    (one, both), (_, other) = np.cov(first, second, aweights=weights, ddof=0)
    return float(both / np.sqrt(one * other)) if min(one, other) > 1e-12 else float("nan")


def agreement_accuracies(
    labels: np.ndarray,
    votes: np.ndarray,
    predicted: np.ndarray,
    weights: np.ndarray | None = None,
) -> dict[str, float]:
    """Return the accuracy among images on which annotators agree alike.

    Parameters
    ----------
    labels, predicted : numpy.ndarray, (N,) int
    votes : numpy.ndarray, (N, K) float
        Counts of ten annotators; how many name the class that most of them name tells the bin.
    weights : numpy.ndarray, (N,) float, optional

    Returns
    -------
    dict of float
        `accuracy_<bin>`, NaN for a bin without images, and `share_<bin>` of the images, for the
        bins of `AGREEMENT_BINS`.
    """
    counts = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
    leading, is_right = votes.max(axis=1), (labels == predicted).astype(np.float64)
    found = {}
    for name, (least, most) in AGREEMENT_BINS.items():
        inside = (leading >= least) & (leading <= most)
        found[f"accuracy_{name}"] = _weighted_mean(is_right[inside], counts[inside])
        found[f"share_{name}"] = float(counts[inside].sum() / counts.sum())
    return found


def selective_risks(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Return the error among the predictions that a network is surest of.

    Parameters
    ----------
    labels : numpy.ndarray, (N,) int
    probabilities : numpy.ndarray, (N, K) float
        The largest of a row is the confidence. Of equal confidences any order is as good, and the
        mean over all orders is taken.

    Returns
    -------
    dict of float
        `risk_at_<c>`, the error among the surest c percent, for c of `COVERAGES`; `aurc`, the mean
        of the risks over all coverages 1/N, 2/N, .. 1 (Geifman and El-Yaniv, "Bias-reduced
        uncertainty estimation for deep neural classifiers", ICLR 2019).
    """
    confidence = probabilities.max(axis=1)
    wrong = (probabilities.argmax(axis=1) != labels).astype(np.float64)
    _, level, size = np.unique(-confidence, return_inverse=True, return_counts=True)
    wrong = np.repeat(np.bincount(level, wrong) / size, size)  # the surest first
    risks = wrong.cumsum() / np.arange(1, len(wrong) + 1)
    places = {c: max(round(len(wrong) * c / 100), 1) - 1 for c in COVERAGES}
    found = {f"risk_at_{c}": float(risks[place]) for c, place in places.items()}
    return {**found, "aurc": float(risks.mean())}


def picked_epochs(metrics: pd.DataFrame, rule: str, metric: str = "overall_accuracy") -> list[int]:
    """Return the epochs (counted from 0) that a selection rule picks; the first of equals.

    Parameters
    ----------
    metrics : pandas.DataFrame
        One row an epoch: `epoch`, `validation_<metric>`, `test_<metric>`.
    rule : str
        One of `SELECTION_RULES`.
    metric : str
        What "best" refers to.

    Raises
    ------
    ValueError
        For an unknown rule.
    """
    named(SELECTION_RULES, rule, "selection rule")
    if rule in _LATE:
        return metrics["epoch"].tail(_LATE[rule]).tolist()
    values = metrics[f"{rule.removeprefix('best_')}_{metric}"].to_numpy()
    return [int(metrics["epoch"].iloc[values.argmax()])]
