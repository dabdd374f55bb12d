"""The published tables made again from the kept predictions, and compared: no data set, no GPU.

Metrics that need annotators' votes are made again where the data set is there, and named where not.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace

import numpy as np
import pandas as pd

from nlalib.metrics import SELECTION_RULES
from nlalib.paths import ROOT, display_path
from nlalib.report.collect import index_reader, run_rows, votes_of_test
from nlalib.report.differences import study_differences
from nlalib.report.frame import SETTING, headline, published_file, published_table
from nlalib.report.reading import difference_in_words
from nlalib.report.records import kept_runs, predictions_file
from nlalib.report.studies import Study, read_study
from nlalib.training.config import RunConfig

# What tells the numbers of a table apart; the other columns that are compared hold them.
KEYS = {
    "": ["run_id", "selection", "metric"],
    "_differences": [*SETTING, "reference", "selection", "metric"],
}
_SHOWN = 5  # of numbers that are not as published


class _KeptConfig(RunConfig):
    """A run as it is kept: what its folder holds, if there is one, is not looked at."""

    is_done = False


def recompute(configs: list[str]) -> None:
    """Print of each published table whether the kept predictions give its numbers.

    Parameters
    ----------
    configs : list of str
        The studies' files, whose tables are shown as well; all that have predictions if empty.

    Raises
    ------
    FileNotFoundError
        If a study is not published, or runs of it are not kept.
    ValueError
        If a number is not as published.
    """
    published = [name for name in _kept_studies() if published_file(f"{name}.csv").is_file()]
    told = []
    for config in configs or [str(ROOT / "configs" / f"{name}.yaml") for name in published]:
        study = published_part(read_study(config))
        tables = recomputed(study)
        if configs:
            _show(study, tables)
        metrics = set(tables[""]["metric"])
        told += [_tell(study, ending, found, metrics) for ending, found in tables.items()]
    table = pd.concat(told)
    lacking = table.loc[~table["is_recomputed"], "metric"].unique()
    _tell_of_the_rest(lacking, [] if configs else _tables_without_predictions())
    wrong = len(_wrong(table))
    if wrong:
        raise ValueError(f"numbers that are not as published: {wrong}")
    print("Every number recomputed is the published one, but for rounding.")


def _show(study: Study, tables: dict[str, pd.DataFrame]) -> None:
    print(f"\n{study.title}\n\n{headline(tables['']).to_string(index=False)}\n")
    print("Differences, in points: mean [over seeds] [over test images]\n")
    for _, row in tables["_differences"].iterrows():
        print(f"{SELECTION_RULES[row['selection']]}: {difference_in_words(row)}")
    print()


def published_part(study: Study) -> Study:
    """Return the study with its published runs alone, each as it is kept.

    Raises
    ------
    FileNotFoundError
        If the study has no published table, or a run of it is not kept, or not the study's now.
    """
    runs = published_table(study.name)["run_id"].unique()
    at_hand = kept_runs(study.name) & set(study.runs)
    missing = [run_id for run_id in runs if run_id not in at_hand]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(runs)} published runs of study {study.name}, such as "
            f"{missing[0]}, are not kept in {display_path(predictions_file(study.name))}, or no "
            "runs of the study's file now; their numbers take the training again: make study"
        )
    return replace(study, runs={r: _KeptConfig(**vars(study.runs[r])) for r in runs})


def recomputed(study: Study) -> dict[str, pd.DataFrame]:
    """Return the study's results and differences from its kept predictions, by ending (`KEYS`)."""
    index_of, rows = index_reader(), []
    for config in study.runs.values():
        there = config.data.set.is_made or config.data.root.is_dir()
        votes = votes_of_test(index_of(config.data), config.num_classes) if there else None
        rows.append(run_rows(config, study.name, votes))
    results = pd.concat(rows, ignore_index=True)
    parts = [study_differences(study, results, reference) for reference in study.references]
    return {"": results, "_differences": pd.concat(parts, ignore_index=True)}


def compared(
    published: pd.DataFrame, found: pd.DataFrame, key: list[str], metrics: Collection[str]
) -> pd.DataFrame:
    """Return the numbers of a published table beside those that were recomputed.

    Parameters
    ----------
    published, found : pandas.DataFrame
        Of the same columns; the first to six decimals, the second to all.
    key : list of str
        Columns that tell rows apart.
    metrics : collection of str
        Those that could be recomputed: a row of theirs that was not found is no equal one.

    Returns
    -------
    pandas.DataFrame
        A row a published number: `key`, `column`, `published`, `recomputed`; `is_recomputed`,
        whether its metric is among `metrics`; `is_equal`, whether both agree to six decimals. A sum
        or mean over epochs may differ in the last, as epochs' own numbers are kept to six decimals.
    """
    columns = [name for name in published if name not in {*key, *SETTING, "study", "seed"}]
    here, there = (
        table.melt(key, columns, var_name="column", value_name="number").astype({"number": float})
        for table in (published, found.round(6))
    )
    both = here.merge(there, "left", [*key, "column"], indicator=True, validate="one_to_one")
    both = both.rename(columns={"number_x": "published", "number_y": "recomputed"})
    both["is_recomputed"] = both["metric"].isin(metrics)
    slack = np.full(len(both), 1e-9)
    slack[both["selection"] == "last_five"] = 1.1e-6  # a mean of numbers, each half a millionth off
    slack[both["metric"] == "training_seconds"] = 5e-5  # a sum of at most a hundred
    is_near = (both["published"] - both["recomputed"]).abs() <= slack
    is_blank = both[["published", "recomputed"]].isna().all(axis=1)
    both["is_equal"] = (both.pop("_merge") == "both") & (is_near | is_blank)
    return both


def _wrong(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["is_recomputed"] & ~table["is_equal"]]


def _tell(study: Study, ending: str, found: pd.DataFrame, metrics: Collection[str]) -> pd.DataFrame:
    """Print how a table compares with the published one; return both, see `compared`."""
    table = compared(published_table(study.name, ending), found, KEYS[ending], metrics)
    again, wrong = table["is_recomputed"].sum(), _wrong(table)
    verdict = f"{len(wrong):,} NOT as published" if len(wrong) else "all as published"
    print(
        f"{display_path(published_file(f'{study.name}{ending}.csv'))}, {len(study.runs)} runs: "
        f"{again:,} of {len(table):,} numbers recomputed, {verdict}",
        flush=True,
    )
    for row in wrong.head(_SHOWN).to_dict("records"):
        which = ", ".join(
            str(row[name]) for name in [*KEYS[ending], "column"] if row[name] not in ("", "value")
        )
        print(f"    {which}: published {row['published']}, recomputed {row['recomputed']}")
    if len(wrong) > _SHOWN:
        print(f"    and {len(wrong) - _SHOWN} more")
    return table


def _tables_without_predictions() -> list[str]:
    made = {f"{name}{ending}" for name in _kept_studies() for ending in KEYS} | {"claims"}
    files = {path.stem for path in published_file("").glob("*.csv")}
    return sorted(name for name in files - made if not name.endswith("_epochs"))


def _tell_of_the_rest(metrics: Iterable[str], tables: Iterable[str]) -> None:
    """Print which numbers the predictions do not give."""
    told = {
        "From the course of training, as the tables *_epochs record it": [
            *("last_five", "best_test", "selected_epoch", "training_seconds")
        ],
        "Not recomputed, for want of the data set's votes (data/README.md)": [*metrics],
        "Not recomputed, as no predictions for them are kept": [*tables],
        "Made of these tables by `make readme`": ["claims", "the tables of README"],
    }
    lines = [f"{words}: {', '.join(names)}" for words, names in told.items() if names]
    print("\n" + "\n".join(lines))


def _kept_studies() -> list[str]:
    return sorted(path.stem for path in predictions_file("").parent.glob("*.parquet"))
