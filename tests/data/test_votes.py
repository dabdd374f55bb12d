import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from nlalib.data.index import VOTE_COLUMNS, VOTE_NAMES
from nlalib.data.labels import EXPRESSIONS
from nlalib.data.votes import DROP_REASONS, LABEL_RULES, label_from_votes

FILE_ORDER = "neutral happiness surprise sadness anger disgust fear contempt unknown not_a_face"


def make_votes(**counts: int) -> dict[str, int]:
    assert set(counts) <= set(VOTE_NAMES)
    return {f"votes_{name}": counts.get(name, 0) for name in VOTE_NAMES}


def label_of(rule: str, num_classes: int = 7, **counts: int) -> str:
    """The label's name, or `-<reason>`."""
    row = label_from_votes(pd.DataFrame([make_votes(**counts)]), rule, num_classes).iloc[0]
    assert (row["label"] == -1) == (row["reason"] != "")
    return f"-{row['reason']}" if row["reason"] else EXPRESSIONS[row["label"]]


def expected(rule: str, num_classes: int, counts: dict[str, int]) -> tuple[int, str]:
    """The rules once more, one row at a time and with lists only."""
    if sum(counts.values()) == 0:
        return -1, "no votes"
    if rule == "ferplus_paper":
        counts = {name: count for name, count in counts.items() if count > 1}
        if not counts:
            return -1, "no majority"
    most = max(counts.values())
    leaders = [name for name in FILE_ORDER.split() if counts.get(name, 0) == most]
    if rule == "majority" and len(leaders) > 1:
        return -1, "tie"
    if rule in ("more_than_half", "ferplus_paper") and most / sum(counts.values()) <= 0.5:
        return -1, "no majority"
    leader = leaders[0]
    if leader in EXPRESSIONS[:num_classes]:
        return EXPRESSIONS.index(leader), ""
    return -1, leader.replace("_", " ")


@pytest.mark.parametrize(
    ("counts", "majority", "argmax", "more_than_half", "ferplus_paper"),
    [
        # Unanimous, and a clear winner without half of the votes.
        ({"fear": 10}, "fear", "fear", "fear", "fear"),
        ({"neutral": 4, "anger": 3, "disgust": 3}, "neutral", "neutral", *["-no majority"] * 2),
        # Exactly half is not more than half ...
        ({"anger": 5, "disgust": 3, "fear": 2}, "anger", "anger", *["-no majority"] * 2),
        # ... but single votes are outliers for the paper: 5 of 8 are left.
        (
            {"anger": 5, "disgust": 3, "fear": 1, "neutral": 1},
            *["anger"] * 2,
            "-no majority",
            "anger",
        ),
        # A tie: the file's first column wins under argmax, whatever the project's order is.
        ({"surprise": 5, "neutral": 5}, "-tie", "neutral", *["-no majority"] * 2),
        ({"fear": 4, "contempt": 4, "sadness": 2}, "-tie", "fear", *["-no majority"] * 2),
        # Ties with the columns that are no expression.
        ({"unknown": 5, "fear": 5}, "-tie", "fear", *["-no majority"] * 2),
        ({"unknown": 5, "not_a_face": 5}, "-tie", "-unknown", *["-no majority"] * 2),
        # Winners that are no class of seven.
        ({"contempt": 7, "neutral": 3}, *["-contempt"] * 4),
        ({"unknown": 6, "neutral": 4}, *["-unknown"] * 4),
        ({"not_a_face": 10}, *["-not a face"] * 4),
        # Votes for no expression still count: five of ten is no majority.
        (
            {"happiness": 5, "unknown": 4, "not_a_face": 1},
            *["happiness"] * 2,
            "-no majority",
            "happiness",
        ),
        # Only single votes, and the row of nine votes (5 of 9 is more than half).
        ({name: 1 for name in VOTE_NAMES}, "-tie", "neutral", *["-no majority"] * 2),
        ({"neutral": 5, "anger": 4}, *["neutral"] * 4),
        ({}, *["-no votes"] * 4),
    ],
)
def test_hand_made_votes(counts, majority, argmax, more_than_half, ferplus_paper):
    assert label_of("majority", **counts) == majority
    assert label_of("argmax", **counts) == argmax
    assert label_of("more_than_half", **counts) == more_than_half
    assert label_of("ferplus_paper", **counts) == ferplus_paper


@pytest.mark.parametrize("rule", LABEL_RULES)
def test_contempt_is_the_eighth_class(rule):
    assert label_of(rule, 8, contempt=7, neutral=3) == "contempt"
    assert label_of(rule, 7, contempt=7, neutral=3) == "-contempt"


counts_of_ten = st.lists(st.sampled_from(VOTE_NAMES), max_size=12).map(
    lambda cast: {name: cast.count(name) for name in VOTE_NAMES}
)


@pytest.mark.parametrize("num_classes", [7, 8])
@pytest.mark.parametrize("rule", LABEL_RULES)
@settings(max_examples=60, deadline=None)
@given(rows=st.lists(counts_of_ten, min_size=1, max_size=20))
def test_rules_agree_with_a_plain_loop(rule, num_classes, rows):
    votes = pd.DataFrame([make_votes(**row) for row in rows])
    labelled = label_from_votes(votes, rule, num_classes)
    found = list(labelled.itertuples(index=False, name=None))
    assert found == [expected(rule, num_classes, row) for row in rows]
    assert set(labelled["reason"]) <= {"", *DROP_REASONS}


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(counts_of_ten, min_size=1, max_size=20))
def test_a_stricter_rule_keeps_fewer_rows_and_changes_no_label(rows):
    votes = pd.DataFrame([make_votes(**row) for row in rows])
    label = {rule: label_from_votes(votes, rule, 8)["label"] for rule in LABEL_RULES}
    for strict, loose in (("majority", "argmax"), ("more_than_half", "majority")):
        kept = label[strict] >= 0
        assert (label[loose][kept] == label[strict][kept]).all()


def test_rows_and_their_index_stay_in_place():
    votes = pd.DataFrame([make_votes(fear=10), make_votes(), make_votes(anger=10)], index=[7, 3, 5])
    votes.insert(0, "image_id", ["a", "b", "c"])
    before = votes.copy()
    labelled = label_from_votes(votes[["image_id", *reversed(VOTE_COLUMNS)]], "majority", 7)
    assert list(labelled.index) == [7, 3, 5]
    assert list(labelled["label"]) == [1, -1, 5]
    assert labelled["label"].dtype == np.int64
    pd.testing.assert_frame_equal(votes, before)


def test_wrong_arguments_are_refused():
    votes = pd.DataFrame([make_votes(fear=10)])
    with pytest.raises(ValueError, match=r"'plurality'.*majority, argmax, more_than_half, ferplus"):
        label_from_votes(votes, "plurality", 7)
    with pytest.raises(ValueError, match="votes_contempt"):
        label_from_votes(votes.drop(columns="votes_contempt"), "majority", 7)
    with pytest.raises(ValueError, match="num_classes is 6"):
        label_from_votes(votes, "majority", 6)
