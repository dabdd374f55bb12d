"""`python -m nlalib`: what the Makefile and the workflow do with tables.

check CONFIG     read the data sets of the runs that are still to do; an error says what is amiss
collect CONFIG   write the study's long tables from its finished runs: results, facts over epochs,
                 differences between methods; where it has them, what its pre-training found, and
                 statistics of its candidate label sets
show CONFIG      print the study's table and differences, and say where its files are
publish CONFIG   copy the study's tables and figures to results/ and figures/, to be committed
robustness CONFIG
                 write how finished runs stand up to corrupted test images, their calibration, and
                 the similarity of their classes; publish copies these tables too
scores RUN_ID    write what a finished run makes of its training images, for candidate sets
leakage CONFIG   write how much finished runs owe to test images that they trained on
audit DATASET    compare an unpacked set with what is published (audit --help says more)
readme           write the tables of README.md, from those of results/
align DATASET    align all faces of a set into a folder (`align --help`)
"""

import argparse
import shutil
import sys
from pathlib import Path

import pandas as pd

from nlalib.data.splits import load_dataset
from nlalib.files import write_atomically
from nlalib.paths import ROOT, display_path
from nlalib.prepare import audit
from nlalib.report.candidate_tables import learns_from_candidates, study_candidates
from nlalib.report.differences import study_differences
from nlalib.report.frame import (
    CANDIDATES_TABLE,
    OPTIONAL_TABLES,
    PRETRAINING_TABLE,
    SIDE_TABLES,
    difference_in_words,
    difference_table,
    headline,
    markdown,
    read_table,
    study_table,
)
from nlalib.report.leakage import leakage
from nlalib.report.per_sample import study_epoch_facts
from nlalib.report.studies import Study, read_study

# Whose tables the README shows; those of the grids are long, and read in their notebooks.
README_STUDIES = ("embedded", "ferplus_small")
# And those from which it shows how far NLA is from its reference.
COMPARED_STUDIES = (*README_STUDIES, "noise", "imbalance", "noise_networks")


def check(config: str) -> None:
    """Read each data set that unfinished runs need: a wrong folder shows before any work."""
    unfinished = [run for run in read_study(config).runs.values() if not run.is_done]
    # Rendered faces are made and not read. Runs of a grid mostly share one data set.
    of_files = [run for run in unfinished if not run.data.set.is_made]
    for run in {run.data: run for run in of_files}.values():
        index, dropped = load_dataset(run.data)
        counts = ", ".join(f"{n:,} {part}" for part, n in index["part"].value_counts().items())
        print(f"{run.dataset}: {counts}; {dropped['images'].sum():,} images dropped")


def collect(config: str) -> None:
    """Write the study's long tables, their numbers to six decimals."""
    study = read_study(config)
    tables = {
        "results": study_table(study),
        "epochs": study_epoch_facts(study),
        "differences": pd.concat(
            [study_differences(study, reference) for reference in study.references]
        ),
    }
    if study.pretraining:
        from nlalib.training.pretrain_config import pretraining_table  # takes seconds to import

        tables[PRETRAINING_TABLE] = pretraining_table(study.pretraining)
    if CANDIDATES_TABLE in _side_tables(study):
        tables[CANDIDATES_TABLE] = study_candidates(study)
    _write_tables(study, tables)


def _side_tables(study: Study) -> list[str]:
    """Return the names of the tables that `collect` writes beside the study's results."""
    names = [*SIDE_TABLES]
    names += [PRETRAINING_TABLE] if study.pretraining else []
    uses_candidates = any(map(learns_from_candidates, study.runs.values()))
    return names + ([CANDIDATES_TABLE] if uses_candidates else [])


def robustness(config: str) -> None:
    """Write the study's optional tables; a run whose rows are there already is not run again."""
    from nlalib.report.robustness import study_tables  # scikit-image: no other command needs it.

    study = read_study(config)
    _write_tables(study, study_tables(study, report=lambda line: print(line, flush=True)))
    print(
        f"wrote {', '.join(f'{name}.csv' for name in OPTIONAL_TABLES)} in "
        f"{display_path(study.folder)}"
    )


def _write_tables(study: Study, tables: dict[str, pd.DataFrame]) -> None:
    for name, table in tables.items():
        write_atomically(
            study.folder / f"{name}.csv",
            lambda unfinished, table=table: table.round(6).to_csv(unfinished, index=False),
        )


def _collected(study: Study, name: str = "results") -> Path:
    """Return the path of one of the study's long tables; FileNotFoundError if there is none yet."""
    path = study.folder / f"{name}.csv"
    if not path.is_file():
        raise FileNotFoundError(
            f"no {display_path(path)}; run the study {study.name} to its end (make study)"
        )
    return path


def show(config: str) -> None:
    """Print the study's table and where its files are."""
    study = read_study(config)
    table = _collected(study)
    print(f"\n{study.title}\n")
    print(headline(read_table(table)).to_string(index=False))
    differences = read_table(_collected(study, "differences")).query("selection == 'last'")
    if len(differences):
        print("\nDifferences at the last epoch, in points: mean [over seeds] [over test images]\n")
        print("\n".join(difference_in_words(row) for _, row in differences.iterrows()))
    where = {
        "table": table,
        "figures": study.folder / "figures",
        "notebooks": study.folder / "notebooks",
    }
    print("\n" + "\n".join(f"{name:10}{display_path(path)}" for name, path in where.items()))
    published = ROOT / "results" / f"{study.name}.csv"
    if published.exists():
        print(f"{'published':10}{display_path(published)} (compare it with yours)")


def publish(config: str) -> None:
    """Copy the study's tables and figures to the committed folders.

    Not the figures of 06: the committed ones show all published studies, and are drawn from
    their tables by `make notebooks`.
    """
    study = read_study(config)
    tables = {study.name: _collected(study)}
    tables |= {f"{study.name}_{name}": _collected(study, name) for name in _side_tables(study)}
    for name in OPTIONAL_TABLES:
        if (study.folder / f"{name}.csv").is_file():
            tables[f"{study.name}_{name}"] = _collected(study, name)
            _check_same_runs(study, name, config)
        elif (ROOT / "results" / f"{study.name}_{name}.csv").is_file():
            raise FileNotFoundError(
                f"{study.name}_{name}.csv is published, and would stay of other runs than the "
                f"rest: run `python -m nlalib robustness {config}` first"
            )
    for folder in ("results", "figures"):
        (ROOT / folder).mkdir(exist_ok=True)
    for name, table in tables.items():
        shutil.copy(table, ROOT / "results" / f"{name}.csv")
    for figure in sorted((study.folder / "figures").glob("*")):
        if not figure.name.startswith("06_"):
            shutil.copy(figure, ROOT / "figures" / figure.name)
    print(f"wrote {', '.join(f'results/{name}.csv' for name in tables)}")


def _check_same_runs(study: Study, name: str, config: str) -> None:
    """Raise ValueError if an optional table is older than the study's runs."""
    runs = set(read_table(_collected(study, name))["run_id"])
    if runs != set(read_table(_collected(study))["run_id"]):
        raise ValueError(
            f"{display_path(study.folder / name)}.csv has other runs than results.csv beside it; "
            f"run `python -m nlalib robustness {config}` again"
        )


def headline_section() -> str:
    """Return the headline table of `README_STUDIES`, as Markdown."""
    tables = _published(README_STUDIES, "table")
    parts = [markdown(headline(table).assign(study=name)) for name, table in tables.items()]
    return "\n\n".join(parts)


def differences_section() -> str:
    """Return NLA's differences to its reference in `COMPARED_STUDIES`, as Markdown."""
    tables = _published(COMPARED_STUDIES, "differences", "_differences")
    parts = [difference_table(table, "nla").assign(study=name) for name, table in tables.items()]
    return markdown(pd.concat(parts))


def _published(studies: tuple[str, ...], what: str, ending: str = "") -> dict[str, pd.DataFrame]:
    """Return the published tables of studies, by name; FileNotFoundError if there is none."""
    paths = {name: ROOT / "results" / f"{name}{ending}.csv" for name in studies}
    tables = {name: read_table(path) for name, path in paths.items() if path.is_file()}
    if not tables:
        raise FileNotFoundError(f"no {what} in results/; publish a finished study first")
    return tables


README_SECTIONS = {"headline table": headline_section, "differences": differences_section}


def readme_marks(section: str) -> tuple[str, str]:
    """Return what stands before and behind a section of README.md."""
    return f"<!-- {section}: made by `make readme` -->", f"<!-- end of {section} -->"


def readme() -> None:
    """Write `README_SECTIONS` into README.md, each between its two marks."""
    path = ROOT / "README.md"
    text = path.read_text()
    for name, section in README_SECTIONS.items():
        first, last = readme_marks(name)
        before, begin, rest = text.partition(first)
        _, end, after = rest.partition(last)
        if not begin or not end or text.count(first) + text.count(last) > 2:
            raise ValueError(f"README.md must hold once, in this order, {first} and {last}")
        text = f"{before}{first}\n\n{section()}\n\n{last}{after}"
    path.write_text(text)


def scores(run_id: str) -> None:
    """Write the scores from which the candidate rule "model" makes its sets."""
    from nlalib.training.scores import write_scores  # what trains takes seconds to import

    print(f"wrote {display_path(write_scores(run_id))}")


COMMANDS = {
    "check": check,
    "collect": collect,
    "show": show,
    "publish": publish,
    "robustness": robustness,
    "leakage": leakage,
    "scores": scores,
}


def main() -> int:
    """Run the command line; return its exit status."""
    if sys.argv[1:2] == ["audit"]:
        return audit.main(sys.argv[2:])
    if sys.argv[1:2] == ["align"]:
        from nlalib.prepare import (
            align_faces as aligned_sets,  # OpenCV and scikit-image: no other command needs them.
        )

        return aligned_sets.main(sys.argv[2:])
    parser = argparse.ArgumentParser(
        prog="python -m nlalib",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=(*COMMANDS, "readme"))
    parser.add_argument("config", metavar="CONFIG", nargs="?", default="configs/embedded.yaml")
    arguments = parser.parse_args()
    try:
        if arguments.command == "readme":
            readme()
        else:
            COMMANDS[arguments.command](arguments.config)
    except (OSError, ValueError, TypeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
