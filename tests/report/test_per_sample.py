"""Numbers of one epoch's records, against plain loops and cases made by hand."""

import numpy as np
import pandas as pd
import pytest
from made_runs import OWN, random_samples
from scipy.stats import rankdata

from nlalib.report.per_sample import (
    ambiguity,
    detection,
    disambiguation,
    is_minority,
    mean_weights,
    memorisation,
    minority_shares,
    relabelling,
    score_table,
)


def test_minority_by_hand():
    labels = np.array([0] * 5 + [1] * 3 + [2] * 2 + [3] * 2)
    # A quarter of twelve is three: a class with just its even share is no minority.
    assert is_minority(labels, 4).tolist() == [False] * 8 + [True] * 4
    assert not is_minority(np.arange(7), 7).any()
    # Classes that do not occur still count among the K.
    assert not is_minority(np.array([0, 0, 0, 1]), 7).any()


def test_memorisation_counts_as_a_plain_loop_does():
    samples = random_samples()
    counts = dict.fromkeys(("given", "true", "clean", "as_given", "as_true", "flipped"), 0)
    for row in samples.itertuples():
        counts["given"] += row.predicted == row.label
        counts["true"] += row.predicted == row.true_label
        counts["flipped"] += row.is_flipped
        counts["clean"] += not row.is_flipped and row.predicted == row.label
        counts["as_given"] += row.is_flipped and row.predicted == row.label
        counts["as_true"] += row.is_flipped and row.predicted == row.true_label
    flipped = counts["flipped"]
    assert memorisation(samples) == pytest.approx(
        {
            "accuracy_given": counts["given"] / 300,
            "accuracy_true": counts["true"] / 300,
            "clean_correct": counts["clean"] / (300 - flipped),
            "flipped_as_given": counts["as_given"] / flipped,
            "flipped_as_true": counts["as_true"] / flipped,
        }
    )


def test_without_flipped_labels_there_is_nothing_to_find():
    clean = random_samples().assign(is_flipped=False)
    unknown = clean.drop(columns=["is_flipped", "true_label"])
    for samples in (clean, unknown):
        assert list(memorisation(samples)) == ["accuracy_given"]
        assert detection(samples, OWN) == {}


def pairs_won(flipped: np.ndarray, suspicion: np.ndarray) -> float:
    """AUROC by its definition: over all pairs, ties by half."""
    difference = suspicion[flipped][:, None] - suspicion[~flipped][None, :]
    return ((difference > 0) + 0.5 * (difference == 0)).mean()


def test_detection_counts_pairs():
    samples = random_samples().assign(
        weight=lambda table: table["weight"].round(1),  # with ties
        uncertainty=lambda table: table["is_flipped"] * 1.0,
        attention=lambda table: 1.0 - table["is_flipped"],
    )
    found = detection(samples, OWN)
    flipped = samples["is_flipped"].to_numpy()
    suspicions = {
        "low_weight": -samples["weight"],
        "high_loss": samples["cross_entropy"],
        "low_confidence": -samples["p_gt"],
        "low_margin": samples["p_nn"] - samples["p_gt"],
        "high_focal_weight": (1 - samples["p_gt"]) ** 2,
    }
    for name, suspicion in suspicions.items():
        expected = pairs_won(flipped, suspicion.to_numpy())
        assert found[f"auroc_{name}"] == pytest.approx(expected), name
    assert found["auroc_low_attention"] == found["auroc_high_uncertainty"] == 1
    within, weights = [], []
    for label in range(3):
        own = (samples["label"] == label).to_numpy()
        within.append(pairs_won(flipped[own], -samples["weight"].to_numpy()[own]))
        weights.append(flipped[own].sum())
    expected = sum(a * w for a, w in zip(within, weights, strict=True)) / sum(weights)
    assert found["auroc_within_label_low_weight"] == pytest.approx(expected)


def test_confidence_and_focal_weight_rank_as_the_loss_does():
    found = detection(random_samples(), OWN)
    assert found["auroc_low_confidence"] == pytest.approx(found["auroc_high_loss"])
    assert found["auroc_high_focal_weight"] == pytest.approx(found["auroc_high_loss"])


def test_detector_of_rare_labels_alone_is_chance_within_a_label():
    samples = random_samples()
    by_label = samples["label"].map({0: 3.0, 1: 2.0, 2: 1.0})
    found = detection(samples.assign(weight=by_label), OWN)
    assert found["auroc_within_label_low_weight"] == 0.5


def test_label_with_flipped_samples_alone_takes_no_part():
    samples = random_samples()
    spoilt = samples.assign(is_flipped=samples["is_flipped"] | (samples["label"] == 2))
    assert 0 <= detection(spoilt, OWN)["auroc_within_label_high_loss"] <= 1


def test_ambiguity_is_the_correlation_of_ranks_of_unflipped_samples():
    samples = random_samples()
    samples.loc[:9, "vote_entropy"] = np.nan
    found = ambiguity(samples, OWN)
    kept = samples[~samples["is_flipped"] & (samples.index > 9)]
    ranks = [rankdata(kept[name]) for name in ("weight", "vote_entropy")]
    expected = np.corrcoef(*ranks)[0, 1]
    assert found["entropy_correlation_weight"] == pytest.approx(expected)
    ordered = samples.assign(weight=samples["vote_entropy"] ** 2, p_gt=-samples["vote_entropy"])
    assert ambiguity(ordered, OWN)["entropy_correlation_weight"] == pytest.approx(1)
    assert ambiguity(ordered, OWN)["entropy_correlation_confidence"] == pytest.approx(-1)
    assert ambiguity(samples.drop(columns="vote_entropy"), OWN) == {}
    assert np.isnan(ambiguity(samples.assign(weight=1.0), OWN)["entropy_correlation_weight"])


def test_mean_weights_by_a_plain_loop():
    samples = random_samples()
    sums = {True: [], False: []}
    for row in samples.itertuples():
        sums[row.is_flipped].append(row.weight)
    assert mean_weights(samples) == pytest.approx(
        {
            "mean_weight": np.mean(sums[True] + sums[False]),
            "mean_weight_of_flipped": np.mean(sums[True]),
            "mean_weight_of_clean": np.mean(sums[False]),
        }
    )
    assert set(mean_weights(samples.assign(is_flipped=False))) == {"mean_weight"}
    assert mean_weights(samples.drop(columns="weight")) == {}


def test_minority_shares_by_hand():
    samples = random_samples(20).assign(
        is_minority=np.arange(20) >= 15, weight=np.arange(20.0), cross_entropy=1.0
    )
    found = minority_shares(samples, OWN)
    assert found["minority_share_of_samples"] == 0.25
    # 15 + ... + 19 of 0 + ... + 19.
    assert found["minority_share_of_weight"] == pytest.approx(85 / 190)
    assert found["minority_share_of_top_weight"] == 1
    assert found["minority_share_of_loss"] == pytest.approx(0.25)
    # NLA multiplies by 1 + w.
    nla = minority_shares(samples, OWN, adds_to_one=True)
    assert nla["minority_share_of_weight"] == pytest.approx((85 + 5) / (190 + 20))
    assert nla["minority_share_of_top_weight"] == 1
    assert nla["minority_share_of_loss"] == found["minority_share_of_loss"]
    without = minority_shares(samples.drop(columns="weight"), OWN)
    assert not any(name.endswith("_weight") and "focal" not in name for name in without)


def test_scores_are_those_recorded():
    samples = random_samples().assign(attention=0.5)
    table = score_table(samples, OWN)
    assert set(table) == {"loss", "confidence", "margin", "focal_weight", "weight", "attention"}
    assert table["margin"].iloc[0] == samples["p_gt"].iloc[0] - samples["p_nn"].iloc[0]


def test_disambiguation_by_hand():
    samples = pd.DataFrame(
        {
            "label": [0, 1, 2, 3, 4],
            "true_label": [0, 1, 0, 3, 4],
            "identified": [0.0, 1.0, 2.0, 5.0, 6.0],
            "candidates": [1, 2, 2, 4, 4],
        }
    )
    assert disambiguation(samples) == pytest.approx(
        {
            "disambiguated": 2 / 4,
            "disambiguated_by_chance": (1 / 2 + 1 / 2 + 1 / 4 + 1 / 4) / 4,
            "disambiguated_share": 4 / 5,
            "disambiguated_true": 1 / 4,
        }
    )
    assert "disambiguated_true" not in disambiguation(samples.drop(columns="true_label"))
    assert disambiguation(samples.assign(candidates=1)) == {}
    assert disambiguation(samples.drop(columns=["identified", "candidates"])) == {}


def test_relabelling_by_hand():
    samples = pd.DataFrame(
        {
            "label": [0, 1, 2, 3, 4, 5],
            "true_label": [0, 1, 0, 0, 4, 0],
            "stored_label": [0.0, 2.0, 0.0, 1.0, 4.0, 5.0],
            "is_flipped": [False, False, True, True, False, True],
        }
    )
    assert relabelling(samples) == pytest.approx(
        {
            "relabelled": 3 / 6,
            "relabelled_flipped": 2 / 3,
            "relabelled_clean": 1 / 3,
            "relabelled_to_true": 1 / 3,
            "stored_true": 3 / 6,
            "given_true": 3 / 6,
        }
    )
    unknown = samples.drop(columns=["true_label", "is_flipped"])
    assert relabelling(unknown) == {"relabelled": 3 / 6}
    assert relabelling(samples.drop(columns="stored_label")) == {}
    kept = relabelling(samples.assign(stored_label=samples["label"]))
    assert kept["relabelled"] == 0
    assert np.isnan(kept["relabelled_to_true"])
    assert kept["stored_true"] == kept["given_true"] == 3 / 6


def test_minority_is_counted_among_the_highest_tenth_and_focal_weight_is_squared():
    """Of 20 samples the two highest: with more of them others would take part."""
    p_gt = np.arange(20) / 20  # the first are the hardest
    samples = random_samples(20).assign(
        is_minority=np.isin(np.arange(20), (0, 1, 18, 19)), weight=np.arange(20.0), p_gt=p_gt
    )
    found = minority_shares(samples, OWN)
    assert found["minority_share_of_top_weight"] == 1
    assert found["minority_share_of_top_focal_weight"] == 1
    squares = (1 - p_gt) ** 2
    expected = squares[[0, 1, 18, 19]].sum() / squares.sum()
    assert found["minority_share_of_focal_weight"] == pytest.approx(expected)
