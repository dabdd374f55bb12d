"""What the machine does to a small gain: the same seeds, trained on a GPU and on CPUs."""

from collections.abc import Mapping

import pandas as pd

from nlalib.report.certainty import paired_differences, student_interval
from nlalib.report.claims import MAIN
from nlalib.report.frame import chosen_rows, published_table

TOGETHER = "all pairs"


def gains_by_machine(
    tables: Mapping[str, pd.DataFrame], metric: str, rule: str, reference: str = "ce"
) -> pd.DataFrame:
    """Return NLA less the reference without wrong labels, on each machine and on all of them.

    Processors sum in other orders, so a run that is trained on another machine is nearly another
    draw. All pairs together are more draws than one machine's, but not as many as other seeds would
    be: a seed that was trained twice keeps its initial weights and its order of images.

    Parameters
    ----------
    tables : mapping of str to pandas.DataFrame
        By the machine's name, in long form, columns `nlalib.report.frame.RESULT_COLUMNS`.
    metric, rule : str
    reference : str
        The method that NLA is compared with, on the same machine with the same seed.

    Returns
    -------
    pandas.DataFrame
        What `nlalib.report.certainty.student_interval` gives: a row a machine, of the seeds that
        all of them have; the row `apart(tables)`, the last machine's less the first's, paired by
        those seeds; and the row `TOGETHER` of every pair on every machine.
    """
    gains = {}
    for machine, table in tables.items():
        plain = table[(table["noise_rate"] == 0) & (table["settings"] == "")]
        plain = chosen_rows(plain, metric, rule).pivot(
            index="seed", columns="method", values="value"
        )
        gains[machine] = (plain["nla"] - plain[reference]).dropna()
    of_all = pd.DataFrame(gains)
    shared = of_all.dropna()
    rows = dict(shared.items())
    rows[apart(tables)] = shared.iloc[:, -1] - shared.iloc[:, 0]
    rows[TOGETHER] = of_all.stack().dropna()
    return pd.DataFrame({name: student_interval(own) for name, own in rows.items()}).T


def less_main_reference(table: pd.DataFrame, metric: str, rule: str) -> pd.DataFrame:
    """Return methods less the main study's cross-entropy, which was trained on another machine.

    Without wrong labels. A difference of a study's own runs has to stand against these too.

    Parameters
    ----------
    table : pandas.DataFrame
        One study's results, in the main study's recipe; its own cross-entropy is left out.
    metric, rule : str

    Returns
    -------
    pandas.DataFrame
        As `nlalib.report.certainty.paired_differences` gives.
    """
    others = table[(table["method"] != "ce") & (table["noise_rate"] == 0)]
    on_gpu = published_table(MAIN).query("method == 'ce' and noise_rate == 0")
    on_gpu = on_gpu.assign(study=others["study"].iloc[0])
    return paired_differences(pd.concat([others, on_gpu]), metric, rule, "ce")


def apart(machines: Mapping[str, pd.DataFrame]) -> str:
    """Return the name of the row that sets the last machine against the first."""
    first, *_, last = machines
    return f"{last} less {first}"
