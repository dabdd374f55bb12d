"""A study's tables as files: collected in its folder, shown, copied to results/."""

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd

from nlalib.files import write_csv
from nlalib.paths import ROOT, display_path
from nlalib.report.candidate_tables import learns_from_candidates, study_candidates
from nlalib.report.collect import (
    finished_part,
    require_one_machine,
    require_same_data,
    runs_at_hand,
    some_runs_at_hand,
    study_epochs,
    study_table,
)
from nlalib.report.differences import study_differences
from nlalib.report.epoch_numbers import records_file
from nlalib.report.frame import a_row_an_epoch, headline, published_file, read_table, stacked
from nlalib.report.gate import gate_of
from nlalib.report.reading import differences_in_words
from nlalib.report.records import (
    kept_epochs_file,
    predictions_file,
    predictions_of,
    write_prediction_table,
)
from nlalib.report.studies import Study, read_study

# What `collect` writes of every study, and of some.
TABLES = ("results", "epochs", "differences")
SOME_TABLES = ("pretraining", "candidates")
# And those that `python -m nlalib robustness` writes, of the studies that want them.
OPTIONAL_TABLES = ("robustness", "calibration", "label_embeddings")
PREDICTIONS = "predictions.parquet"


def collect(config: str, so_far: bool = False) -> None:
    """Write a study's long tables, their numbers to six decimals, and what its runs predict.

    Parameters
    ----------
    config : str
        The study's file.
    so_far : bool
        Of an unfinished study the finished runs alone.
    """
    study = read_study(config)
    if so_far:
        study = _told_part(study)
    require_same_data(study)
    require_one_machine(study)
    _tell_of_records(study)
    results = study_table(study)
    differences = [study_differences(study, results, reference) for reference in study.references]
    tables = {
        "results": results,
        "epochs": study_epochs(study),
        "differences": stacked(differences),
    }
    if study.pretraining:
        from nlalib.training.pretrain_config import pretraining_table  # takes seconds to import

        tables["pretraining"] = pretraining_table(study.pretraining)
    if any(map(learns_from_candidates, study.runs.values())):
        tables["candidates"] = study_candidates(study)
    write_tables(study, tables)
    predictions = predictions_of(study.runs.values(), study.name)
    write_prediction_table(predictions, study.folder / PREDICTIONS)


def keep(config: str) -> None:
    """Keep in results/ what finished runs of an unfinished study tell, before their folders go.

    Their predictions and numbers over epochs, in results/predictions/: `collect` then needs no
    folder of theirs. What is published of the study stays as it is.
    """
    study = read_study(config)
    require_one_machine(study)
    runs = some_runs_at_hand(study)
    part = replace(study, runs=runs)
    # Both are read before either is written, as they may be made of what was kept before.
    predictions, epochs = predictions_of(runs.values(), study.name), study_epochs(part)
    write_prediction_table(predictions, predictions_file(study.name))
    write_csv(kept_epochs_file(study.name), a_row_an_epoch(epochs).round(6))
    print(f"{study.name}: kept {len(runs)} of {len(study.runs)} runs")


def _told_part(study: Study) -> Study:
    part = finished_part(study)
    waiting = len(runs_at_hand(study)) - len(part.runs)
    print(
        f"{study.name}: {len(part.runs)} of {len(study.runs)} runs; {waiting} more are done, but "
        "not their reference"
    )
    return part


def _tell_of_records(study: Study) -> None:
    """Say of how many runs there will be no numbers over epochs but the course of metrics."""
    without = [c for c in study.runs.values() if c.is_done and not records_file(c).is_file()]
    if without:
        name = records_file(without[0]).name
        print(
            f"{study.name}: {len(without)} finished runs have no {name}: their tables lack the "
            "numbers of single training images over epochs"
        )


def write_tables(study: Study, tables: dict[str, pd.DataFrame]) -> None:
    """Write tables to the study's folder, numbers to six decimals."""
    for name, numbers in tables.items():
        table = a_row_an_epoch(numbers) if name == "epochs" else numbers
        write_csv(study.folder / f"{name}.csv", table.round(6))


def robustness(config: str) -> None:
    """Write the study's optional tables; a run whose rows are there already is not run again."""
    from nlalib.report.robustness import study_tables  # scikit-image: no other command needs it.

    study = read_study(config)
    require_one_machine(study)
    write_tables(study, study_tables(study))
    print(
        f"wrote {', '.join(f'{name}.csv' for name in OPTIONAL_TABLES)} in "
        f"{display_path(study.folder)}"
    )


def collected(study: Study, name: str = "results.csv") -> Path:
    """Return the path of one of the study's files; FileNotFoundError if there is none yet."""
    path = study.folder / name
    if not path.is_file():
        raise FileNotFoundError(
            f"no {display_path(path)}; run the study {study.name} to its end (make study)"
        )
    return path


def collected_tables(study: Study) -> list[pd.DataFrame]:
    """Return what `collect` wrote of each of `TABLES`; FileNotFoundError if there is none yet."""
    return [read_table(collected(study, f"{name}.csv")) for name in TABLES]


def show(config: str) -> None:
    """Print the study's gate, its table, its differences and where its files are."""
    study = read_study(config)
    results, epochs, differences = collected_tables(study)
    print(f"\n{study.title}\n")
    print(headline(results).to_string(index=False))
    print(f"\ngate {gate_of(study, results, epochs)}")
    if words := differences_in_words(differences):
        print("\nDifferences at the last epoch, in points: mean [over seeds] [over test images]\n")
        print("\n".join(words))
    where = {"table": "results.csv", "figures": "figures", "notebooks": "notebooks"}
    print()
    for name, path in where.items():
        print(f"{name:10}{display_path(study.folder / path)}")
    published = _published_file(study, "results")
    if published.exists():
        print(f"{'published':10}{display_path(published)} (compare it with yours)")


def publish(config: str) -> None:
    """Copy the study's tables, predictions and figures to the committed folders.

    Not the figures of 06: the committed ones show all published studies, and are drawn from
    their tables by `make notebooks`. Of a study collected so far, runs without a reference are kept
    beside (`keep`), and are no result.

    Raises
    ------
    FileNotFoundError
        If a table is missing.
    ValueError
        If a table has other runs than the others, or all lack runs that are published.
    """
    study = read_study(config)
    files = {name: collected(study, f"{name}.csv") for name in TABLES}
    runs = set(read_table(files["results"])["run_id"])
    for name in (*SOME_TABLES, *OPTIONAL_TABLES):
        path, is_optional = study.folder / f"{name}.csv", name in OPTIONAL_TABLES
        if path.is_file():
            files[name] = path
            if is_optional:
                _require_runs(path, runs, f"robustness {config}")
        elif (published := _published_file(study, name)).is_file():
            raise FileNotFoundError(
                f"{published.name} is published, and would stay of other runs than the rest: run "
                f"`python -m nlalib {'robustness' if is_optional else 'collect'} {config}` first"
            )
    predictions = collected(study, PREDICTIONS)
    for path in (files["epochs"], predictions):
        _require_runs(path, runs, f"collect {config} [--so-far]")
    _require_no_loss(study, files["results"], runs)
    for folder in ("results/predictions", "figures"):
        (ROOT / folder).mkdir(parents=True, exist_ok=True)
    if runs in (set(study.runs), set(runs_at_hand(study))):
        shutil.copy(predictions, predictions_file(study.name))
        kept_epochs_file(study.name).unlink(missing_ok=True)
    else:  # before the tables are copied, of which it may be made
        keep(config)
    written = [shutil.copy(file, _published_file(study, name)) for name, file in files.items()]
    for figure in sorted((study.folder / "figures").glob("*")):
        if not figure.name.startswith("06_"):
            shutil.copy(figure, ROOT / "figures" / figure.name)
    print(f"wrote {', '.join(map(display_path, [*written, predictions_file(study.name)]))}")


def _require_runs(path: Path, runs: set[str], command: str) -> None:
    """Raise ValueError if a table is not of these runs; `command` of nlalib makes it."""
    is_csv = path.suffix == ".csv"
    table = read_table(path) if is_csv else pd.read_parquet(path, columns=["run_id"])
    if set(table["run_id"]) != runs:
        raise ValueError(
            f"{display_path(path)} has other runs than results.csv beside it, as a command that "
            f"broke off leaves it; run `python -m nlalib {command}` again"
        )


def _require_no_loss(study: Study, results: Path, runs: set[str]) -> None:
    """Raise ValueError if there are published runs that these are not."""
    published = _published_file(study, "results")
    lost = set(read_table(published)["run_id"]) - runs if published.is_file() else set()
    if lost:
        raise ValueError(
            f"{display_path(results)} lacks {len(lost)} runs that are published in "
            f"{display_path(published)}, such as {min(lost)}; collect them too, or remove that "
            "file first"
        )


def _published_file(study: Study, name: str) -> Path:
    """Return where one of the study's tables stands among the published ones."""
    ending = "" if name == "results" else f"_{name}"
    return published_file(f"{study.name}{ending}.csv")
