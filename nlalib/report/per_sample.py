"""From what a run recorded of each training image in one epoch to a few numbers.

Memorisation: what is predicted for training images whose label was flipped. Detection: how well a
score finds those images. Mean weights: how much they get. Ambiguity: whether a weight follows the
annotators' disagreement.
Minority: how much of the weight goes to classes with less than 1/K of the training labels.
Disambiguation: how often a method with candidate sets settles for the label. Relabelling: which
labels a method replaces, and whether the new ones are the true ones.

All from the augmented image in training mode, just as the loss saw it. A method's own predictions
count where it records them. Flipped labels are drawn evenly from the other classes, so they carry
a rare class's name more often than others do: compare `auroc_within_label_...` too.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

# Scores that every run has, and whether a low or a high value speaks for a wrong label; a method
# adds its own.
DETECTORS = {"loss": "high", "confidence": "low", "margin": "low", "focal_weight": "high"}


def is_minority(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return which labels name a class whose share of them is below 1 / `num_classes`.

    Parameters
    ----------
    labels : numpy.ndarray, (N,) int
        The given training labels.
    num_classes : int

    Returns
    -------
    numpy.ndarray, (N,) bool
    """
    counts = np.bincount(labels, minlength=num_classes)
    return counts[labels] * num_classes < len(labels)


def score_table(samples: pd.DataFrame, own: Mapping[str, str]) -> pd.DataFrame:
    """Return what might tell hard, ambiguous or wrongly labelled samples, one column a score.

    `confidence` is p_gt, `margin` p_gt - p_nn, `focal_weight` (1 - p_gt)^2 (Lin et al. 2017);
    `loss` the cross-entropy in nats; then the method's own, where recorded.

    Parameters
    ----------
    samples : pandas.DataFrame
        (N, ...) with `p_gt`, `p_nn`, `cross_entropy`.
    own : mapping of str to {"low", "high"}
        `Method.detectors` of the run's method.

    Returns
    -------
    pandas.DataFrame
        (N, 4 or more) float64, columns among `DETECTORS` and `own`.
    """
    table = pd.DataFrame(
        {
            "loss": samples["cross_entropy"],
            "confidence": samples["p_gt"],
            "margin": samples["p_gt"] - samples["p_nn"],
            "focal_weight": (1 - samples["p_gt"]) ** 2,
            **{name: samples[name] for name in own if name in samples},
        }
    )
    return table.astype(np.float64)


def memorisation(samples: pd.DataFrame) -> dict[str, float]:
    """Return training accuracies of one epoch, apart for flipped and clean samples.

    Parameters
    ----------
    samples : pandas.DataFrame
        `predicted`, `label` (given), and where flipped labels are known `true_label` and
        `is_flipped`.

    Returns
    -------
    dict of float, fractions
        `accuracy_given` and, where some labels are flipped, `accuracy_true`, `clean_correct`,
        `flipped_as_given` (memorised) and `flipped_as_true` (seen through).
    """
    as_given = samples["predicted"] == samples["label"]
    values = {"accuracy_given": as_given.mean()}
    if not some_flipped(samples):
        return values
    as_true, flipped = samples["predicted"] == samples["true_label"], samples["is_flipped"]
    return {
        **values,
        "accuracy_true": as_true.mean(),
        "clean_correct": as_given[~flipped].mean(),
        "flipped_as_given": as_given[flipped].mean(),
        "flipped_as_true": as_true[flipped].mean(),
    }


def detection(samples: pd.DataFrame, own: Mapping[str, str]) -> dict[str, float]:
    """Return each score's area under the ROC curve as a detector of flipped labels.

    `auroc_<low or high>_<score>` is the probability that a flipped sample has the lower (higher)
    score than one that is not, 0.5 by chance. `auroc_within_label_...` is taken among samples of
    one given label and averaged over labels, weighted by their flipped samples; a score that only
    says "a rare class" has 0.5 there. Empty where no label is flipped.
    """
    if not some_flipped(samples):
        return {}
    flipped, labels = samples["is_flipped"].to_numpy(), samples["label"].to_numpy()
    both = [k for k in np.unique(labels) if 0 < flipped[labels == k].mean() < 1]
    values = {}
    speaks = {**DETECTORS, **own}
    for name, score in score_table(samples, own).items():
        suspicion = (score if speaks[name] == "high" else -score).to_numpy()
        values[f"auroc_{speaks[name]}_{name}"] = roc_auc_score(flipped, suspicion)
        if name in ("confidence", "focal_weight") or not both:
            continue  # these two rank samples as the loss does
        within = [roc_auc_score(flipped[labels == k], suspicion[labels == k]) for k in both]
        values[f"auroc_within_label_{speaks[name]}_{name}"] = np.average(
            within, weights=[flipped[labels == k].sum() for k in both]
        )
    return values


def mean_weights(samples: pd.DataFrame) -> dict[str, float]:
    """Return the mean of a method's `weight`, apart for flipped and clean samples.

    Returns
    -------
    dict of float
        `mean_weight` and, where some labels are flipped, `mean_weight_of_flipped` and
        `mean_weight_of_clean`. Empty where the method has no weight.
    """
    if "weight" not in samples:
        return {}
    values = {"mean_weight": samples["weight"].mean()}
    if some_flipped(samples):
        of = samples.groupby(samples["is_flipped"].astype(bool))["weight"].mean()
        values |= {"mean_weight_of_flipped": of[True], "mean_weight_of_clean": of[False]}
    return values


def ambiguity(samples: pd.DataFrame, own: Mapping[str, str]) -> dict[str, float]:
    """Return Spearman's rank correlation of each score with the entropy of the votes.

    Over samples that have a vote entropy and are not flipped: a wrong label says nothing about
    whether annotators agree on the face. Empty where the set has no votes; a score or an
    entropy that is constant has no correlation (NaN).
    """
    if "vote_entropy" not in samples:
        return {}
    kept = samples[samples["vote_entropy"].notna()]
    if some_flipped(samples):
        kept = kept[~kept["is_flipped"].astype(bool)]
    return {
        f"entropy_correlation_{name}": _spearman(score, kept["vote_entropy"])
        for name, score in score_table(kept, own).items()
    }


def minority_shares(
    samples: pd.DataFrame, own: Mapping[str, str], adds_to_one: bool = False
) -> dict[str, float]:
    """Return what minority classes have of the weight, beside their share of the samples.

    Of the method's `weight` (1 + w for methods that add it to one), the loss, and focal's weight:
    `minority_share_of_<score>`, their sum over minority samples over that over all, and
    `minority_share_of_top_<score>`, minority samples among the tenth with the highest score.

    Parameters
    ----------
    samples : pandas.DataFrame
        As in `score_table`, with `is_minority`.
    own : mapping of str to {"low", "high"}
        `Method.detectors` of the run's method.
    adds_to_one : bool
        Its `weight_adds_to_one`.
    """
    minority = samples["is_minority"].to_numpy()
    values = {"minority_share_of_samples": minority.mean()}
    table = score_table(samples, own)
    if "weight" in table and adds_to_one:
        table["weight"] += 1
    for name in ("weight", "loss", "focal_weight"):
        if name in table:
            score = table[name].to_numpy()
            top = np.argsort(-score, kind="stable")[: len(score) // 10]
            values[f"minority_share_of_{name}"] = score[minority].sum() / score.sum()
            values[f"minority_share_of_top_{name}"] = minority[top].mean()
    return values


def disambiguation(samples: pd.DataFrame) -> dict[str, float]:
    """Return how often the candidate that a method settles for is the label.

    Over samples with more than one candidate; the label there is what most annotators voted for.
    Empty where the method has no candidates, or no sample has several.

    Parameters
    ----------
    samples : pandas.DataFrame
        `identified` (class id), `label`, `candidates` (their number) and, where it is known,
        `true_label`.

    Returns
    -------
    dict of float, fractions
        `disambiguated`; `disambiguated_by_chance`, what drawing one of each set at random gives
        where the sets hold the label; `disambiguated_share`, of all samples; and
        `disambiguated_true`.
    """
    if "identified" not in samples or not (samples["candidates"] > 1).any():
        return {}
    several = samples[samples["candidates"] > 1]
    values = {
        "disambiguated": (several["identified"] == several["label"]).mean(),
        "disambiguated_by_chance": (1 / several["candidates"]).mean(),
        "disambiguated_share": len(several) / len(samples),
    }
    if "true_label" in several:
        values["disambiguated_true"] = (several["identified"] == several["true_label"]).mean()
    return values


def relabelling(samples: pd.DataFrame) -> dict[str, float]:
    """Return what a method's own labels are worth that replace given ones.

    Parameters
    ----------
    samples : pandas.DataFrame
        `stored_label` (class id, the method's own), `label` (given), and where flipped labels are
        known `true_label` and `is_flipped`.

    Returns
    -------
    dict of float, fractions
        `relabelled`, of all samples and, where some labels are flipped, `relabelled_flipped` of the
        flipped and `relabelled_clean` of the others; `relabelled_to_true`, of the relabelled, NaN
        if none is; `stored_true`, of all samples, beside `given_true`. Empty where the method
        stores no labels.
    """
    if "stored_label" not in samples:
        return {}
    changed = samples["stored_label"] != samples["label"]
    values = {"relabelled": changed.mean()}
    if not some_flipped(samples):
        return values
    flipped, right = samples["is_flipped"], samples["stored_label"] == samples["true_label"]
    return {
        **values,
        "relabelled_flipped": changed[flipped].mean(),
        "relabelled_clean": changed[~flipped].mean(),
        "relabelled_to_true": right[changed].mean(),
        "stored_true": right.mean(),
        "given_true": 1 - flipped.mean(),
    }


def some_flipped(samples: pd.DataFrame) -> bool:
    """Return whether any label is known to be flipped."""
    return "is_flipped" in samples and bool(samples["is_flipped"].any())


def _spearman(first: pd.Series, second: pd.Series) -> float:
    if first.nunique() < 2 or second.nunique() < 2:
        return float("nan")
    return float(spearmanr(first, second).statistic)
