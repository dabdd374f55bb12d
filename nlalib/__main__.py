"""`python -m nlalib`: what the Makefile and the workflow do with tables.

check CONFIG     read the data sets of the runs that are still to do; an error says what is amiss
collect CONFIG   write the study's long table from its finished runs
show CONFIG      print the study's table and say where its figures and notebooks are
publish CONFIG   copy the study's table and figures to results/ and figures/, to be committed
readme           write the headline table of results/ into README.md
"""

import argparse
import shutil
import sys
from pathlib import Path

import pandas as pd

from nlalib.datasets import dataset_parameters, load_dataset
from nlalib.paths import ROOT, display_path
from nlalib.runs import write_atomically
from nlalib.studies import Study, read_study
from nlalib.tables import headline, markdown, study_table

_BEGIN, _END = "<!-- headline table: made by `make readme` -->", "<!-- end of headline table -->"


def check(config: str) -> None:
    """Read each data set that unfinished runs need: a wrong folder shows before any work."""
    unfinished = [run for run in read_study(config).runs.values() if not run.is_done]
    # Rendered faces are made and not read. Runs of a grid mostly share one data set.
    of_files = [run for run in unfinished if run.dataset != "rendered"]
    for run in {dataset_parameters(run): run for run in of_files}.values():
        index, dropped = load_dataset(run)
        counts = ", ".join(f"{n:,} {part}" for part, n in index["part"].value_counts().items())
        print(f"{run.dataset}: {counts}; {dropped['images'].sum():,} images dropped")


def collect(config: str) -> None:
    """Write the study's long table."""
    study = read_study(config)
    table = study_table(study)
    path = study.folder / "results.csv"
    write_atomically(path, lambda unfinished: table.to_csv(unfinished, index=False))


def _collected(study: Study) -> Path:
    """Return the path of the study's long table; FileNotFoundError if there is none yet."""
    path = study.folder / "results.csv"
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
    print(headline(pd.read_csv(table)).to_string(index=False))
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
    """Copy the study's table and figures to the committed folders.

    Not the figures of 06: the committed ones show all published studies, and are drawn from
    their tables by `make notebooks`.
    """
    study = read_study(config)
    for folder in ("results", "figures"):
        (ROOT / folder).mkdir(exist_ok=True)
    shutil.copy(_collected(study), ROOT / "results" / f"{study.name}.csv")
    for figure in sorted((study.folder / "figures").glob("*")):
        if not figure.name.startswith("06_"):
            shutil.copy(figure, ROOT / "figures" / figure.name)
    print(f"wrote results/{study.name}.csv")


def headline_section() -> str:
    """Return the headline table of all published results, as Markdown."""
    tables = [pd.read_csv(path) for path in sorted((ROOT / "results").glob("*.csv"))]
    if not tables:
        raise FileNotFoundError("no table in results/; publish a finished study first")
    parts = [markdown(headline(table).assign(study=table["study"].iloc[0])) for table in tables]
    return "\n\n".join(parts)


def readme() -> None:
    """Write the headline table into README.md, between its two marks."""
    path = ROOT / "README.md"
    text = path.read_text()
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end or text.count(_BEGIN) + text.count(_END) > 2:
        raise ValueError(f"README.md must hold once, in this order, {_BEGIN} and {_END}")
    path.write_text(f"{before}{_BEGIN}\n\n{headline_section()}\n\n{_END}{after}")


COMMANDS = {"check": check, "collect": collect, "show": show, "publish": publish}


def main() -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m nlalib",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=(*COMMANDS, "readme"))
    parser.add_argument("config", nargs="?", default="configs/embedded.yaml")
    arguments = parser.parse_args()
    try:
        if arguments.command == "readme":
            readme()
        else:
            COMMANDS[arguments.command](arguments.config)
    except (FileNotFoundError, ValueError, TypeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
