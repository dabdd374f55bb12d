"""Which comparisons are primary, and how all others are corrected.

Primary is what a study asks first, and its p-values are corrected for their number (Holm) in a
family of their own, wherever they are shown; so the same runs get the same word of certainty in
all notebooks. There are two kinds of family:

- a study that declares its contrasts before its runs (`primary` in its file) is a family;
- of the older, short grids, NLA less cross-entropy at the last epoch, in both accuracies, under
  each condition of `SHORT_STUDIES`, is one family.

Any other published comparison is corrected among the others of its study, reference and selection
rule that the study's file declares, run or not, whatever part of them a notebook shows; one that is
not published, in the table at hand. Where two studies have a comparison of the same runs, the
larger p-values of both count.
"""

from functools import lru_cache

import numpy as np
import pandas as pd

from nlalib.report.certainty import ACCURACIES, certainty, holm
from nlalib.report.frame import SETTING, published_file, read_table, stacked
from nlalib.report.reading import verdict

SHORT_STUDIES = ("ferplus_small", "noise", "imbalance", "noise_networks", "embedded")
OF_PAIR = frozenset({"nla", "ce"})
P_VALUES = ("p_seeds", "p_images")
CORRECTED = [f"{name}_holm" for name in P_VALUES]
OVER_IMAGES = ["images_low", "images_high", "p_images"]
# What has to be equal for a contrast to be one of the same runs, beside its difference.
OF_CONTRAST = [name for name in SETTING if name != "method"]
# What is equal of a comparison that two studies share, and so has the same runs.
_OF_RUNS = [*SETTING, "reference", "selection", "metric", "difference"]
ROUNDING = 2e-6  # of published tables, which have six decimals


@lru_cache(maxsize=1)
def published_contrasts() -> pd.DataFrame:
    """Return all published comparisons, `primary` and their p-values corrected as said above."""
    paths = sorted(published_file("").glob("*_differences.csv"))
    table = stacked(map(read_table, paths))
    is_short = table["study"].isin(SHORT_STUDIES)
    asked_first = (table["settings"] == "") & (table["selection"] == "last") & _is_of_pair(table)
    said = table.get("primary", pd.Series(index=table.index, dtype=object))  # older ones do not say
    table["primary"] = np.where(is_short, asked_first, said.eq(True)).astype(bool)
    of_today = said.notna() & ~is_short
    for name, corrected_name in zip(P_VALUES, CORRECTED, strict=True):
        family = holm(table[name].where(is_short & table["primary"]).to_numpy())
        table[corrected_name] = table[corrected_name].where(~is_short, family)
    declared, as_published = table["primary"], table[CORRECTED]
    table = _with_the_rest(table, table[declared], ["study", "reference", "selection"])
    # Tables of today count what their study has declared and not run. What is a primary contrast
    # of another study has the p-values of that family.
    kept = of_today & (declared | ~table["primary"])
    table[CORRECTED] = as_published.where(kept, table[CORRECTED])
    same = table.groupby(_OF_RUNS, dropna=False)[CORRECTED]
    return table.assign(**same.transform("max"))


def _with_the_rest(table: pd.DataFrame, primary: pd.DataFrame, family: list[str]) -> pd.DataFrame:
    """Return the table with the primary contrasts known in it, and all others corrected apart."""
    found = _published(table, primary, [*OF_CONTRAST, "selection", "metric"])
    is_primary = _is_of_pair(table) & found.notna().any(axis=1)
    table = table.assign(primary=is_primary)
    for name, corrected_name in zip(P_VALUES, CORRECTED, strict=True):
        rest = table.assign(p=table[name].where(~is_primary)).groupby(family)["p"].transform(holm)
        table[corrected_name] = found[corrected_name].where(is_primary, rest)
    return table


def _is_of_pair(table: pd.DataFrame) -> pd.Series:
    is_pair = table["method"].isin(OF_PAIR) & table["reference"].isin(OF_PAIR)
    return is_pair & (table["method"] != table["reference"]) & table["metric"].isin(ACCURACIES)


def corrected(differences: pd.DataFrame) -> pd.DataFrame:
    """Return comparisons with `primary` (bool) and p-values corrected by the rule above.

    Parameters
    ----------
    differences : pandas.DataFrame
        As `nlalib.report.certainty.paired_differences` gives, as fractions and of one study or
        several, with the column `p_images` (NaN where nothing was resampled). A contrast is known
        as a primary one by its condition and its difference, whichever of both is the reference.
    """
    table = differences.drop(columns=[*CORRECTED, "primary"], errors="ignore")
    everything = published_contrasts()
    primary, others = everything[everything["primary"]], everything[~everything["primary"]]
    table = _with_the_rest(table.reset_index(drop=True), primary, ["study", "selection"])
    known = _published(table, others, ["study", *SETTING, "reference", "selection", "metric"])
    for name in CORRECTED:
        table[name] = table[name].where(table["primary"] | known[name].isna(), known[name])
    return table


def _published(table: pd.DataFrame, known: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """Return the corrected p-values of those rows that are known, NaN for all others.

    A comparison is known by `key`, as far as both have it, and by the size of its difference. Of
    several such the largest.
    """
    key = [name for name in key if name in table and name in known]
    rows = table[key].assign(row=range(len(table)), distance=table["difference"].abs().to_numpy())
    found = rows.merge(known[[*key, "difference", *CORRECTED]], on=key)
    near = found[(found["distance"] - found["difference"].abs()).abs() < ROUNDING]
    p_values = near.groupby("row")[CORRECTED].max()
    return p_values.reindex(range(len(table))).set_axis(table.index)


def told(differences: pd.DataFrame, level: float = 0.05, less_is_better=()) -> pd.DataFrame:
    """Return `corrected` with the words `certainty` and `verdict`.

    Parameters
    ----------
    differences : pandas.DataFrame
        With the columns `images_low` and `images_high` too.
    level : float
    less_is_better : collection of str
        Metrics of which a lower value is the better one.
    """
    table = corrected(differences)
    rows = list(table.itertuples())
    table["certainty"] = [certainty(row, level) for row in rows]
    table["verdict"] = [verdict(row, level, row.metric not in less_is_better) for row in rows]
    return table


def with_images(differences: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Return comparisons with their intervals over test images, which need runs' predictions.

    Parameters
    ----------
    differences : pandas.DataFrame
        As `nlalib.report.certainty.paired_differences` gives.
    published : pandas.DataFrame
        Tables of differences that lie beside studies' tables; none may be there.

    Returns
    -------
    pandas.DataFrame
        With the columns `OVER_IMAGES`, NaN where `published` has no such comparison.
    """
    table = differences.drop(columns=OVER_IMAGES, errors="ignore")
    if published.empty:
        return table.assign(**dict.fromkeys(OVER_IMAGES, np.nan))
    key = [name for name in ("study", *SETTING, "reference", "selection", "metric")
           if name in published and name in table]  # fmt: skip
    return table.merge(published[[*key, *OVER_IMAGES]], on=key, how="left", validate="one_to_one")
