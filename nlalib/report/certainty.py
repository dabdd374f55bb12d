"""How sure a difference between two methods is.

Two things vary between experiments: the seed (initial weights, order of batches, and wrong labels,
except those of rendered faces) and the test images. Student's interval over paired seeds speaks of
the first, the paired bootstrap over test images of the second, each with the other held fixed.
Trust a difference that both call one. (A bootstrap of both at once would be narrower than Student's
interval alone: it takes three or five seeds for all there are.) "No difference shown" is not "shown
to be equal": that is what `equivalence` asks.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import stats

from nlalib.report.frame import SETTING, chosen_rows

ACCURACIES = ("overall_accuracy", "mean_accuracy")
# What a method and the one it is compared with have in common.
CONDITION = [name for name in SETTING if name not in ("method", "settings")]
RESAMPLES = 5000
# Closer than this two accuracies are equal in practice: one point.
MARGIN = 0.01
# The verdict where runs could not have told, see `nlalib.report.gate`.
INCONCLUSIVE = "inconclusive"


def student_interval(differences: np.ndarray, confidence: float = 0.95) -> dict[str, float]:
    """Return mean, deviation, Student's interval and p-value of paired differences.

    Parameters
    ----------
    differences : numpy.ndarray, (n,) float
        One for each pair; at least one.
    confidence : float

    Returns
    -------
    dict
        `n`, `difference`, `deviation` (n - 1), `low`, `high` and `p_seeds` (two-sided, of no
        difference); NaN but for the first two with a single pair. Pairs that differ all by the same
        say as little of their spread: interval and p-value are NaN, unless none differs at all.
    """
    differences = np.asarray(differences, dtype=np.float64)
    n, mean = len(differences), float(differences.mean())
    if n == 1:
        nothing = dict.fromkeys(("deviation", "low", "high", "p_seeds"), np.nan)
        return {"n": 1, "difference": mean, **nothing}
    deviation = float(differences.std(ddof=1))
    if _all_the_same(differences):
        bound, p = (0.0, 1.0) if _is_zero(mean) else (np.nan, np.nan)
        interval = {"low": bound, "high": bound, "p_seeds": p}
        return {"n": n, "difference": mean, "deviation": 0.0, **interval}
    test = stats.ttest_1samp(differences, 0)
    low, high = test.confidence_interval(confidence)
    interval = {"low": float(low), "high": float(high), "p_seeds": float(test.pvalue)}
    return {"n": n, "difference": mean, "deviation": deviation, **interval}


def equivalence(differences: np.ndarray) -> float:
    """Return the p-value of "further apart than `MARGIN`", of paired differences.

    Two one-sided t tests (Schuirmann 1987), the larger of their p-values: below 0.05 the methods
    are shown to be equal within the margin. NaN with a single pair, and with pairs that differ all
    by the same; 0 if none differs.
    """
    differences = np.asarray(differences, dtype=np.float64)
    if len(differences) == 1:
        return float("nan")
    if _all_the_same(differences):
        return 0.0 if _is_zero(differences[0]) else float("nan")
    # Below the margin is, of the differences turned round, above its negative.
    both = np.stack([differences, -differences])
    return float(stats.ttest_1samp(both, -MARGIN, axis=1, alternative="greater").pvalue.max())


def _all_the_same(differences: np.ndarray) -> bool:
    return _is_zero(np.ptp(differences))


def _is_zero(number: float) -> bool:
    return bool(abs(number) < 1e-12)  # but for rounding


def detectable_difference(deviation: float, n: int) -> float:
    """Return the smallest true difference that n pairs would have shown with a power of 0.8.

    By a two-sided paired t test of level 0.05 (statsmodels' `TTestPower`). The deviation is
    itself estimated from n pairs, so with three of them it is a rough guide.

    Parameters
    ----------
    deviation : float
        Standard deviation of the paired differences, not negative.
    n : int
        Pairs, at least 2; NaN is returned for one.
    """
    if n < 2 or np.isnan(deviation):
        return float("nan")
    return _detectable_effect(n) * deviation


@lru_cache
def _detectable_effect(n: int) -> float:
    """Return the same in deviations; found by a search, once for each number of pairs."""
    from statsmodels.stats.power import TTestPower  # 2 s, which reports need not wait for

    return float(TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8))


def paired_differences(
    results: pd.DataFrame,
    metric: str,
    selection: str,
    reference: str = "ce",
    confidence: float = 0.95,
    reference_selection: str = "",
) -> pd.DataFrame:
    """Return each method's mean difference to a reference under the same conditions, by seed.

    Parameters
    ----------
    results : pandas.DataFrame
        Long form, columns `nlalib.report.frame.RESULT_COLUMNS`, of one study or several.
    metric, selection : str
    reference : str
        A method. Where it was run with several settings, the plain one counts.
    confidence : float
    reference_selection : str
        The rule for the reference, if it is another; the reference then has a row as well.

    Returns
    -------
    pandas.DataFrame
        A row for each setting but the reference: `study`, `SETTING`, `reference`, `selection`,
        `metric`, what `student_interval` gives and `p_equivalent`, over the seeds that both have.
        Conditions under which the reference was not run have no row.

    Raises
    ------
    ValueError
        If the reference was run under none of the conditions, or never with the same seed, or
        several settings of it could be meant.
    """
    results = results.reset_index(drop=True)  # tables laid together may repeat theirs
    chosen = chosen_rows(results, metric, selection)
    baselines = chosen_rows(results, metric, reference_selection or selection)
    chosen_by = {"reference": reference, "selection": selection, "metric": metric}
    rows = []
    for own, baseline in comparisons(chosen, baselines, reference):
        pairs = own.merge(baseline, on="seed", suffixes=("", "_of_reference"))
        if pairs.empty:
            raise ValueError(f"{own['run_id'].iloc[0]} and {reference!r} share no seed")
        gains = pairs["value"] - pairs["value_of_reference"]
        interval = student_interval(gains, confidence) | {"p_equivalent": equivalence(gains)}
        identity = own.iloc[0][["study", *SETTING]].to_dict()
        rows.append({**identity, **chosen_by, **interval})
    if not rows:
        raise ValueError(
            f"nothing to compare with {reference!r}; there are methods "
            f"{sorted(chosen['method'].unique())}"
        )
    return pd.DataFrame(rows)


def comparisons(
    rows: pd.DataFrame, baselines: pd.DataFrame, reference: str
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Yield the rows of each setting, with those of the reference under the same condition.

    Parameters
    ----------
    rows, baselines : pandas.DataFrame
        With `study` and `SETTING`; where the reference is looked for, `rows` themselves or others.
    reference : str
    """
    shared = ["study", *CONDITION]
    for condition, same in rows.groupby(shared, sort=False):
        is_same = (baselines[shared] == list(condition)).all(axis=1)
        baseline = reference_rows(baselines[is_same], reference)
        if not baseline.empty:
            others = same.drop(baseline.index, errors="ignore")
            for _, own in others.groupby(["method", "settings"], sort=False):
                yield own, baseline


def reference_rows(same: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Return the rows of a reference under one condition; with several settings the plain one's."""
    rows = same[same["method"] == reference]
    if rows["settings"].nunique() > 1:
        rows = rows[rows["settings"] == ""]
        if rows.empty:
            raise ValueError(f"{reference!r} was run with several settings and never plainly")
    return rows


def resampled_counts(images: int) -> np.ndarray:
    """Return how often each image is drawn in each bootstrap resample, (RESAMPLES, images) float32.

    One draw for all comparisons of a study, so that they see the same resampled test sets.
    """
    generator = np.random.default_rng(0)
    counts = np.empty((RESAMPLES, images), dtype=np.float32)
    for row in counts:
        row[:] = np.bincount(generator.integers(0, images, images), minlength=images)
    return counts


def bootstrap_differences(
    gains: np.ndarray, seeds: int, labels: np.ndarray, counts: np.ndarray
) -> dict[str, np.ndarray]:
    """Return resampled differences of overall and mean accuracy.

    Parameters
    ----------
    gains : numpy.ndarray, (N,) int
        Of each test image, the number of seeds in which the method is right less that of the
        reference. Whole numbers, whose sums are exact in float32: shares would leave ties a hair
        above or below zero, on other sides on other processors.
    seeds : int
    labels : numpy.ndarray, (N,) int
    counts : numpy.ndarray, (B, N)
        Of `resampled_counts`.

    Returns
    -------
    dict of numpy.ndarray, (B,) float64
        `overall_accuracy`, and `mean_accuracy` over the classes that occur in the resample.
    """
    is_class = (labels[:, None] == np.unique(labels)).astype(np.float32)  # (N, K)
    drawn = counts @ is_class  # (B, K)
    gained = (counts @ (is_class * gains[:, None].astype(np.float32))).astype(np.float64)
    recalls = np.where(drawn > 0, gained / np.maximum(drawn, 1), np.nan)
    differences = {
        "overall_accuracy": gained.sum(axis=1) / counts.sum(axis=1),
        "mean_accuracy": np.nanmean(recalls, axis=1),
    }
    # Twelve decimals: recalls that cancel (1/3 - 1/6 - 1/6) are a tie as well.
    return {name: (values / seeds).round(12) for name, values in differences.items()}


def bootstrap_interval(resampled: np.ndarray) -> dict[str, float]:
    """Return the percentile interval, of 95 %, and the two-sided p-value of no difference.

    p = 2 (1 + the smaller number of resamples on one side of zero, zero included) / (1 + B), at
    most 1 (Davison, Hinkley, Bootstrap Methods and their Application, 1997, section 4.2).
    """
    low, high = np.quantile(resampled, [0.025, 0.975])
    smaller = min((resampled <= 0).sum(), (resampled >= 0).sum())
    p = min(1.0, 2 * (1 + smaller) / (1 + len(resampled)))
    return {"images_low": float(low), "images_high": float(high), "p_images": float(p)}


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return p-values corrected for their number (Holm 1979), (m,) float; NaN stays, uncounted."""
    # By hand: statsmodels' `multipletests` collects all garbage of the process at each call.
    p_values = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(len(p_values), np.nan)
    smallest_first = np.argsort(p_values)[: np.count_nonzero(~np.isnan(p_values))]  # NaN come last
    still_asked = np.arange(len(smallest_first), 0, -1)
    stepped = np.maximum.accumulate(p_values[smallest_first] * still_asked)
    corrected[smallest_first] = np.minimum(stepped, 1)
    return corrected


def certainty(row, level: float = 0.05) -> str:
    """Return how sure a difference is: "holds", "hint" or "not told apart".

    It is a hint if the interval over seeds and that over test images, where there is one, leave out
    zero on the same side, and holds if the p-values corrected for many comparisons are below
    `level` too. None of the three words is about the difference's size.

    Parameters
    ----------
    row
        With attributes `low`, `high` and `p_seeds_holm` (over seeds), `images_low`, `images_high`
        and `p_images_holm` (over test images): floats, NaN where one was not taken. Without an
        interval over seeds nothing is told apart.
    level : float
    """
    bounds = np.array([row.low, row.high, row.images_low, row.images_high], dtype=np.float64)
    sides = np.sign(bounds[~np.isnan(bounds)])
    if np.isnan(row.low) or sides[0] == 0 or not (sides == sides[0]).all():
        return "not told apart"
    return "holds" if np.nanmax([row.p_seeds_holm, row.p_images_holm]) < level else "hint"
