"""Wrong labels by the annotators' agreement and by true class."""

import numpy as np
import pytest
from made_runs import OWN, random_samples

from nlalib.report.per_sample import detection
from nlalib.report.wrong_labels import by_agreement, flipped_shares, true_recalls


def test_by_agreement_is_detection_in_each_bin():
    votes = np.random.default_rng(1).choice([3, 5, 8, 10], 300)
    samples = random_samples().assign(leading_votes=votes, predicted=0)
    samples.loc[votes == 3, "is_flipped"] = False
    found = {**by_agreement(samples, OWN), **flipped_shares(samples)}
    for name, count in {"10": 10, "7_to_9": 8, "4_to_6": 5}.items():
        inside = samples[votes == count]
        flipped = inside[inside["is_flipped"]]
        assert found[f"flipped_share_{name}"] == pytest.approx(len(flipped) / len(inside))
        as_given = (flipped["label"] == 0).mean()
        assert found[f"flipped_as_given_{name}"] == pytest.approx(as_given)
        within = detection(inside, OWN)["auroc_within_label_low_weight"]
        assert found[f"auroc_within_label_low_weight_{name}"] == pytest.approx(within)
    assert [name for name in found if name.endswith("below_4")] == ["flipped_share_below_4"]
    assert found["flipped_share_below_4"] == 0
    assert by_agreement(samples.drop(columns="leading_votes"), OWN) == {}
    assert by_agreement(samples.assign(is_flipped=False), OWN) == {}


def test_true_recalls_by_a_plain_loop():
    samples = random_samples().assign(predicted=np.arange(300) % 3)
    found = true_recalls(samples, ["joy", "fear", "anger"])
    for k, name in enumerate(["joy", "fear", "anger"]):
        hits = [
            p == k
            for p, t in zip(samples["predicted"], samples["true_label"], strict=True)
            if t == k
        ]
        assert found[f"true_recall_{name}"] == pytest.approx(sum(hits) / len(hits))
    assert len(found) == 3
    assert true_recalls(samples.assign(is_flipped=False), ["joy", "fear", "anger"]) == {}
