"""From finished runs to the long table of a study, and from that to tables for readers."""

import json
import os
from dataclasses import asdict

import numpy as np
import pandas as pd

from nlalib.metrics import SELECTION_RULES, selected_epoch
from nlalib.paths import resolve
from nlalib.report.studies import Study, training_command
from nlalib.training.config import RunConfig

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
# A study's tables beside its results, `<study>.csv`: <study>_epochs.csv, <study>_differences.csv.
SIDE_TABLES = ("epochs", "differences")
# Of a study with pre-training.
PRETRAINING_TABLE = "pretraining"
# Of a study with methods that learn from candidate label sets.
CANDIDATES_TABLE = "candidates"
# And those that `python -m nlalib robustness` writes, of the studies that want them.
OPTIONAL_TABLES = ("robustness", "calibration", "label_embeddings")


def read_table(path: str | os.PathLike) -> pd.DataFrame:
    """Read a study's table (results, epochs or differences); a relative path counts from the root.

    Empty `settings`, those of a plain run, are read as "" and not as a missing number.
    """
    table = pd.read_csv(resolve(path), dtype={"settings": "str"})
    if "settings" not in table:  # written before there was the column: plain runs all
        table.insert(table.columns.get_loc("method") + 1, "settings", "")
    return table.fillna({"settings": ""})


def identity_columns(config: RunConfig, study: str) -> dict:
    """Return what tells a run apart in long tables: `study`, `run_id`, `SETTING`, `seed`."""
    parameters = asdict(config)
    own = {"init": config.initialisation, "settings": config.settings}
    setting = {name: own.get(name, parameters.get(name)) for name in SETTING}
    return {"study": study, "run_id": config.run_id, **setting, "seed": config.seed}


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
    table = pd.DataFrame(rows, columns=["selection", "metric", "value"])
    return table.assign(**identity_columns(config, study))[COLUMNS]


def require_done(study: Study) -> None:
    """Raise FileNotFoundError if a run is missing or unfinished: no hole is averaged away.

    The message gives the command that makes the run.
    """
    for config in study.runs.values():
        if not config.is_done:
            raise FileNotFoundError(
                f"run {config.run_id} of study {study.name} is not done; make it with\n"
                f"  {training_command(config)}"
            )


def study_table(study: Study) -> pd.DataFrame:
    """Return the long table of a study: one row a number, all runs.

    Raises
    ------
    FileNotFoundError
        If a run is not done, see `require_done`.
    """
    require_done(study)
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
    chosen = chosen_rows(results, metric, selection)
    grouped = chosen.groupby(SETTING, sort=False, dropna=False)["value"]
    return grouped.agg(["mean", "std", "count"]).rename(columns={"count": "n"}).reset_index()


def chosen_rows(results: pd.DataFrame, metric: str, selection: str) -> pd.DataFrame:
    """Return the rows of one metric and selection rule: one for each setting and seed.

    Raises
    ------
    ValueError
        If there are none, or several runs of one setting share a seed.
    """
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
                    "setting": setting_in_words(one),
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


def setting_in_words(row: pd.Series) -> str:
    """Return noise, imbalance and other choices of a row, "" where there is nothing to say."""
    words = [f"noise {row['noise_rate']:.0%}"] if row["noise_rate"] else []
    words += [f"imbalance {row['imbalance_factor']:g}"] if row["imbalance_factor"] > 1 else []
    return ", ".join(words + ([row["settings"]] if row["settings"] else []))


def difference_in_words(row: pd.Series) -> str:
    """Return one comparison of `nlalib.report.differences` as a line, in points."""
    name = ", ".join(filter(None, [row["method"], setting_in_words(row)]))
    metric = row["metric"].replace("_", " ")
    return f"{name} - {row['reference']}, {metric}: {_in_points(row)}, n = {row['n']}"


def difference_table(differences: pd.DataFrame, method: str) -> pd.DataFrame:
    """Return how far `method` is from its reference at the last epoch, one row a setting, in words.

    Parameters
    ----------
    differences : pandas.DataFrame
        As `nlalib.report.differences.study_differences` returns, of one study.
    method : str
    """
    rows = differences[(differences["selection"] == "last") & (differences["method"] == method)]
    table = []
    for _, both in rows.groupby([*SETTING, "reference"], sort=False, dropna=False):
        setting, accuracies = both.iloc[0], both.set_index("metric")
        table.append(
            {
                "difference": f"{method} - {setting['reference']}",
                "data set": setting["dataset"],
                "setting": setting_in_words(setting),
                "network": setting["backbone"],
                "overall accuracy": _in_points(accuracies.loc["overall_accuracy"]),
                "mean accuracy": _in_points(accuracies.loc["mean_accuracy"]),
                "seeds": setting["n"],
            }
        )
    return pd.DataFrame(table)


def _in_points(row: pd.Series) -> str:
    """Return a difference with its intervals, over seeds (if several) and over test images."""
    words = [f"{100 * row['difference']:+.1f}"]
    for low, high in (("low", "high"), ("images_low", "images_high")):
        if not np.isnan(row[low]):
            words.append(f"[{100 * row[low]:+.1f}, {100 * row[high]:+.1f}]")
    return " ".join(words)


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
