"""Named rules that turn annotators' votes into one label, and say why a row gets none.

Papers on FERPlus seldom say how they got one label from ten votes, and the rule changes both
the size of the test set and how hard it is. So the rule is a name that a table can carry.

==================  ==============================================================================
rule                the label is ...
==================  ==============================================================================
majority            the column with the most votes, of all ten; dropped where two or more share
                    the first place
argmax              the same, but where the first place is shared the first such column in the
                    order of FERPlus's files wins (neutral, happiness, surprise, sadness, anger,
                    disgust, fear, contempt, unknown, not a face): what `argmax` over the file's
                    columns gives, and so what most code on FERPlus does. It favours neutral
more_than_half      the column with more than half of the row's votes (six or more of ten)
ferplus_paper       single votes are discarded as outliers; then the column with more than half
                    of the votes that are left (Barsoum et al. 2016, mode "majority" as released
                    in microsoft/FERPlus, src/ferplus.py at commit 06447e0)
==================  ==============================================================================

Under every rule a row is dropped if the winner is `unknown`, `not a face`, or no class of the
wanted number (contempt where there are 7 classes). Votes for these still count as votes.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from nlalib.data.index import VOTE_NAMES, vote_counts
from nlalib.data.labels import FERPLUS_COLUMNS, expressions
from nlalib.names import named

TIE = "tie"
NO_MAJORITY = "no majority"
NO_VOTES = "no votes"
DROP_REASONS = (TIE, NO_MAJORITY, "contempt", "unknown", "not a face", NO_VOTES)

# Positions of VOTE_NAMES in the order of FERPlus's files, for the rule `argmax`.
_FILE_ORDER = np.array([VOTE_NAMES.index(name) for name in FERPLUS_COLUMNS.values()])


def _majority(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    is_single = (counts == counts.max(axis=1, keepdims=True)).sum(axis=1) == 1
    return counts.argmax(axis=1), is_single, TIE


def _argmax(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    winner = _FILE_ORDER[counts[:, _FILE_ORDER].argmax(axis=1)]
    return winner, np.ones(len(counts), dtype=bool), TIE


def _more_than_half(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    return counts.argmax(axis=1), 2 * counts.max(axis=1) > counts.sum(axis=1), NO_MAJORITY


def _ferplus_paper(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    return _more_than_half(np.where(counts == 1, 0, counts))


# Each rule maps counts (N, 10) to the winning column (N,), whether it is accepted (N,), and
# the reason to give where it is not.
LABEL_RULES: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, str]]] = {
    "majority": _majority,
    "argmax": _argmax,
    "more_than_half": _more_than_half,
    "ferplus_paper": _ferplus_paper,
}


def label_from_votes(votes: pd.DataFrame, rule: str, num_classes: int = 7) -> pd.DataFrame:
    """Turn votes into labels by a named rule (the table at the top of this module).

    Parameters
    ----------
    votes : pandas.DataFrame
        N rows with the columns `nlalib.data.index.VOTE_COLUMNS`: counts >= 0. Others are ignored.
    rule : str
        One of `LABEL_RULES`.
    num_classes : int
        7, or 8 with contempt.

    Returns
    -------
    pandas.DataFrame
        N rows, the index of `votes`: `label` (int64, class id, -1 where the row is dropped)
        and `reason` (str, one of `DROP_REASONS`, empty where the row is kept). The rule
        speaks first: contempt level with anger is a "tie", not "contempt".

    Raises
    ------
    ValueError
        For an unknown rule, a missing column, or a number of classes other than 7 and 8.
    """
    label_rule = named(LABEL_RULES, rule, "label rule")
    classes = expressions(num_classes)
    counts = vote_counts(votes).to_numpy()
    winner, is_accepted, rejection = label_rule(counts)

    names = np.array([name.replace("_", " ") for name in VOTE_NAMES], dtype=object)
    reason = np.where(winner < len(classes), "", names[winner])
    reason = np.where(is_accepted, reason, rejection)
    reason = np.where(counts.sum(axis=1) == 0, NO_VOTES, reason)
    return pd.DataFrame(
        {"label": np.where(reason == "", winner, -1).astype("int64"), "reason": reason},
        index=votes.index,
    ).astype({"reason": "str"})
