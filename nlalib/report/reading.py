"""How results are put into words, alike in all notebooks."""

from html import escape

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from nlalib.report.certainty import certainty, student_interval
from nlalib.report.frame import setting_in_words


def check_findings(findings: dict[str, bool]) -> Styler:
    """Return which of a notebook's findings hold for the numbers at hand.

    Parameters
    ----------
    findings : dict of str to bool
        The sentences that stand in bold under the notebook's title, word for word, and what was
        computed of each. Of other data or settings a finding may fail; that is shown, no error.

    Returns
    -------
    pandas.io.formats.style.Styler
        A table of one row a finding, column `holds`: "yes" or "no".
    """
    words = ["yes" if holds else "no" for holds in findings.values()]
    table = pd.DataFrame({"holds": words}, index=pd.Index(findings, name="finding"))
    as_text = {"text-align": "left", "white-space": "normal", "font-weight": "normal"}
    as_css = "; ".join(f"{name}: {value}" for name, value in as_text.items())
    shown = table.style.set_properties(**as_text)
    return shown.set_table_styles([{"selector": "th", "props": as_css}])


class Folded:
    """A long table that a notebook shows as one line, which opens at a click.

    Parameters
    ----------
    table : pandas.DataFrame
    words : str
        What the table holds, for the line; its number of rows is added.
    """

    def __init__(self, table: pd.DataFrame, words: str):
        self.table, self.words = table, words

    def __repr__(self) -> str:
        """Return the table as text, as nothing folds there."""
        return repr(self.table)

    def _repr_html_(self) -> str:
        line = f"<summary>{escape(self.words)} ({len(self.table)} rows)</summary>"
        return f"<details>\n{line}\n{self.table.to_html(border=0)}\n</details>"


def verdict(row, level: float = 0.05, more_is_better: bool = True) -> str:
    """Return "better" or "worse" with "holds" or "hint", or "not told apart".

    Parameters
    ----------
    row
        As `nlalib.report.certainty.certainty` takes it, with the attribute `difference`.
    level : float
        Of the tests.
    more_is_better : bool
        Of the measure.
    """
    sure = certainty(row, level)
    better = (row.difference > 0) == more_is_better
    return sure if sure == "not told apart" else f"{'better' if better else 'worse'}: {sure}"


def with_interval(difference: float, low: float, high: float, digits: int = 1) -> str:
    """Return "+0.9 [-0.4, +2.2]"; without an interval (NaN), the difference alone."""
    if np.isnan(low):
        return f"{difference:+.{digits}f}"
    return f"{difference:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def in_points(row) -> str:
    """Return a difference in points, with its interval."""
    return with_interval(100 * row.difference, 100 * row.low, 100 * row.high)


def over_seeds(differences, digits: int = 1) -> str:
    """Return the mean of differences of paired seeds, as they are, with its interval over seeds."""
    found = student_interval(differences)
    return with_interval(found["difference"], found["low"], found["high"], digits)


def standing(row, other: str) -> str:
    """Return "ahead of", "perhaps ahead of", "not told apart from", "perhaps behind", "behind".

    And behind it the other's name. "Perhaps" is a hint: the intervals leave out zero, but corrected
    for many comparisons it may be chance; or nobody corrected.

    Parameters
    ----------
    row
        As `nlalib.report.certainty.certainty` takes it, with the attribute `difference`; or, of a
        comparison that was not corrected, with `difference`, `low` and `high` alone.
    other : str
        What the first is compared with.
    """
    if hasattr(row, "p_seeds_holm"):
        sure = certainty(row)
    else:
        sure = "hint" if row.low > 0 or row.high < 0 else "not told apart"
    if sure == "not told apart":
        return f"{sure} from {other}"
    place = f"ahead of {other}" if row.difference > 0 else f"behind {other}"
    return f"perhaps {place}" if sure == "hint" else place


def by_seed(rows: pd.DataFrame, **chosen) -> pd.Series:
    """Return the values of the rows with these contents, by seed.

    Parameters
    ----------
    rows : pandas.DataFrame
        Long form, with the columns `seed` and `value`.
    **chosen
        Column and content, such as `metric="mean_accuracy"`.

    Raises
    ------
    ValueError
        If a seed has more than one such row: more has to be chosen.
    """
    fits = (rows[list(chosen)] == list(chosen.values())).all(axis=1)
    values = rows.loc[fits, ["seed", "value"]].set_index("seed")["value"].sort_index()
    if values.index.has_duplicates:
        raise ValueError(f"{chosen} leave several rows for one seed; choose more columns")
    return values


def differences_in_words(differences: pd.DataFrame) -> list[str]:
    """Return a study's comparisons at the last epoch, a line each, in points."""
    rows = differences[differences["selection"] == "last"]
    return [difference_in_words(row) for _, row in rows.iterrows()]


def difference_in_words(row: pd.Series) -> str:
    """Return one comparison of `nlalib.report.differences` as a line, in points.

    With its intervals, over seeds (if several) and over test images.
    """
    name = ", ".join(filter(None, [row["method"], setting_in_words(row)]))
    words = f"{name} - {row['reference']}, {row['metric'].replace('_', ' ')}: {in_points(row)}"
    if not np.isnan(row["images_low"]):
        words += f" [{100 * row['images_low']:+.1f}, {100 * row['images_high']:+.1f}]"
    return f"{words}, n = {row['n']}"
