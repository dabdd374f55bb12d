"""What is read from published tables of leakage: accuracies without test images that have a twin.

Apart from `nlalib.report.leakage`, which makes the tables and decodes images for them.
"""

import pandas as pd

from nlalib.data.label_sources import RULE
from nlalib.report.frame import published_table
from nlalib.report.reading import over_seeds


def gains_with_and_without_twins(
    table: pd.DataFrame, metric: str = "overall_accuracy", reference: str = "ce"
) -> pd.DataFrame:
    """Return each method less the reference on all test images, without twins, and on twins alone.

    Parameters
    ----------
    table : pandas.DataFrame
        As `nlalib.report.leakage.leakage_table` returns. Twins are exact or near ones of the images
        that a run trained on.
    metric : str
    reference : str
        A method, compared by seed on the same labels.

    Returns
    -------
    pandas.DataFrame
        A row for each method, setting, noise rate and source of labels, as "nla, 20%"; a column for
        each part of the test images, headed by how many they are; cells in points, with the
        interval over seeds. Empty where the reference ran alone.
    """
    rows = table.query("trained_on == 'run' and twins == 'exact or near'").fillna({"settings": ""})
    every, twins = (int(rows[name].iloc[0]) for name in ("test_images", "leaked"))
    parts = {
        "": f"all {every:,}",
        "_without": f"{every - twins:,} without twins",
        "_leaked": f"{twins:,} twins alone",
    }
    of_labels, cells = ["noise_rate", "label_source"], {}
    for (rate, source), same in rows.groupby(of_labels, sort=False):
        baseline = same[same["method"] == reference].set_index("seed")
        others = same[same["method"] != reference]
        for (method, settings), own in others.groupby(["method", "settings"], sort=False):
            name = ", ".join(filter(None, [method, settings, f"{rate:.0%}"]))
            name += f", labels of {source}" if source != RULE else ""
            for ending, words in parts.items():
                column = f"{metric}{ending}"
                gains = 100 * (own.set_index("seed")[column] - baseline[column]).dropna()
                cells.setdefault(name, {})[words] = over_seeds(gains)
    return pd.DataFrame(cells, index=list(parts.values())).T.sort_index()


def accuracy_without_twins(study: str) -> pd.Series:
    """Return by seed cross-entropy's overall accuracy without wrong labels, on part of the test.

    On the test images that have no twin, exact or near, in the official training split. A fraction,
    at the last epoch, of `results/<study>_leakage.csv`.
    """
    table = published_table(study, "_leakage").query("method == 'ce' and noise_rate == 0")
    of_split = table.query("trained_on == 'official split' and twins == 'exact or near'")
    return of_split.set_index("seed")["overall_accuracy_without"]
