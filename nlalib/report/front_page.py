"""The front page of a study's HTML report, which Snakemake makes (`make report`).

The report is one file that needs no network: this page, tables and figures, what each step was
and how long it took.
"""

import pandas as pd

from nlalib.files import write_atomically
from nlalib.paths import display_path
from nlalib.report.frame import headline
from nlalib.report.gate import gate_of
from nlalib.report.publish import collected_tables
from nlalib.report.reading import differences_in_words
from nlalib.report.studies import read_study


def front_page(title: str, gate: str, table: pd.DataFrame, differences: list[str]) -> str:
    """Return the page in reStructuredText, as Snakemake reads it.

    Parameters
    ----------
    title, gate : str
    table : pandas.DataFrame
        For readers: one row a setting. A column of one value is told in words.
    differences : list of str
        A sentence each.
    """
    shared = [name for name in table if table[name].nunique() == 1 and len(table) > 1]
    in_all = "; ".join(f"{name} {table[name].iloc[0]}" for name in shared if table[name].iloc[0])
    lines = [title, "=" * len(title), "", f"Gate: {gate}.", ""]
    lines += [f"All rows: {in_all}.", ""] if in_all else []
    # Snakemake's report gives cells neither lines nor margins, and draws the workflow beside.
    html = table.drop(columns=shared).to_html(index=False, border=0, justify="left")
    html = html.replace("<td>", '<td class="border px-2">').replace("<th>", '<th class="px-2">')
    lines += [".. raw:: html", "", '   <div style="overflow-x: auto">']
    lines += [*(f"   {line}" for line in html.splitlines()), "   </div>"]
    if differences:
        lines += [
            "",
            "Differences at the last epoch, points: mean [over seeds] [over images]",
            "",
        ]
        lines += [f"- {sentence}" for sentence in differences]
    return "\n".join([*lines, ""])


def write_front_page(config: str) -> None:
    """Write the front page of a finished study beside its tables, `report.rst`.

    Raises
    ------
    FileNotFoundError
        If the study has not been run to its end.
    """
    study = read_study(config)
    results, epochs, differences = collected_tables(study)
    sentences = differences_in_words(differences)
    gate = str(gate_of(study, results, epochs))
    text = front_page(study.title, gate, headline(results), sentences)
    write_atomically(study.folder / "report.rst", lambda path: path.write_text(text))
    print(display_path(study.folder / "report.html"))
