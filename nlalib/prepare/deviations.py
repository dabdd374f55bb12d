"""Why a set's class counts are not the published ones: each deviation in words, with its cause."""

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from nlalib.data.labels import BASIC_EXPRESSIONS, FER2013_CODES
from nlalib.data.sets import SETS

# Orders in which sets, or libraries that sort folders, number the seven basic expressions.
CLASS_ORDERS = {
    **{data_set.title: data_set.order[:7] for data_set in SETS.values() if data_set.published},
    "FER2013": tuple(FER2013_CODES.values()),
    "folders sorted by name": tuple(sorted(BASIC_EXPRESSIONS)),
}
# Counts this close are the same class with a few files missing.
CLOSE_SHARE, CLOSE_IMAGES = 0.02, 2
# RAF-DB as many re-aligned copies have it.
_REALIGNED_IMAGES = 12_175
_TOTALS = ("all images", "rows of votes")


def count_deviations(counts: pd.DataFrame, order: tuple[str, ...]) -> list[str]:
    """Say where counts differ, and why they probably do.

    Parameters
    ----------
    counts : pandas.DataFrame
        `split`, `expression`, `expected`, `found`; totals under "all images" and "rows of votes".
    order : tuple of str
        The expressions in the order of the set's codes.

    Returns
    -------
    list of str
        One text a split and kind of deviation; empty if all counts agree.
    """
    texts = []
    for split, table in counts.groupby("split", sort=False):
        totals = table[table["expression"].isin(_TOTALS)].set_index("expression")
        classes = table[~table["expression"].isin(_TOTALS)].set_index("expression")
        for name, row in totals[totals["found"] != totals["expected"]].iterrows():
            texts.append(
                f"{split}: {row['found']:,} {name.removeprefix('all ')}, expected "
                f"{row['expected']:,}: {_cause_of_total(int(row['found']), int(row['expected']))}"
            )
        differing = classes[classes["found"] != classes["expected"]]
        if len(differing):
            shown = ", ".join(
                f"{name} {row['found']:,} (not {row['expected']:,})"
                for name, row in differing.iterrows()
            )
            texts.append(f"{split}: {shown}: {_cause_of_classes(classes, order)}")
    return texts


def _cause_of_total(found: int, expected: int) -> str:
    if found == _REALIGNED_IMAGES:
        return "the size of a copy of RAF-DB that others aligned again, not of the set itself"
    if found == 0:
        return "the whole split is missing; unpack its archive too"
    if found < expected:
        return "files or lines are missing, as in a zip that was unpacked in part"
    return "more than was published: a merged or augmented copy, or files of another set"


def swapped_classes(classes: pd.DataFrame) -> dict[str, str]:
    """Return which class's images stand under which name, if names were swapped.

    Parameters
    ----------
    classes : pandas.DataFrame
        `expected` and `found`, one row an expression.

    Returns
    -------
    dict
        Name as read to the class whose published count it has; empty where no exchange of names
        makes all counts fit, or none is needed.
    """
    expected, found = (classes[column].to_numpy(float) for column in ("expected", "found"))
    distance = np.abs(found[:, None] - expected[None, :])
    is_close = distance <= np.maximum(CLOSE_IMAGES, CLOSE_SHARE * expected)[None, :]
    rows, columns = linear_sum_assignment(distance)
    if np.diag(is_close).all() or not is_close[rows, columns].all():
        return {}
    names = list(classes.index)
    return {names[row]: names[column] for row, column in zip(rows, columns, strict=True)}


def _cause_of_classes(classes: pd.DataFrame, order: tuple[str, ...]) -> str:
    if swapped := swapped_classes(classes):
        # The order that explains the counts best, if it does so as well as any exchange of names.
        misfits = {
            name: _misfit(dict(zip(order, other, strict=False)), classes)
            for name, other in CLASS_ORDERS.items()
            if other != tuple(order[:7])
        }
        best = min(misfits, key=misfits.get)
        if misfits[best] <= _misfit(swapped, classes):
            return f"the codes were read in the class order of another, that of {best}"
        moved = {name: true for name, true in swapped.items() if name != true}
        pairs = ", ".join(f"{name} has the count of {true}" for name, true in moved.items())
        return f"the class map is swapped ({pairs})"
    expected, found = classes["expected"], classes["found"]
    if (empty := list(classes.index[(found == 0) & (expected > 0)])) and len(empty) < len(classes):
        return f"no image of {', '.join(empty)}: other codes, or another number of classes"
    if found.sum() == expected.sum():
        return "as many images as published, but other labels: a noisy or a corrected label list"
    if (found <= expected).all():
        return "images are missing"
    return "another set, or a copy with other images"


def _misfit(mapping: dict[str, str], classes: pd.DataFrame) -> int:
    """Return by how many images counts differ if each name stands for the class it maps to."""
    true = [mapping.get(name, name) for name in classes.index]
    return int(np.abs(classes["found"].to_numpy() - classes.loc[true, "expected"].to_numpy()).sum())
