"""Differences between methods, in words for readers."""

import numpy as np
import pandas as pd

from nlalib.report.certainty import INCONCLUSIVE, certainty
from nlalib.report.frame import SETTING, setting_in_words


def difference_in_words(row: pd.Series) -> str:
    """Return one comparison of `nlalib.report.differences` as a line, in points."""
    name = ", ".join(filter(None, [row["method"], setting_in_words(row)]))
    metric = row["metric"].replace("_", " ")
    return f"{name} - {row['reference']}, {metric}: {_in_points(row)}, n = {row['n']}"


def difference_table(differences: pd.DataFrame, method: str, passed: bool) -> pd.DataFrame:
    """Return how far `method` is from its reference at the last epoch, one row a setting, in words.

    The verdict is one word for overall and one for mean accuracy, see `certainty`; or
    "inconclusive", where the study's gate was not passed.

    Parameters
    ----------
    differences : pandas.DataFrame
        As `nlalib.report.differences.study_differences` returns, of one study.
    method : str
    passed : bool
        Whether the study passed its gate, see `nlalib.report.gate`.
    """
    rows = differences[(differences["selection"] == "last") & (differences["method"] == method)]
    table = []
    for _, both in rows.groupby([*SETTING, "reference"], sort=False, dropna=False):
        setting, accuracies = both.iloc[0], both.set_index("metric")
        overall, mean = (accuracies.loc[f"{name}_accuracy"] for name in ("overall", "mean"))
        verdict = f"{certainty(overall)}, {certainty(mean)}" if passed else INCONCLUSIVE
        table.append(
            {
                "difference": f"{method} - {setting['reference']}",
                "data set": setting["dataset"],
                "setting": setting_in_words(setting),
                "network": setting["backbone"],
                "overall accuracy": _in_points(overall),
                "mean accuracy": _in_points(mean),
                "seeds": setting["n"],
                "verdict": verdict,
            }
        )
    return pd.DataFrame(table)


def _in_points(row: pd.Series) -> str:
    """Return a difference with its intervals, over seeds (if several) and over test images."""
    words = [f"{100 * row['difference']:+.1f}"]
    for low, high in (("low", "high"), ("images_low", "images_high")):
        if not np.isnan(row[low]):
            words.append(f"[{100 * row[low]:+.1f}, {100 * row[high]:+.1f}]")
    return " ".join(words)
