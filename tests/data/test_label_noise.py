"""Label noise and long tails: exact counts, the test set untouched, seeds that differ."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlalib.data.label_noise import long_tail_counts, long_tailed, noisy_labels

LABELS = st.lists(st.integers(0, 6), max_size=300).map(lambda given: np.array(given, int))
RATES = st.floats(0, 1, exclude_max=True)


def counts_of(labels, classes: int = 7) -> list[int]:
    return [int((np.asarray(labels) == label).sum()) for label in range(classes)]


def index_of(counts: dict[str, list[int]]) -> pd.DataFrame:
    """An index with so many images of each class in each split, mixed."""
    rows = [
        (split, label)
        for split in counts
        for label, n in enumerate(counts[split])
        for _ in range(n)
    ]
    rows = [rows[n] for n in np.random.default_rng(0).permutation(len(rows))]
    split, label = zip(*rows, strict=True)
    names = [f"image{n:04d}" for n in range(len(rows))]
    return pd.DataFrame({"image_id": names, "split": split, "label": label}, index=names)


# Label noise.


@given(LABELS, RATES, st.integers(0, 5), st.sampled_from(["symmetric", "pair"]))
def test_share_of_each_class_changes_and_always_to_another_class(labels, rate, seed, kind):
    noisy = noisy_labels(labels, rate, 7, seed, kind)
    assert noisy.dtype == np.int64
    assert noisy.shape == labels.shape
    assert set(noisy.tolist()) <= set(range(7))
    for label in range(7):
        mine = labels == label
        assert (noisy[mine] != label).sum() == round(rate * int(mine.sum()))
    if kind == "pair":
        changed = noisy != labels
        successor = [1, 2, 3, 4, 5, 6, 0]
        assert noisy[changed].tolist() == [successor[label] for label in labels[changed]]


@given(LABELS, RATES, st.integers(0, 5))
def test_given_labels_stay_as_they_are_and_a_seed_repeats(labels, rate, seed):
    before = labels.copy()
    first = noisy_labels(labels, rate, 7, seed)
    np.random.default_rng().random()
    assert np.array_equal(first, noisy_labels(labels, rate, 7, seed))
    assert np.array_equal(labels, before)


def test_symmetric_noise_reaches_each_other_class_alike():
    """12,000 wrong labels over 6 classes: 2,000 each, within five standard deviations."""
    noisy = noisy_labels(np.full(20_000, 3), 0.6, 7, seed=1)
    counts = counts_of(noisy)
    assert counts[3] == 8_000
    deviation = (12_000 * (1 / 6) * (5 / 6)) ** 0.5
    assert all(abs(counts[label] - 2_000) < 5 * deviation for label in (0, 1, 2, 4, 5, 6))


def test_seeds_and_kinds_differ():
    labels = np.arange(700) % 7
    changed = {
        tuple(np.flatnonzero(noisy_labels(labels, 0.2, 7, seed, kind) != labels))
        for seed in (0, 1, 2)
        for kind in ("symmetric", "pair")
    }
    assert len(changed) == 6


def test_more_noise_keeps_the_wrong_images_of_less():
    """Which images are hit is drawn before how many, so rates compare on nested sets."""
    labels = np.arange(700) % 7
    hit = [set(np.flatnonzero(noisy_labels(labels, r, 7, 0) != labels)) for r in (0.1, 0.2)]
    assert len(hit[0]) < len(hit[1])


# Long tails.


AVAILABLE = st.lists(st.integers(20, 2000), min_size=7, max_size=7)


@given(AVAILABLE, st.floats(1, 15))
def test_counts_fall_exponentially_from_the_most_frequent_class(available, factor):
    counts = long_tail_counts(np.array(available), factor)
    ranked = sorted(range(7), key=lambda label: (-available[label], label))
    kept = [int(counts[label]) for label in ranked]
    assert all(n <= available[label] for n, label in zip(kept, ranked, strict=True))
    assert kept == sorted(kept, reverse=True)
    # As many as possible: some class is used up, within the rounding.
    assert any(available[label] - n <= 1 for n, label in zip(kept, ranked, strict=True))
    # Each step divides by the same ratio; rounding moves a count by a half.
    for rank in range(7):
        assert kept[rank] == pytest.approx(kept[0] / factor ** (rank / 6), abs=1)


@given(AVAILABLE, st.floats(1, 15), st.integers(60, 140))
def test_number_of_images_is_the_one_asked_for(available, factor, images):
    assert abs(long_tail_counts(np.array(available), factor, images).sum() - images) <= 4


def test_long_tail_by_hand():
    """Factor 100 over seven classes: a step is 100 ** (1 / 6), about 2.15."""
    available = np.array([100, 1000, 1000, 1000, 1000, 1000, 1000])
    found = long_tail_counts(available, 100.0)
    assert found.tolist() == [10, 1000, 464, 215, 100, 46, 22]
    assert long_tail_counts(available, 1.0).tolist() == [100] * 7
    assert long_tail_counts(available, 1.0, 70).tolist() == [10] * 7


def test_impossible_long_tails_say_what_is_possible():
    with pytest.raises(ValueError, match=r"71 images with imbalance factor 1 .* at most 70 are po"):
        long_tail_counts(np.full(7, 10), 1.0, 71)
    with pytest.raises(ValueError, match="a class would keep no image"):
        long_tail_counts(np.full(7, 10), 100.0)
    index = index_of({"train": [9, 9, 9, 0, 9, 9, 0], "test": [1] * 7})
    with pytest.raises(ValueError, match=r"no training image of .*, .*: a long tail needs all cl"):
        long_tailed(index, 2.0, 7, seed=0)


def test_long_tailed_index_keeps_its_order_and_all_of_the_other_splits():
    available = [60, 50, 40, 50, 60, 70, 80]
    index = index_of({"train": available, "test": [5] * 7, "validation": [2] * 7})
    tail = long_tailed(index, 10.0, 7, seed=1, images=100)
    assert tail.index.tolist() == [name for name in index.index if name in set(tail.index)]
    pd.testing.assert_frame_equal(tail, index.loc[tail.index])
    is_train = tail["split"] == "train"
    wanted = long_tail_counts(np.array(available), 10.0, 100)
    assert counts_of(tail.loc[is_train, "label"]) == wanted.tolist()
    assert (~is_train).sum() == 49
    assert tail.equals(long_tailed(index, 10.0, 7, seed=1, images=100))
    assert set(tail.index) != set(long_tailed(index, 10.0, 7, seed=2, images=100).index)
