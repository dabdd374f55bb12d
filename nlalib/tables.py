"""From finished runs to the long table of a study, and from that to tables for readers."""

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
from scipy import stats

from nlalib.evaluation import SELECTION_RULES, selected_epoch
from nlalib.runs import RunConfig
from nlalib.studies import Study, training_command

# What tells settings apart in a study's table; `seed` is what varies within one.
SETTING = [
    "dataset",
    "method",
    "settings",
    "backbone",
    "init",
    "epochs",
    "noise_rate",
    "imbalance_factor",
]
COLUMNS = ["study", "run_id", *SETTING, "seed", "selection", "metric", "value"]


def run_rows(config: RunConfig, study: str) -> pd.DataFrame:
    """Return a finished run's results, one row a number (columns `COLUMNS`).

    "last" and "best_validation" pick one epoch, `selected_epoch` (counted from 0), and give all
    test metrics of it. "best_test" gives overall and mean accuracy alone, each of its own best
    test epoch, as the released code of NLA does.
    """
    metrics = pd.read_csv(config.folder / "metrics.csv")
    names = [c.removeprefix("test_") for c in metrics if c.startswith("test_")]
    rows = []
    for selection in ("last", "best_validation"):
        epoch = selected_epoch(metrics, selection)
        rows += [(selection, name, metrics[f"test_{name}"].iloc[epoch]) for name in names]
        rows.append((selection, "selected_epoch", epoch))
    for name in ("overall_accuracy", "mean_accuracy"):
        rows.append(("best_test", name, metrics[f"test_{name}"].max()))
    seconds = json.loads((config.folder / "done").read_text())["seconds"]
    rows.append(("last", "training_seconds", seconds))
    identity = {
        "study": study,
        "run_id": config.run_id,
        **{name: asdict(config)[name] for name in ("dataset", "method", "backbone", "epochs")},
        "init": config.initialisation,
        "seed": config.seed,
        "noise_rate": config.noise_rate,
        "imbalance_factor": config.imbalance_factor,
        "settings": config.settings,
    }
    table = pd.DataFrame(rows, columns=["selection", "metric", "value"])
    return table.assign(**identity)[COLUMNS]


def study_table(study: Study) -> pd.DataFrame:
    """Return the long table of a study: one row a number, all runs.

    Raises
    ------
    FileNotFoundError
        If a run is missing or unfinished: no hole is averaged away. The message gives the
        command that makes it.
    """
    for config in study.runs.values():
        if not config.is_done:
            raise FileNotFoundError(
                f"run {config.run_id} of study {study.name} is not done; make it with\n"
                f"  {training_command(config)}"
            )
    tables = [run_rows(config, study.name) for config in study.runs.values()]
    return pd.concat(tables, ignore_index=True)


def summary(results: pd.DataFrame, metric: str, selection: str) -> pd.DataFrame:
    """Return mean, standard deviation over seeds (n - 1) and n for each setting.

    Parameters
    ----------
    results : pandas.DataFrame
        Long form, columns `COLUMNS`.
    metric, selection : str

    Returns
    -------
    pandas.DataFrame
        Columns `SETTING`, `mean`, `std` (NaN for one seed), `n`.

    Raises
    ------
    ValueError
        If there are no such rows, or several runs of one setting share a seed.
    """
    chosen = _chosen(results, metric, selection)
    grouped = chosen.groupby(SETTING, sort=False, dropna=False)["value"]
    return grouped.agg(["mean", "std", "count"]).rename(columns={"count": "n"}).reset_index()


def _chosen(results: pd.DataFrame, metric: str, selection: str) -> pd.DataFrame:
    """Return the rows of one metric and selection rule: one for each setting and seed."""
    chosen = results.query("metric == @metric and selection == @selection")
    if chosen.empty:
        raise ValueError(
            f"no rows for metric {metric!r} with selection {selection!r}; there are metrics "
            f"{sorted(results['metric'].unique())} and selections "
            f"{sorted(results['selection'].unique())}"
        )
    repeated = chosen[chosen.duplicated([*SETTING, "seed"], keep=False)]
    if len(repeated):
        raise ValueError(
            f"{', '.join(repeated['run_id'].iloc[:2])} have one setting and seed: they differ in "
            f"something that is not among {', '.join(SETTING)}; tabulate them apart"
        )
    return chosen


def paired_difference(
    results: pd.DataFrame,
    method: str,
    baseline: str,
    metric: str,
    selection: str,
    confidence: float = 0.95,
) -> dict:
    """Return the mean difference of two methods over the seeds that both have, with its interval.

    Student's t interval of the paired differences. It speaks of seeds, not of other test images
    or data sets, and with two or three seeds it is wide.

    Returns
    -------
    dict
        `difference`, `low`, `high` (fractions; NaN bounds for one pair), `n`.

    Raises
    ------
    ValueError
        If a method has no results, the two have no seed in common, or the results hold more
        than one setting a method.
    """
    chosen = _chosen(results, metric, selection)
    other = [name for name in SETTING if name != "method" and chosen[name].nunique() > 1]
    if other:
        raise ValueError(f"the results differ in {', '.join(other)} too; give those of one setting")
    wide = chosen.pivot(index="seed", columns="method", values="value")
    for name in (method, baseline):
        if name not in wide:
            raise ValueError(f"no results of method {name!r}; there are {list(wide.columns)}")
    differences = (wide[method] - wide[baseline]).dropna().to_numpy()
    n = len(differences)
    if n == 0:
        raise ValueError(f"{method!r} and {baseline!r} have no seed in common")
    mean = float(differences.mean())
    if n == 1:
        return {"difference": mean, "low": np.nan, "high": np.nan, "n": 1}
    error = differences.std(ddof=1) / np.sqrt(n)
    reach = stats.t.ppf((1 + confidence) / 2, n - 1) * error
    return {"difference": mean, "low": mean - reach, "high": mean + reach, "n": n}


def headline(results: pd.DataFrame) -> pd.DataFrame:
    """Return the study's table for readers: accuracies in percent, mean ± spread, per rule.

    One row a setting and selection rule; columns in words.
    """
    rules = {"last": "last", "best_validation": "best on validation", "best_test": "best on test"}
    rows = []
    for selection in SELECTION_RULES:
        overall = summary(results, "overall_accuracy", selection)
        mean = summary(results, "mean_accuracy", selection)
        for (_, one), (_, other) in zip(overall.iterrows(), mean.iterrows(), strict=True):
            rows.append(
                {
                    "data set": one["dataset"],
                    "method": one["method"],
                    "network": one["backbone"],
                    "init": one["init"],
                    "epochs": one["epochs"],
                    "epoch chosen": rules[selection],
                    "overall accuracy %": percent(one["mean"], one["std"]),
                    "mean accuracy %": percent(other["mean"], other["std"]),
                    "seeds": one["n"],
                }
            )
    return pd.DataFrame(rows)


def percent(mean: float, deviation: float) -> str:
    """Return "71.2 ± 0.4", in percent; without the spread where there is one seed."""
    if np.isnan(deviation):
        return f"{100 * mean:.1f}"
    return f"{100 * mean:.1f} ± {100 * deviation:.1f}"


def markdown(table: pd.DataFrame) -> str:
    """Return a table as GitHub Markdown."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in table.itertuples(index=False)]
    header = "| " + " | ".join(table.columns) + " |"
    rule = "|" + " --- |" * len(table.columns)
    return "\n".join([header, rule, *lines])
