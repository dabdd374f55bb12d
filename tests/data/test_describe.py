import math
from itertools import permutations

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from scipy.stats import entropy

from nlalib.data.describe import (
    annotator_agreement,
    class_counts,
    imbalance_ratio,
    rank_ambiguous_pairs,
    retest_agreement,
    vote_entropy,
    vote_shares,
    vote_shares_by_label,
)
from nlalib.data.index import VOTE_COLUMNS, VOTE_NAMES
from nlalib.data.labels import EXPRESSIONS


def make_votes(*rows: dict[str, int]) -> pd.DataFrame:
    return pd.DataFrame(
        [[row.get(name, 0) for name in VOTE_NAMES] for row in rows], columns=VOTE_COLUMNS
    )


def make_index(*rows: tuple[str, str, dict[str, int]]) -> pd.DataFrame:
    index = make_votes(*[votes for _, _, votes in rows])
    index["split"] = [split for split, _, _ in rows]
    index["label"] = [EXPRESSIONS.index(label) for _, label, _ in rows]
    return index


some_votes = st.lists(
    st.lists(st.integers(0, 12), min_size=10, max_size=10), min_size=1, max_size=15
).map(lambda rows: pd.DataFrame(rows, columns=VOTE_COLUMNS))


def test_class_counts_keep_empty_classes_and_the_order():
    index = make_index(
        ("test", "fear", {}), ("train", "anger", {}), ("train", "anger", {}), ("train", "fear", {})
    )
    counts = class_counts(index, 7)
    assert list(counts.columns) == ["train", "test"]
    assert list(counts.index) == list(EXPRESSIONS[:7])
    assert counts.loc["anger"].to_dict() == {"train": 2, "test": 0}
    assert counts.loc["fear"].to_dict() == {"train": 1, "test": 1}
    assert counts.to_numpy().sum() == 4
    assert len(class_counts(index, 8)) == 8


def test_imbalance_ratio():
    assert imbalance_ratio(pd.Series({"fear": 4, "anger": 10, "disgust": 2})) == 5.0
    with pytest.raises(ValueError, match=r"no image of \['fear'\]"):
        imbalance_ratio(pd.Series({"fear": 0, "anger": 10}))


def test_entropy_by_hand():
    votes = make_votes(
        {"fear": 10},
        {"fear": 5, "anger": 5},
        {"fear": 4, "anger": 4, "unknown": 2},
        {"not_a_face": 10},
    )
    found = vote_entropy(votes, "expressions")
    assert list(found[:3]) == pytest.approx([0.0, math.log(2), math.log(2)])
    assert math.isnan(found[3])
    found = vote_entropy(votes, "all")
    by_hand = -2 * 0.4 * math.log(0.4) - 0.2 * math.log(0.2)
    assert list(found) == pytest.approx([0.0, math.log(2), by_hand, 0.0])


@pytest.mark.parametrize(("columns", "width"), [("expressions", 8), ("all", 10)])
@settings(max_examples=80, deadline=None)
@given(votes=some_votes)
def test_entropy_agrees_with_scipy_and_stays_in_range(columns, width, votes):
    found = vote_entropy(votes, columns)
    shares = vote_shares(votes, columns)
    for row in range(len(votes)):
        counts = votes.iloc[row, :width].to_numpy()
        if counts.sum() == 0:
            assert math.isnan(found[row])
            assert shares.iloc[row].isna().all()
            continue
        assert found[row] == pytest.approx(entropy(counts), abs=1e-12)
        assert 0 <= found[row] <= math.log(width) + 1e-12
        assert shares.iloc[row].sum() == pytest.approx(1)


def alpha_by_pairs(rows: list[list[int]]) -> float:
    """Krippendorff 2011, nominal: 1 - observed over expected disagreement, pair by pair."""
    units = [[k for k, count in enumerate(row) for _ in range(count)] for row in rows]
    units = [unit for unit in units if len(unit) >= 2]
    total = sum(len(unit) for unit in units)
    observed = sum(
        sum(a != b for a, b in permutations(unit, 2)) / (len(unit) - 1) for unit in units
    )
    everyone = [value for unit in units for value in unit]
    expected = sum(a != b for a, b in permutations(everyone, 2)) / (total - 1)
    return 1 - observed / expected


def test_agreement_by_hand():
    perfect = make_votes({"fear": 10}, {"anger": 10}, {"neutral": 10})
    assert annotator_agreement(perfect) == pytest.approx(1.0)
    assert annotator_agreement(perfect, "all") == pytest.approx(1.0)
    # Two annotators who never agree: worse than chance.
    assert annotator_agreement(make_votes(*[{"fear": 1, "anger": 1}] * 10)) < 0


def test_agreement_counts_what_columns_say():
    votes = make_votes({"fear": 8, "unknown": 2}, {"anger": 10}, {"neutral": 9, "not_a_face": 1})
    assert annotator_agreement(votes, "expressions") == pytest.approx(1.0)
    assert annotator_agreement(votes, "all") < 1
    # One vote, or none, says nothing about agreement.
    silent = make_votes({"surprise": 1, "not_a_face": 9}, {"not_a_face": 10})
    assert annotator_agreement(pd.concat([votes, silent])) == pytest.approx(1.0)


def test_agreement_agrees_with_pairs_of_annotators():
    rows = np.random.default_rng(0).multinomial(6, [0.4, 0.3, 0.1, 0.1, 0.1], size=12)
    votes = make_votes(*[dict(zip(VOTE_NAMES, map(int, row), strict=False)) for row in rows])
    assert annotator_agreement(votes) == pytest.approx(alpha_by_pairs(rows.tolist()))


def test_agreement_needs_two_classes():
    with pytest.raises(ValueError, match=r"two or more classes, found \['fear'\]"):
        annotator_agreement(make_votes({"fear": 10}, {"fear": 10, "unknown": 3}))
    with pytest.raises(ValueError, match="on 0 images with two or more votes"):
        annotator_agreement(make_votes({"fear": 1}, {"anger": 1}))


def test_vote_shares_by_label_by_hand():
    index = make_index(
        ("train", "fear", {"fear": 10}),
        # Twenty votes weigh no more than ten: the mean is over images.
        ("train", "fear", {"fear": 12, "surprise": 8}),
        ("train", "anger", {"anger": 5, "unknown": 5}),
    )
    shares = vote_shares_by_label(index, 7)
    assert shares.shape == (7, 8)
    assert shares.loc["fear"].to_dict() == pytest.approx(
        dict.fromkeys(EXPRESSIONS, 0.0) | {"fear": 0.8, "surprise": 0.2}
    )
    assert shares.loc["anger", "anger"] == 1.0
    assert shares.loc["disgust"].isna().all()
    shares = vote_shares_by_label(index, 8, "all")
    assert shares.shape == (8, 10)
    assert shares.loc["anger", "unknown"] == 0.5


def test_ambiguous_pairs_are_ranked_by_both_directions():
    shares = pd.DataFrame(
        [[0.7, 0.2, 0.1], [0.4, 0.6, 0.0], [0.1, 0.1, 0.8]],
        index=["fear", "anger", "sadness"],
        columns=["fear", "anger", "sadness"],
    )
    pairs = rank_ambiguous_pairs(shares)
    assert list(pairs["first"] + "-" + pairs["second"]) == [
        "fear-anger",
        "fear-sadness",
        "anger-sadness",
    ]
    assert list(pairs["mean_share"]) == pytest.approx([0.3, 0.1, 0.05])
    assert pairs.loc[0, "first_to_second"] == 0.2
    assert pairs.loc[0, "second_to_first"] == 0.4


def test_pairs_cover_seven_classes_once():
    index = make_index(*[("train", name, {name: 10}) for name in EXPRESSIONS])
    assert len(rank_ambiguous_pairs(vote_shares_by_label(index, 7))) == 7 * 6 // 2
    assert len(rank_ambiguous_pairs(vote_shares_by_label(index, 8, "all"))) == 8 * 7 // 2


def test_retest_of_three_images_by_hand():
    first = make_votes({"fear": 10}, {"fear": 6, "anger": 4}, {"unknown": 7, "fear": 3})
    second = make_votes({"fear": 8, "anger": 2}, {"anger": 9, "fear": 1}, {"unknown": 10})
    table = retest_agreement(first, second)
    assert list(table.index) == ["all", "fear"]
    assert table["images"].to_dict() == {"all": 3, "fear": 2}
    assert table["same_label"].to_dict() == pytest.approx({"all": 2 / 3, "fear": 1 / 2})
    # Half the sum of differences: 0.2, 0.5, 0.3.
    assert table["total_variation"].to_dict() == pytest.approx({"all": 1 / 3, "fear": 0.35})
    # Labels fear, fear, none against fear, anger, none: 2/3 agree, 1/3 would by chance.
    assert table.at["all", "kappa"] == pytest.approx((2 / 3 - 1 / 3) / (1 - 1 / 3))
    assert math.isnan(table.at["fear", "kappa"])


def test_retest_of_the_same_votes_is_perfect():
    votes = make_votes({"fear": 10}, {"anger": 6, "fear": 4}, {"happiness": 5, "neutral": 3})
    everything = retest_agreement(votes, votes).loc["all"]
    perfect = {"same_label": 1, "total_variation": 0, "kappa": 1, "entropy_rank_correlation": 1}
    assert everything[list(perfect)].to_dict() == pytest.approx(perfect)
    with pytest.raises(ValueError, match="3 and 2 rows of votes"):
        retest_agreement(votes, votes[:2])


def test_wrong_arguments_are_refused():
    votes = make_votes({"fear": 10})
    with pytest.raises(ValueError, match=r"unknown columns 'ten'.*expressions, all"):
        vote_entropy(votes, "ten")
    with pytest.raises(ValueError, match=r"lack the columns \['votes_fear'\]"):
        vote_shares(votes.drop(columns="votes_fear"))


def test_retest_entropies_are_over_all_ten_columns():
    """Three images by the share of `unknown` alone: over expressions all would be unanimous."""
    first = make_votes({"fear": 10}, {"fear": 9, "unknown": 1}, {"fear": 6, "unknown": 4})
    second = make_votes({"fear": 5, "unknown": 5}, {"fear": 9, "unknown": 1}, {"anger": 10})
    found = retest_agreement(first, second).at["all", "entropy_rank_correlation"]
    assert found == pytest.approx(-1)
