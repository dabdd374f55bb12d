"""Differences between methods: over seeds, over test images, over many comparisons.

Two things vary between experiments: the seed (initial weights, order of batches, wrong labels) and
the test images. Student's interval over paired seeds speaks of the first, the paired bootstrap over
test images of the second, each with the other held fixed. Trust a difference that both call one.
"""

import numpy as np
import pandas as pd
from scipy import optimize, stats

from nlalib.data.splits import TEST
from nlalib.metrics import selected_epoch
from nlalib.report.frame import SETTING, chosen_rows, identity_columns, require_done, study_table
from nlalib.report.studies import Study
from nlalib.training.config import RunConfig

ACCURACIES = ("overall_accuracy", "mean_accuracy")
SELECTIONS = ("last", "best_validation")
# What a method and the one it is compared with have in common.
CONDITION = [name for name in SETTING if name not in ("method", "settings")]
RESAMPLES = 5000
COLUMNS = [
    *("study", *SETTING, "reference", "selection", "metric"),
    *("n", "difference", "deviation", "low", "high", "p_seeds", "detectable"),
    *("images_low", "images_high", "p_images", "p_seeds_holm", "p_images_holm"),
]


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
        difference); NaN but for the first two with a single pair.
    """
    differences = np.asarray(differences, dtype=np.float64)
    n, mean = len(differences), float(differences.mean())
    if n == 1:
        nothing = dict.fromkeys(("deviation", "low", "high", "p_seeds"), np.nan)
        return {"n": 1, "difference": mean, **nothing}
    deviation = float(differences.std(ddof=1))
    error = deviation / np.sqrt(n)
    reach = stats.t.ppf((1 + confidence) / 2, n - 1) * error
    # Differences that are all the same leave nothing to chance, unless they are all zero.
    t = 0.0 if mean == 0 else abs(mean) / error if error else np.inf
    p = float(2 * stats.t.sf(t, n - 1))
    interval = {"low": mean - reach, "high": mean + reach}
    return {"n": n, "difference": mean, "deviation": deviation, **interval, "p_seeds": p}


def detectable_difference(
    deviation: float, n: int, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Return the smallest true difference that n pairs would have shown with this power.

    The delta at which a two-sided paired t test of level alpha rejects with probability `power`:

        P(|T| > t_{1 - alpha/2, n - 1}) = power,  T ~ noncentral t(n - 1, delta sqrt(n) / s)

    (Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988, chapter 2). The deviation
    s is itself estimated from n pairs, so with three of them it is a rough guide.

    Parameters
    ----------
    deviation : float
        Standard deviation of the paired differences, not negative.
    n : int
        Pairs, at least 2; NaN is returned for one.
    """
    if n < 2:
        return float("nan")
    critical = stats.t.ppf(1 - alpha / 2, n - 1)

    def surplus(shift: float) -> float:
        # The other tail, a rejection in the wrong direction, is below 1e-4 at any useful power.
        return stats.nct.sf(critical, n - 1, shift) - power

    return float(optimize.brentq(surplus, 0, 2 * critical + 3) * deviation / np.sqrt(n))


def paired_differences(
    results: pd.DataFrame,
    metric: str,
    selection: str,
    reference: str = "ce",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Return each method's mean difference to a reference under the same conditions, by seed.

    Parameters
    ----------
    results : pandas.DataFrame
        Long form, columns `nlalib.report.frame.COLUMNS`, of one study or several.
    metric, selection : str
    reference : str
        A method. Where it was run with several settings, the plain one counts.
    confidence : float

    Returns
    -------
    pandas.DataFrame
        A row for each setting but the reference: `study`, `SETTING`, `reference`, `selection`,
        `metric`, and what `student_interval` gives, over the seeds that both have. Conditions
        under which the reference was not run have no row.

    Raises
    ------
    ValueError
        If the reference was run under none of the conditions, or never with the same seed, or
        several settings of it could be meant.
    """
    chosen = chosen_rows(results, metric, selection)
    rows = []
    for _, same in chosen.groupby(["study", *CONDITION], sort=False, dropna=False):
        baseline = _reference_rows(same, reference)
        if baseline.empty:
            continue
        others = same.drop(baseline.index)
        for _, own in others.groupby(["method", "settings"], sort=False):
            pairs = own.merge(baseline[["seed", "value"]], on="seed", suffixes=("", "_reference"))
            if pairs.empty:
                raise ValueError(f"{own['run_id'].iloc[0]} and {reference!r} share no seed")
            interval = student_interval(pairs["value"] - pairs["value_reference"], confidence)
            identity = own.iloc[0][["study", *SETTING]].to_dict()
            chosen_by = {"reference": reference, "selection": selection, "metric": metric}
            rows.append({**identity, **chosen_by, **interval})
    if not rows:
        raise ValueError(
            f"nothing to compare with {reference!r}; there are methods "
            f"{sorted(chosen['method'].unique())}"
        )
    return pd.DataFrame(rows)


def _reference_rows(same: pd.DataFrame, reference: str) -> pd.DataFrame:
    rows = same[same["method"] == reference]
    if rows["settings"].nunique() > 1:
        rows = rows[rows["settings"] == ""]
        if rows.empty:
            raise ValueError(f"{reference!r} was run with several settings and never plainly")
    return rows


def resampled_counts(images: int, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """Return how often each image is drawn in each bootstrap resample, (resamples, images) float32.

    One draw for all comparisons of a study, so that they see the same resampled test sets.
    """
    generator = np.random.default_rng(seed)
    counts = np.empty((resamples, images), dtype=np.float32)
    for row in counts:
        row[:] = np.bincount(generator.integers(0, images, images), minlength=images)
    return counts


def bootstrap_differences(
    gains: np.ndarray, labels: np.ndarray, counts: np.ndarray
) -> dict[str, np.ndarray]:
    """Return resampled differences of overall and mean accuracy.

    Parameters
    ----------
    gains : numpy.ndarray, (N,) float
        Of each test image, the share of seeds in which the method is right less that of the
        reference, -1 to 1.
    labels : numpy.ndarray, (N,) int
    counts : numpy.ndarray, (B, N)
        Of `resampled_counts`.

    Returns
    -------
    dict of numpy.ndarray, (B,) float
        `overall_accuracy`, and `mean_accuracy` over the classes that occur in the resample.
    """
    is_class = (labels[:, None] == np.unique(labels)).astype(np.float32)  # (N, K)
    drawn = counts @ is_class  # (B, K)
    gained = counts @ (is_class * gains[:, None].astype(np.float32))
    recalls = np.where(drawn > 0, gained / np.maximum(drawn, 1), np.nan)
    return {
        "overall_accuracy": gained.sum(axis=1) / counts.sum(axis=1),
        "mean_accuracy": np.nanmean(recalls, axis=1),
    }


def bootstrap_interval(resampled: np.ndarray, confidence: float = 0.95) -> dict[str, float]:
    """Return the percentile interval and the two-sided p-value of no difference.

    p = 2 (1 + the smaller number of resamples on one side of zero, zero included) / (1 + B), at
    most 1 (Davison, Hinkley, Bootstrap Methods and their Application, 1997, section 4.2).
    """
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    smaller = min((resampled <= 0).sum(), (resampled >= 0).sum())
    p = min(1.0, 2 * (1 + smaller) / (1 + len(resampled)))
    return {"images_low": float(low), "images_high": float(high), "p_images": float(p)}


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return p-values corrected for their number, (m,) float; NaN stays and does not count.

    Holm 1979: with p sorted upwards, the i-th (from 0) becomes the largest of (m - j) p_j, j <= i,
    at most 1. It bounds the chance of any false discovery, whatever depends on what.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    steps = np.arange(len(order), 0, -1) * p_values[order]
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
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


def hits_on_test(config: RunConfig, selection: str) -> pd.DataFrame:
    """Return of each test image of a finished run its label and whether it is predicted right.

    Returns
    -------
    pandas.DataFrame
        Rows `image_id`, sorted; columns `label` (int) and `hit` (bool).
    """
    metrics = pd.read_csv(config.folder / "metrics.csv")
    epoch = selected_epoch(metrics, selection)
    table = pd.read_parquet(config.folder / "predictions.parquet")
    table = table[(table["part"] == TEST) & (table["epoch"] == epoch)].set_index("image_id")
    names = [name for name in table if name.startswith("p_")]
    hit = table[names].to_numpy().argmax(axis=1) == table["label"]
    return table[["label"]].assign(hit=hit).sort_index()


def study_differences(study: Study, reference: str = "ce", seed: int = 0) -> pd.DataFrame:
    """Return all comparisons of a study's methods with the reference, one row each.

    Overall and mean accuracy, each under the selection rules "last" and "best_validation". No
    rows where the reference shares its conditions with no other run of the study.

    Parameters
    ----------
    study : Study
        All of its runs have to be done.
    reference : str
    seed : int
        Of the bootstrap.

    Returns
    -------
    pandas.DataFrame
        Columns `COLUMNS`: as `paired_differences`; `detectable`, see `detectable_difference`;
        `images_low`, `images_high` and `p_images`, see `bootstrap_interval`; `p_seeds_holm` and
        `p_images_holm`, corrected for all comparisons of the study under one selection rule, both
        accuracies together.
    """
    require_done(study)
    runs = pd.DataFrame(
        [{**identity_columns(c, study.name), "config": c} for c in study.runs.values()]
    )
    compared = runs.groupby(CONDITION)["method"].agg(set)
    if not any(reference in methods and len(methods) > 1 for methods in compared):
        return pd.DataFrame(columns=COLUMNS)
    results = study_table(study)
    parts = [
        paired_differences(results, metric, selection, reference)
        for selection in SELECTIONS
        for metric in ACCURACIES
    ]
    table = pd.concat(parts, ignore_index=True)
    detectable = [
        detectable_difference(s, n) for s, n in zip(table["deviation"], table["n"], strict=True)
    ]
    table["detectable"] = detectable
    bootstrap = _study_bootstrap(runs, reference, seed)
    table = table.merge(bootstrap, on=[*SETTING, "selection", "metric"], validate="one_to_one")
    for name in ("p_seeds", "p_images"):
        table[f"{name}_holm"] = table.groupby("selection")[name].transform(holm)
    return table[COLUMNS]


def _study_bootstrap(runs: pd.DataFrame, reference: str, seed: int) -> pd.DataFrame:
    """Return the bootstrap's columns for each setting, selection and accuracy."""
    drawn: dict[int, np.ndarray] = {}  # by the number of test images
    rows = []
    for selection in SELECTIONS:
        for _, same in runs.groupby(CONDITION, sort=False):
            baseline = _reference_rows(same, reference)
            if baseline.empty:
                continue
            hits = {run.seed: hits_on_test(run.config, selection) for run in baseline.itertuples()}
            for _, own in same.drop(baseline.index).groupby(["method", "settings"], sort=False):
                labels, gains = _gains(own, hits, selection)
                if len(labels) not in drawn:
                    drawn[len(labels)] = resampled_counts(len(labels), seed)
                resampled = bootstrap_differences(gains, labels, drawn[len(labels)])
                identity = own.iloc[0][SETTING].to_dict()
                for metric, values in resampled.items():
                    interval = bootstrap_interval(values)
                    rows.append({**identity, "selection": selection, "metric": metric, **interval})
    return pd.DataFrame(rows)


def _gains(own: pd.DataFrame, hits: dict, selection: str) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (N,) and, over the seeds in common, mean difference of hits (N,)."""
    differences = []
    for run in own[own["seed"].isin(hits)].itertuples():
        ours, theirs = hits_on_test(run.config, selection), hits[run.seed]
        if not ours["label"].equals(theirs["label"]):
            raise ValueError(
                f"{run.run_id} and the reference of seed {run.seed} were tested on other images or "
                "labels; has the data set changed? Remove the older run's folder and train anew"
            )
        differences.append(ours["hit"].astype(float) - theirs["hit"].astype(float))
    return ours["label"].to_numpy(), np.mean(differences, axis=0)
