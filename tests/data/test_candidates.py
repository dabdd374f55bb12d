"""Candidate sets against the rules one row at a time, and their properties."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from nlalib.data.candidates import (
    CANDIDATE_RULES,
    VOTE_RULES,
    candidate_sets,
    candidate_statistics,
    candidates_from_scores,
    random_candidates,
)
from nlalib.data.labels import BASIC_EXPRESSIONS

THRESHOLDS = {
    "count": st.integers(1, 10),
    "share": st.sampled_from([0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0]),
    "mass": st.sampled_from([0.05, 0.1, 0.3, 0.5, 0.6, 0.7, 0.9, 1.0]),
}


@st.composite
def vote_tables(draw):
    """(votes, rule, threshold); each row has a vote."""
    shape = (draw(st.integers(1, 6)), draw(st.integers(2, 8)))
    votes = draw(arrays(np.int64, shape, elements=st.integers(0, 10)))
    votes[votes.sum(axis=1) == 0, draw(st.integers(0, shape[1] - 1))] = 1
    rule = draw(st.sampled_from(VOTE_RULES))
    return votes, rule, draw(THRESHOLDS[rule])


def by_hand(votes: list[int], rule: str, threshold: float) -> set[int]:
    """The rules once more, for one row, in whole tenths and hundredths."""
    total = sum(votes)
    if rule == "count":
        chosen = {c for c, n in enumerate(votes) if n >= threshold}
    elif rule == "share":
        chosen = {c for c, n in enumerate(votes) if 100 * n >= round(100 * threshold) * total}
    else:
        chosen = set()
        for level in sorted(set(votes), reverse=True):
            held = sum(votes[c] for c in chosen)
            if 100 * held >= round(100 * threshold) * total:
                break
            chosen |= {c for c, n in enumerate(votes) if n == level and n > 0}
    return chosen | {c for c, n in enumerate(votes) if n == max(votes)}


@given(vote_tables())
def test_rules_equal_a_loop_over_rows(table):
    votes, rule, threshold = table
    found = candidate_sets(votes, rule, threshold)
    assert found.dtype == bool
    for row, candidates in zip(votes, found, strict=True):
        assert set(np.flatnonzero(candidates)) == by_hand(row.tolist(), rule, threshold)


@given(vote_tables(), st.randoms(use_true_random=False))
def test_the_order_of_the_classes_does_not_matter(table, random):
    votes, rule, threshold = table
    order = random.sample(range(votes.shape[1]), votes.shape[1])
    shuffled = candidate_sets(votes[:, order], rule, threshold)
    np.testing.assert_array_equal(shuffled, candidate_sets(votes, rule, threshold)[:, order])


@given(vote_tables())
def test_a_candidate_has_votes_and_whoever_has_as_many_is_one_too(table):
    votes, rule, threshold = table
    for row, candidates in zip(votes, candidate_sets(votes, rule, threshold), strict=True):
        fewest = row[candidates].min()
        assert fewest > 0
        assert set(np.flatnonzero(candidates)) == set(np.flatnonzero(row >= fewest))
        assert candidates[row.argmax()]


@given(vote_tables(), st.data())
def test_sets_shrink_as_count_and_share_rise_and_grow_with_mass(table, data):
    votes, rule, threshold = table
    higher = max(threshold, data.draw(THRESHOLDS[rule]))
    small, large = (candidate_sets(votes, rule, t) for t in (higher, threshold))
    if rule == "mass":
        small, large = large, small
    assert (small <= large).all()


@given(vote_tables(), st.sampled_from([0.3, 0.5, 0.9]))
def test_mass_reaches_its_threshold_and_not_without_its_least_voted(table, threshold):
    votes, _, _ = table
    for row, candidates in zip(votes, candidate_sets(votes, "mass", threshold), strict=True):
        chosen = row[candidates]
        assert chosen.sum() >= (threshold - 1e-6) * row.sum()
        if len(set(chosen.tolist())) > 1:  # the most-voted are in by right
            assert chosen[chosen > chosen.min()].sum() < threshold * row.sum()


@pytest.mark.parametrize(
    ("rule", "threshold", "expected"),
    [
        ("count", 1, [1, 1, 1, 1, 0]),
        ("count", 2, [1, 1, 1, 0, 0]),
        ("count", 9, [1, 0, 0, 0, 0]),  # nobody has nine: the most voted stays
        ("share", 0.2, [1, 1, 1, 0, 0]),
        ("share", 0.5, [1, 0, 0, 0, 0]),
        ("mass", 0.5, [1, 0, 0, 0, 0]),  # reached exactly
        ("mass", 0.6, [1, 1, 1, 0, 0]),  # one class of two votes would do, but which?
        ("mass", 1.0, [1, 1, 1, 1, 0]),
    ],
)
def test_a_row_of_ten_votes(rule, threshold, expected):
    found = candidate_sets(np.array([[5, 2, 2, 1, 0]]), rule, threshold)
    assert found.astype(int).tolist() == [expected]


def test_a_share_that_rounding_misses_is_reached():
    """7 of 100 is 0.07, although 0.07 * 100 is more than 7 in floating point."""
    votes = np.array([[93, 7]])
    assert candidate_sets(votes, "share", 0.07).all()
    assert candidate_sets(votes[:, ::-1], "mass", 0.93).tolist() == [[False, True]]


def test_another_rule_and_rows_without_votes_are_refused():
    with pytest.raises(ValueError, match=r"unknown rule for .* 'random'; known are count, share"):
        candidate_sets(np.ones((2, 3)), "random", 0.5)
    with pytest.raises(ValueError, match="1 rows have no vote for any class, first row 1"):
        candidate_sets(np.array([[1, 0], [0, 0]]), "count", 1)


def test_names_of_the_rules():
    assert CANDIDATE_RULES == ("count", "share", "mass", "random", "model")


@given(
    arrays(np.float32, (4, 5), elements=st.floats(-5, 5, width=32)),
    st.integers(1, 5),
    arrays(np.int64, 4, elements=st.integers(0, 4)),
)
def test_candidates_from_scores_are_the_highest_and_the_label(scores, k, labels):
    found = candidates_from_scores(scores, k, labels)
    for row, label, candidates in zip(scores.tolist(), labels.tolist(), found, strict=True):
        highest = sorted(range(5), key=lambda c: (-row[c], c))[:k]
        assert set(np.flatnonzero(candidates)) == {*highest, label}


@pytest.mark.parametrize("k", [0, 4])
def test_an_impossible_k_is_refused(k):
    with pytest.raises(ValueError, match="it lies from 1 to the number of classes 3"):
        candidates_from_scores(np.zeros((2, 3)), k, np.array([0, 1]))


@pytest.mark.parametrize("flip_rate", [0.0, 0.1, 0.5, 1.0])
def test_random_candidates_have_the_stated_frequencies(flip_rate):
    samples, classes = 20_000, 7
    labels = np.arange(samples) % classes
    found = random_candidates(labels, classes, flip_rate, seed=3)
    assert found[np.arange(samples), labels].all()
    wrong = found[np.arange(classes) != labels[:, None]].reshape(samples, classes - 1)
    four_errors = 4 * np.sqrt(flip_rate * (1 - flip_rate) / samples)
    assert np.abs(wrong.mean(axis=0) - flip_rate).max() <= four_errors
    # Independent of each other: the label stands alone with probability (1 - q)^(K - 1).
    alone = (1 - flip_rate) ** (classes - 1)
    found_alone = (found.sum(axis=1) == 1).mean()
    assert abs(found_alone - alone) <= 4 * np.sqrt(alone * (1 - alone) / samples)


def test_random_candidates_follow_their_seed_alone():
    labels = np.arange(50) % 5
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    one, same, other = (random_candidates(labels, 5, 0.4, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_statistics_equal_a_loop():
    generator = np.random.default_rng(5)
    labels = generator.integers(0, 6, 200)  # no image of class 6
    candidates = generator.random((200, 7)) < 0.4
    table = candidate_statistics(candidates, labels)
    assert table.index.tolist() == [*BASIC_EXPRESSIONS, "all"]
    for number, name in enumerate(BASIC_EXPRESSIONS[:6]):
        sets = [set(np.flatnonzero(candidates[i])) for i in range(200) if labels[i] == number]
        others = [
            number in np.flatnonzero(candidates[i]) for i in range(200) if labels[i] != number
        ]
        row = table.loc[name]
        assert row["images"] == len(sets)
        assert row["mean_size"] == pytest.approx(sum(map(len, sets)) / len(sets))
        assert row["largest_size"] == max(map(len, sets))
        assert row["single"] == pytest.approx(sum(len(s) == 1 for s in sets) / len(sets))
        assert row["coverage"] == pytest.approx(sum(number in s for s in sets) / len(sets))
        assert row["intruder"] == pytest.approx(sum(others) / len(others))
    held = [bool(candidates[i, labels[i]]) for i in range(200)]
    last = table.loc["all"]
    assert last["images"] == 200
    assert last["coverage"] == pytest.approx(sum(held) / 200)
    assert last["mean_size"] == pytest.approx(candidates.sum() / 200)
    assert last["intruder"] == pytest.approx((candidates.sum() - sum(held)) / (200 * 6))
    assert table.loc["neutral", "images"] == 0
    assert table.loc["neutral", ["mean_size", "single", "coverage"]].isna().all()


def test_statistics_of_sets_that_are_the_labels():
    labels = np.arange(14) % 7
    table = candidate_statistics(np.eye(7, dtype=bool)[labels], labels)
    assert (table[["mean_size", "largest_size", "single", "coverage"]] == 1).all(axis=None)
    assert (table["intruder"] == 0).all()
