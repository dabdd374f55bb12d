"""The sections of README.md that are made from the tables in results/, and `results/claims.csv`."""

from collections.abc import Callable

import pandas as pd
import yaml

from nlalib.files import write_csv
from nlalib.paths import ROOT
from nlalib.report.answer import answer_section
from nlalib.report.frame import headline, markdown, published_file, published_table
from nlalib.report.gate import published_gate
from nlalib.report.ledger import in_short, ledger
from nlalib.report.reproducing import SECTIONS
from nlalib.report.studies import read_study


def headline_section() -> str:
    """Return the tables of the studies that the README shows, each with its gate, as Markdown."""
    parts = []
    for content in _shown_studies():
        study, gate = content["study"], published_gate(content)
        table = accuracy_table(headline(published_table(study)))
        of = f" (that of `{content['gate']}`, whose recipe it has)" if content.get("gate") else ""
        parts.append(f"`{study}`: {table}\n\nGate of `{study}`{of}: {gate}.")
    return "\n\n".join(parts)


def accuracy_table(rows: pd.DataFrame) -> str:
    """Return a study's headline rows in one line of what all share, and a column a selection rule.

    Parameters
    ----------
    rows : pandas.DataFrame
        As `nlalib.report.frame.headline` returns.
    """
    rows = rows.assign(both=rows["overall accuracy %"] + " / " + rows["mean accuracy %"])
    named = ["data set", "network", "init", "epochs", "seeds"]
    shared = [name for name in named if rows[name].nunique() == 1]
    index = ["method", "setting", *(name for name in named if name not in shared)]
    wide = rows.pivot(index=index, columns="epoch chosen", values="both").reset_index()
    wide = wide[[*index, *dict.fromkeys(rows["epoch chosen"])]].fillna("")
    return f"{', '.join(f'{n} {rows[n].iloc[0]}' for n in shared)}\n\n{markdown(wide)}"


def _shown_studies() -> list[dict]:
    """Return the files of the published studies that the README shows, real faces first.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    files = sorted((ROOT / "configs").glob("*.yaml"))
    contents = [yaml.safe_load(path.read_text()) for path in files]
    there = [
        content
        for content in contents
        if content.get("readme") and published_file(f"{content['study']}.csv").is_file()
    ]
    if not there:
        raise FileNotFoundError("no table in results/; publish a finished study first")
    return sorted(there, key=lambda content: (content["fixed"] or {}).get("dataset") == "rendered")


def progress_section() -> str:
    """Return how many of each study's declared runs are published, and of which methods not."""
    rows = []
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        study = read_study(path)
        # Of a study that chooses a setting only this table is published.
        is_published = published_file(f"{study.name}_epochs.csv").is_file()
        done = set(published_table(study.name, "_epochs")["run_id"]) if is_published else set()
        left = [run.method for run_id, run in study.runs.items() if run_id not in done]
        rows.append(
            {
                "study": f"[{study.name}](configs/{path.name})",
                "what": study.title,
                "runs published": f"{len(study.runs) - len(left)} of {len(study.runs)}",
                "runs left, of": ", ".join(dict.fromkeys(left)),
            }
        )
    return markdown(pd.DataFrame(rows))


README_SECTIONS: dict[str, Callable[[], str]] = {
    "answer": answer_section,
    "claims": lambda: markdown(in_short(ledger())),
    "headline table": headline_section,
    "runs": progress_section,
}


MADE_SECTIONS = {"README.md": README_SECTIONS, "docs/why_not_reproduced.md": SECTIONS}


def readme_marks(section: str) -> tuple[str, str]:
    """Return what stands before and behind a made section of a file."""
    return f"<!-- {section}: made by `make readme` -->", f"<!-- end of {section} -->"


def readme() -> None:
    """Write results/claims.csv, and `MADE_SECTIONS` into their files, each between its marks."""
    write_csv(published_file("claims.csv"), ledger().round(6))
    for file, sections in MADE_SECTIONS.items():
        path = ROOT / file
        text = path.read_text()
        for name, section in sections.items():
            first, last = readme_marks(name)
            before, begin, rest = text.partition(first)
            _, end, after = rest.partition(last)
            if not begin or not end or text.count(first) + text.count(last) > 2:
                raise ValueError(f"{file} must hold once, in this order, {first} and {last}")
            text = f"{before}{first}\n\n{section()}\n\n{last}{after}"
        path.write_text(text)
