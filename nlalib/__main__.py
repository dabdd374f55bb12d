"""`python -m nlalib`: what the Makefile and the workflow do with tables.

collect CONFIG   write the study's long table from its finished runs
show CONFIG      print the study's table and say where its figures and notebooks are
publish CONFIG   copy the study's table and figures to results/ and figures/, to be committed
readme           write the headline table of results/ into README.md
"""

import argparse
import shutil
import sys

import pandas as pd

from nlalib.paths import ROOT, display_path
from nlalib.runs import write_atomically
from nlalib.studies import read_study
from nlalib.tables import headline, markdown, study_table

_BEGIN, _END = "<!-- headline table: made by `make readme` -->", "<!-- end of headline table -->"


def collect(config: str) -> None:
    """Write the study's long table."""
    study = read_study(config)
    table = study_table(study)
    path = study.folder / "results.csv"
    write_atomically(path, lambda unfinished: table.to_csv(unfinished, index=False))


def show(config: str) -> None:
    """Print the study's table and where its files are."""
    study = read_study(config)
    print(f"\n{study.title}\n")
    print(headline(pd.read_csv(study.folder / "results.csv")).to_string(index=False))
    where = {
        "table": study.folder / "results.csv",
        "figures": study.folder / "figures",
        "notebooks": study.folder / "notebooks",
    }
    print("\n" + "\n".join(f"{name:10}{display_path(path)}" for name, path in where.items()))
    published = ROOT / "results" / f"{study.name}.csv"
    if published.exists():
        print(f"{'published':10}{display_path(published)} (compare it with yours)")


def publish(config: str) -> None:
    """Copy the study's table and figures to the committed folders."""
    study = read_study(config)
    shutil.copy(study.folder / "results.csv", ROOT / "results" / f"{study.name}.csv")
    print(f"wrote results/{study.name}.csv")


def headline_section() -> str:
    """Return the headline table of all published results, as Markdown."""
    tables = [pd.read_csv(path) for path in sorted((ROOT / "results").glob("*.csv"))]
    parts = [markdown(headline(table).assign(study=table["study"].iloc[0])) for table in tables]
    return "\n\n".join(parts)


def readme() -> None:
    """Write the headline table into README.md, between its two marks."""
    path = ROOT / "README.md"
    before, rest = path.read_text().split(_BEGIN)
    after = rest.split(_END)[1]
    path.write_text(f"{before}{_BEGIN}\n\n{headline_section()}\n\n{_END}{after}")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m nlalib",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=("collect", "show", "publish", "readme"))
    parser.add_argument("config", nargs="?", default="configs/embedded.yaml")
    arguments = parser.parse_args()
    try:
        if arguments.command == "readme":
            readme()
        else:
            globals()[arguments.command](arguments.config)
    except (FileNotFoundError, ValueError, TypeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
