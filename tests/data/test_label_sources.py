"""Labels of people and their twins, against annotators followed one by one."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlalib.data.label_sources import (
    VOTE_SOURCES,
    annotators_in_order,
    matched_labels,
    transition_table,
    vote_labels,
)

IMAGES = 400


@pytest.fixture(scope="module")
def panel():
    """Votes for seven classes, up to ten an image; labels by the most votes; names."""
    generator = np.random.default_rng(0)
    shares = generator.dirichlet(np.full(7, 0.4), IMAGES)
    votes = np.array([generator.multinomial(n, s) for n, s in zip(number(), shares, strict=True)])
    names = pd.Series([f"fer{n:07d}" for n in range(IMAGES)])
    return votes, votes.argmax(axis=1), names


def number() -> np.ndarray:
    return np.random.default_rng(1).integers(4, 11, IMAGES)


def one_by_one(votes: np.ndarray, name: str, seed: int) -> list[int]:
    """An image's annotators in the order that the docstring tells, without arrays."""
    digest = hashlib.sha512(f"{seed}:{name}".encode()).hexdigest()
    voted = [label for label, count in enumerate(votes) for _ in range(count)]
    keys = [int(digest[8 * j : 8 * j + 8], 16) for j in range(len(voted))]
    return [voted[j] for j in sorted(range(len(voted)), key=keys.__getitem__)]


def test_annotators_stand_in_the_order_of_their_keys(panel):
    votes, _, names = panel
    found = annotators_in_order(votes, names, seed=3)
    for row, counts, name in zip(found, votes, names, strict=True):
        assert [label for label in row if label >= 0] == one_by_one(counts, name, 3)
        assert (row[counts.sum() :] == -1).all()


def test_each_source_asks_as_many_annotators_as_it_says(panel):
    votes, labels, names = panel
    for source, asked in (("random_vote", 1), ("worst_of_three", 3), ("worst_vote", 10)):
        found = vote_labels(votes, labels, names, source, seed=0)
        for given_label, counts, label, name in zip(found, votes, labels, names, strict=True):
            heard = one_by_one(counts, name, 0)[:asked]
            against = [vote for vote in heard if vote != label]
            expected = heard[0] if source == "random_vote" else (against or [label])[0]
            assert given_label == expected


def test_worst_vote_is_wrong_wherever_one_annotator_contradicts(panel):
    votes, labels, names = panel
    worst = vote_labels(votes, labels, names, "worst_vote", seed=0)
    assert np.array_equal(worst == labels, votes.max(axis=1) == votes.sum(axis=1))
    assert (votes[np.arange(IMAGES), worst] > 0).all()


def test_random_votes_have_the_shares_of_the_votes():
    """One image under many names: each annotator is as likely to be asked as the next."""
    names = pd.Series([str(n) for n in range(20_000)])
    votes = np.tile([1, 0, 6, 3], (len(names), 1))
    drawn = vote_labels(votes, np.full(len(names), 2), names, "random_vote", seed=0)
    assert np.bincount(drawn, minlength=4) / len(names) == pytest.approx(
        [0.1, 0, 0.6, 0.3], abs=0.01
    )
    three = vote_labels(votes, np.full(len(names), 2), names, "worst_of_three", seed=0)
    all_right = 6 / 10 * 5 / 9 * 4 / 8
    assert (three == 2).mean() == pytest.approx(all_right, abs=0.01)


@pytest.mark.parametrize("source", VOTE_SOURCES)
def test_labels_hang_on_seed_and_name_alone(panel, source):
    votes, labels, names = panel
    whole = vote_labels(votes, labels, names, source, seed=5)
    some = np.arange(IMAGES)[::-3]
    part = vote_labels(votes[some], labels[some], names.iloc[some], source, seed=5)
    assert np.array_equal(part, whole[some])
    assert not np.array_equal(whole, vote_labels(votes, labels, names, source, seed=6))


def test_who_votes_for_no_class_gives_no_label():
    votes, names = np.array([[0, 0, 0], [0, 2, 0]]), pd.Series(["a", "b"])
    for source in VOTE_SOURCES:
        assert vote_labels(votes, np.array([2, 1]), names, source, 0).tolist() == [2, 1]
    with pytest.raises(ValueError, match="an image has 17 annotators; an order is drawn of at mo"):
        annotators_in_order(np.array([[9, 8]]), pd.Series(["a"]), 0)


def test_transitions_are_counted_image_by_image(panel):
    votes, labels, names = panel
    found = vote_labels(votes, labels, names, "random_vote", seed=0)
    expected = [[0] * 7 for _ in range(7)]
    for label, given_label in zip(labels, found, strict=True):
        expected[label][given_label] += 1
    table = transition_table(labels, found, 7)
    assert table.to_numpy().tolist() == expected
    assert table.to_numpy().tolist() == expected
    assert table.at["fear", "surprise"] == expected[1][0]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=200),
    st.integers(0, 100),
)
def test_twin_has_its_sources_matrix_cell_by_cell(pairs, seed):
    labels, given_labels = np.array(pairs).T
    twin = matched_labels(labels, given_labels, seed)
    cells = {(a, b): pairs.count((a, b)) for a in range(7) for b in range(7)}
    found = list(zip(labels.tolist(), twin.tolist(), strict=True))
    assert {cell: found.count(cell) for cell in cells} == cells
    assert np.array_equal(twin, matched_labels(labels, given_labels, seed))


def test_twin_knows_nothing_of_the_image(panel):
    """Annotators contradict the label where they disagree; over many twins, all images alike."""
    votes, labels, names = panel
    given_labels = vote_labels(votes, labels, names, "random_vote", seed=0)
    agreement = votes.max(axis=1) / votes.sum(axis=1)
    chosen = labels == np.bincount(labels).argmax()
    wrong = given_labels[chosen] != labels[chosen]
    twins = np.array([matched_labels(labels, given_labels, seed)[chosen] for seed in range(2000)])
    flipped = (twins != labels[chosen]).mean(axis=0)  # of each image
    assert np.corrcoef(wrong, agreement[chosen])[0, 1] < -0.3
    assert flipped == pytest.approx(np.full(chosen.sum(), wrong.mean()), abs=0.06)
    assert abs(np.corrcoef(flipped, agreement[chosen])[0, 1]) < 0.35
    assert len({twin.tobytes() for twin in twins}) == 2000
