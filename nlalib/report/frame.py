"""A study's long tables, read back, and made into tables for readers; knows nothing of runs."""

import os
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from nlalib.data.label_sources import RULE
from nlalib.metrics import SELECTION_RULES
from nlalib.paths import ROOT, display_path, resolve

# What tells settings apart in a study's table; `seed` is what varies within one.
SETTING = [
    "dataset",
    "method",
    "settings",
    "backbone",
    "init",
    "precision",
    "epochs",
    "label_source",
    "noise_rate",
    "imbalance_factor",
]
IDENTITY = ["study", "run_id", *SETTING, "seed"]
RESULT_COLUMNS = [*IDENTITY, "selection", "metric", "value"]


def read_table(path: str | os.PathLike) -> pd.DataFrame:
    """Read a study's table (results, epochs or differences); a relative path counts from the root.

    Empty `settings`, those of a plain run, are read as "" and not as a missing number. In older
    tables `precision` stood among them, and the labels were the rule's. Numbers over epochs, of
    which the file has a row an epoch (`a_row_an_epoch`), come as the others do, one a row.
    """
    table = pd.read_csv(resolve(path), dtype={"settings": "str"}).fillna({"settings": ""})
    if "precision" not in table and "init" in table:
        among = r"(?:^|, )precision=(\w+)"
        precision = table["settings"].str.extract(among, expand=False).fillna("fp32")
        table.insert(table.columns.get_loc("init") + 1, "precision", precision)
        table["settings"] = table["settings"].str.replace(among, "", regex=True).str.lstrip(", ")
    if "label_source" not in table and "noise_rate" in table:
        table.insert(table.columns.get_loc("noise_rate"), "label_source", RULE)
    if "epoch" in table and "metric" not in table:
        numbers = table.set_index([name for name in (*IDENTITY, "epoch") if name in table])
        numbers.columns.name = "metric"
        table = numbers.stack().dropna().rename("value").reset_index()
    return table


def a_row_an_epoch(numbers: pd.DataFrame) -> pd.DataFrame:
    """Return numbers over epochs in the form of their files, a column a metric; empty if unknown.

    What identifies a run would take most of a file with a row a number.

    Parameters
    ----------
    numbers : pandas.DataFrame
        Columns `IDENTITY`, `epoch`, `metric`, `value`.
    """
    known = [name for name in numbers if name not in ("metric", "value")]
    by_metric = numbers.set_index([*known, "metric"])["value"].unstack(sort=False)
    return by_metric.rename_axis(columns=None).reset_index()


def stacked(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Return tables below each other, as if those without rows were not there.

    Such a one has columns without a type, which would be all tables'.
    """
    tables = list(tables)
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def published_file(name: str) -> Path:
    """Return the path of a published file, as "face.csv" or "predictions/face.parquet"."""
    return ROOT / "results" / name


def published_table(study: str, ending: str = "") -> pd.DataFrame:
    """Read a table of a published study from results/; `ending` as "_epochs".

    Raises
    ------
    FileNotFoundError
        If it is not there.
    """
    path = published_file(f"{study}{ending}.csv")
    if not path.is_file():
        raise FileNotFoundError(f"no {display_path(path)}; publish the finished study first")
    return read_once(path, read_table).copy()


def read_once(path: Path, read: Callable[[Path], pd.DataFrame]) -> pd.DataFrame:
    """Return what `read` makes of a file, which is read again only if it has changed."""
    return _read(path, read, path.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _read(path: Path, read: Callable[[Path], pd.DataFrame], changed: int) -> pd.DataFrame:
    return read(path)


def summary(results: pd.DataFrame, metric: str, selection: str) -> pd.DataFrame:
    """Return mean, standard deviation over seeds (n - 1) and n for each setting.

    Parameters
    ----------
    results : pandas.DataFrame
        Long form, columns `RESULT_COLUMNS`.
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
    chosen = results[(results["metric"] == metric) & (results["selection"] == selection)]
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


def chosen_by_its_own(epochs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return each run's test `metric` at the epoch of its highest held-out `metric`.

    "best_validation" of the results chooses by overall accuracy, whatever metric is looked at.

    Parameters
    ----------
    epochs : pandas.DataFrame
        Long form, columns `IDENTITY`, `epoch`, `metric`, `value`.
    metric : str
        As `mean_accuracy`.

    Returns
    -------
    pandas.DataFrame
        A row a run that recorded both: the columns of `epochs`, and `selection`
        "best_validation"; the first of equal epochs.
    """
    held_out = epochs[epochs["metric"] == f"validation_{metric}"].sort_values("epoch")
    best = held_out.loc[held_out.groupby("run_id")["value"].idxmax(), ["run_id", "epoch"]]
    tested = epochs[epochs["metric"] == f"test_{metric}"].merge(best)
    return tested.assign(metric=metric, selection="best_validation")


def headline(results: pd.DataFrame) -> pd.DataFrame:
    """Return the study's table for readers: accuracies in percent, mean ± spread, per rule.

    One row a setting and selection rule; columns in words.
    """
    rows = []
    # Tables from before there was the mean of the last five epochs have no rows of it.
    for selection in [rule for rule in SELECTION_RULES if rule in set(results["selection"])]:
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
                    "epoch chosen": SELECTION_RULES[selection],
                    "overall accuracy %": percent(one["mean"], one["std"]),
                    "mean accuracy %": percent(other["mean"], other["std"]),
                    "seeds": one["n"],
                }
            )
    return pd.DataFrame(rows)


def setting_in_words(row: pd.Series) -> str:
    """Return labels, noise, imbalance and other choices of a row; "" where all are plain."""
    words = [f"labels of {row['label_source']}"] if row["label_source"] != RULE else []
    words += [f"noise {row['noise_rate']:.0%}"] if row["noise_rate"] else []
    words += [f"imbalance {row['imbalance_factor']:g}"] if row["imbalance_factor"] > 1 else []
    words += [row["settings"]] if row["settings"] else []
    words += [f"precision={row['precision']}"] if row["precision"] != "fp32" else []
    return ", ".join(words)


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
