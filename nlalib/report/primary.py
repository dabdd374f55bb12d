"""Which comparisons are primary, and how all others are corrected.

Primary is what a study asks first, and its p-values are corrected for their number (Holm) in a
family of their own, wherever they are shown; so the same runs get the same word of certainty in
all notebooks. There are two kinds of family:

- a study that declares its contrasts before its runs (`primary` in its file) is a family;
- of the older, short grids, NLA less cross-entropy at the last epoch, in both accuracies, under
  each condition of `SHORT_STUDIES`, is one family.

Any other comparison is corrected among the others of its study and selection rule in the table at
hand; so its word may differ where a notebook shows a part of a study alone.
"""

from functools import lru_cache

import numpy as np
import pandas as pd

from nlalib.paths import ROOT
from nlalib.report.certainty import ACCURACIES, certainty, holm
from nlalib.report.frame import SETTING, read_table
from nlalib.report.reading import verdict

SHORT_STUDIES = ("ferplus_small", "noise", "imbalance", "noise_networks", "embedded")
OF_PAIR = frozenset({"nla", "ce"})
P_VALUES = ("p_seeds", "p_images")
OVER_IMAGES = ["images_low", "images_high", "p_images"]
# What has to be equal for a contrast to be one of the same runs, beside its difference.
OF_CONTRAST = [name for name in SETTING if name != "method"]
ROUNDING = 2e-6  # of published tables, which have six decimals


@lru_cache(maxsize=1)
def primary_contrasts() -> pd.DataFrame:
    """Return the published primary contrasts, with `p_seeds_holm` and `p_images_holm`."""
    tables = {
        path.stem.removesuffix("_differences"): read_table(path)
        for path in sorted((ROOT / "results").glob("*_differences.csv"))
    }
    tables = {study: table for study, table in tables.items() if len(table)}
    short = pd.concat([tables[s] for s in SHORT_STUDIES if s in tables], ignore_index=True)
    is_last = short["selection"] == "last"
    short = short[(short["settings"] == "") & is_last & _is_of_pair(short)].reset_index(drop=True)
    for name in P_VALUES:
        short[f"{name}_holm"] = holm(short[name].to_numpy())
    declared = [
        table[table["primary"].eq(True)]  # which an older table does not say
        for study, table in tables.items()
        if study not in SHORT_STUDIES and "primary" in table
    ]
    return pd.concat([short, *declared], ignore_index=True)


def _is_of_pair(table: pd.DataFrame) -> pd.Series:
    pairs = zip(table["method"], table["reference"], strict=True)
    is_pair = pd.Series([set(pair) == OF_PAIR for pair in pairs], table.index, dtype=bool)
    return is_pair & table["metric"].isin(ACCURACIES)


def corrected(differences: pd.DataFrame) -> pd.DataFrame:
    """Return comparisons with `primary` (bool) and p-values corrected by the rule above.

    Parameters
    ----------
    differences : pandas.DataFrame
        As `nlalib.report.certainty.paired_differences` gives, as fractions and of one study or
        several, with the column `p_images` (NaN where nothing was resampled). A contrast is known
        as a primary one by its condition and its difference, whichever of both is the reference.
    """
    known = primary_contrasts()
    same = [
        name
        for name in [*OF_CONTRAST, "selection", "metric"]
        if name in differences and name in known
    ]
    of_known = known.assign(distance=known["difference"].abs()).drop_duplicates(same)
    names = [f"{name}_holm" for name in P_VALUES]
    table = differences.drop(columns=[*names, "primary"], errors="ignore").reset_index(drop=True)
    found = table[same].merge(of_known[[*same, "distance", *names]], on=same, how="left")
    is_near = (found["distance"] - table["difference"].abs()).abs() < ROUNDING
    table["primary"] = _is_of_pair(table) & is_near
    for name in P_VALUES:
        others = table[name].where(~table["primary"])
        own = others.groupby([table["study"], table["selection"]]).transform(
            lambda p: holm(p.to_numpy())
        )
        table[f"{name}_holm"] = np.where(table["primary"], found[f"{name}_holm"], own)
    return table


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
