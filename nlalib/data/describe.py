"""How imbalanced and how ambiguous a set is, from its index alone.

All statistics on votes take `columns`, which says whose votes count:

- "expressions": the eight expressions. A vote for `unknown` or `not a face` says that the
  annotator saw no expression to name, so it is left out, as if not cast.
- "all": all ten columns, as FERPlus ships them.

Ten votes estimate an entropy with a downward bias, so entropies of sets with different
numbers of annotators do not compare.
"""

from itertools import combinations

import krippendorff
import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score

from nlalib.data.index import SPLITS, VOTE_NAMES, vote_counts
from nlalib.data.labels import EXPRESSIONS, expressions
from nlalib.data.votes import label_from_votes
from nlalib.names import named

VOTE_SETS = {"expressions": EXPRESSIONS, "all": VOTE_NAMES}


def class_counts(index: pd.DataFrame, num_classes: int) -> pd.DataFrame:
    """Count the images of each class in each split.

    Returns
    -------
    pandas.DataFrame
        One row an expression, in the project's order; one column a split that occurs (int64).
    """
    names = expressions(num_classes)
    counts = pd.crosstab(index["label"], index["split"])
    splits = [split for split in SPLITS if split in counts]
    counts = counts.reindex(index=range(num_classes), columns=splits, fill_value=0)
    return counts.set_axis(pd.Index(names, name="expression")).rename_axis(columns=None)


def imbalance_ratio(counts: pd.Series) -> float:
    """Return the size of the largest class over that of the smallest.

    Raises
    ------
    ValueError
        If a class is empty: the ratio is then infinite, and usually the label map is wrong.
    """
    if (counts == 0).any():
        empty = list(counts.index[counts == 0])
        raise ValueError(f"no image of {empty}: is the set read with the right number of classes?")
    return float(counts.max() / counts.min())


def vote_shares(votes: pd.DataFrame, columns: str = "expressions") -> pd.DataFrame:
    """Return each image's votes as shares of its votes in these columns.

    Parameters
    ----------
    votes : pandas.DataFrame
        N rows with the columns `nlalib.data.index.VOTE_COLUMNS`.
    columns : str
        "expressions" or "all", see the top of this module.

    Returns
    -------
    pandas.DataFrame
        (N, 8 or 10) float64, columns named as in `nlalib.data.index.VOTE_NAMES`. Rows sum to 1; a
        row without any vote in these columns is NaN.
    """
    counts = _counts(votes, columns)
    total = counts.sum(axis=1)
    return counts.div(total.where(total > 0), axis=0)


def vote_entropy(votes: pd.DataFrame, columns: str = "expressions") -> pd.Series:
    """Return the entropy of each image's votes in nats: 0 where all agree, at most ln K.

    H = -sum_k s_k ln s_k, with s the shares of `vote_shares` and 0 ln 0 = 0.

    Returns
    -------
    pandas.Series
        (N,) float64; NaN where the image has no vote in these columns.
    """
    shares = vote_shares(votes, columns)
    # log(1) stands in for log(0), whose product with 0 is 0 in the limit.
    entropy = -(shares * np.log(shares.where(shares != 0, 1.0))).sum(axis=1, skipna=False)
    # Without this, a unanimous image's entropy prints as -0.
    return entropy.abs().rename("entropy")


def annotator_agreement(votes: pd.DataFrame, columns: str = "expressions") -> float:
    """Return Krippendorff's alpha of the annotators, for nominal values.

    1 is perfect agreement, 0 what chance alone gives with the set's own shares of votes, below 0
    systematic disagreement. Images with fewer than two votes in these columns say nothing about
    agreement and take no part.

    Raises
    ------
    ValueError
        If fewer than two classes were voted for: alpha is then undefined (0 / 0).
    """
    counts = _counts(votes, columns)
    counts = counts[counts.sum(axis=1) >= 2]
    voted = counts.columns[counts.sum() > 0]
    if len(voted) < 2:
        raise ValueError(
            f"Krippendorff's alpha needs votes for two or more classes, found {list(voted)} on "
            f"{len(counts)} images with two or more votes"
        )
    alpha = krippendorff.alpha(value_counts=counts.to_numpy(), level_of_measurement="nominal")
    return float(alpha)


def vote_shares_by_label(
    index: pd.DataFrame, num_classes: int, columns: str = "expressions"
) -> pd.DataFrame:
    """Return what the annotators of each class's images voted for, on average.

    Row a, column b: mean share of votes for b among the images labelled a. The diagonal is the
    mean support of the label; far from 1 it means that the class is ambiguous. Rows do not
    depend on how frequent a class is. A class without images gives a row of NaN.

    Returns
    -------
    pandas.DataFrame
        (num_classes, 8 or 10) float64; rows are labels, columns what was voted for.
    """
    shares = vote_shares(index, columns)
    means = shares.groupby(index["label"].to_numpy()).mean().reindex(range(num_classes))
    return means.set_axis(pd.Index(expressions(num_classes), name="label"))


def rank_ambiguous_pairs(shares_by_label: pd.DataFrame) -> pd.DataFrame:
    """Rank the pairs of classes by how often one draws the votes of the other.

    Parameters
    ----------
    shares_by_label : pandas.DataFrame
        Of `vote_shares_by_label`.

    Returns
    -------
    pandas.DataFrame
        One row a pair, the most ambiguous first: `first`, `second`, `first_to_second` (mean
        share of votes for the second on images of the first), `second_to_first`, and
        `mean_share`, the mean of the two: both classes count alike, however rare.
    """
    pairs = [
        (first, second, shares_by_label.at[first, second], shares_by_label.at[second, first])
        for first, second in combinations(shares_by_label.index, 2)
    ]
    ranked = pd.DataFrame(pairs, columns=["first", "second", "first_to_second", "second_to_first"])
    ranked["mean_share"] = ranked[["first_to_second", "second_to_first"]].mean(axis=1, skipna=False)
    return ranked.sort_values("mean_share", ascending=False, ignore_index=True)


def retest_agreement(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Compare two sets of votes on the same images, cast independently of each other.

    Parameters
    ----------
    first, second : pandas.DataFrame
        N rows each, of the same images in the same order, with `nlalib.data.index.VOTE_COLUMNS`.

    Returns
    -------
    pandas.DataFrame
        One row for "all" images and one for each expression that is the label of an image by the
        first votes (rule `argmax`): `images`; `same_label`, the share to which the second votes
        give the same label; `total_variation`, the mean distance of the two distributions over
        all ten columns, 0 (equal) to 1. For "all" also `kappa` (Cohen) of the labels, where
        images without an expression are a class of their own, and `entropy_rank_correlation`
        (Spearman) of the two entropies over all columns; NaN in the other rows.

    Raises
    ------
    ValueError
        If the two have not the same number of rows.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} rows of votes; pass the same images")
    labels = [label_from_votes(votes, "argmax", 8)["label"].to_numpy() for votes in (first, second)]
    shares = [vote_shares(votes, "all").to_numpy() for votes in (first, second)]
    entropies = [vote_entropy(votes, "all") for votes in (first, second)]
    images = pd.DataFrame(
        {
            "label": labels[0],
            "same_label": labels[0] == labels[1],
            "total_variation": np.abs(shares[0] - shares[1]).sum(axis=1) / 2,
        }
    )
    columns = {
        "images": ("label", "size"),
        "same_label": ("same_label", "mean"),
        "total_variation": ("total_variation", "mean"),
    }
    every = images.groupby(np.full(len(images), "all")).agg(**columns)
    every["kappa"] = cohen_kappa_score(*labels)
    every["entropy_rank_correlation"] = spearmanr(*entropies).statistic
    by_label = images[images["label"] >= 0].groupby("label").agg(**columns)
    by_label.index = by_label.index.map(dict(enumerate(EXPRESSIONS)))
    return pd.concat([every, by_label]).rename_axis("expression")


def _counts(votes: pd.DataFrame, columns: str) -> pd.DataFrame:
    """Return the wanted vote columns, renamed to the bare names."""
    names = named(VOTE_SETS, columns, "columns")
    return vote_counts(votes).set_axis(list(VOTE_NAMES), axis=1)[list(names)]
