"""EAC against a plain loop over places, and what its consistency moves (LNSU-Net's too)."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from method_batches import BATCHES, CLASSES, WIDTH, make_output, mean, ready, rows_of
from nlalib.methods import METHODS, ModelOutput, make_method


def map_differences_by_hand(output: ModelOutput) -> np.ndarray:
    """Squared difference of CAM and mirrored CAM, (N, K, h, w)."""
    weight, first, second = (
        tensor.detach().double().numpy()
        for tensor in (output.classifier.weight, output.feature_map, output.feature_map_flipped)
    )
    count, _, height, width = first.shape
    squared = np.zeros((count, CLASSES, height, width))
    for n, c, y, x in np.ndindex(squared.shape):
        one = sum(weight[c, k] * first[n, k, y, x] for k in range(WIDTH))
        two = sum(weight[c, k] * second[n, k, y, width - 1 - x] for k in range(WIDTH))
        squared[n, c, y, x] = (one - two) ** 2
    return squared


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize(("settings", "factor"), [({}, 5), ({"consistency_weight": 1.0}, 1)])
def test_loss_equals_a_plain_loop(kind, settings, factor):
    output = make_output(kind)
    entropy = mean(-math.log(r.p[r.label]) for r in rows_of(output))
    squared = map_differences_by_hand(output)
    loss, records = ready("eac", **settings)(output)
    assert loss.item() == pytest.approx(entropy + factor * squared.mean(), rel=2e-5)
    of_samples = squared.mean(axis=(1, 2, 3)).tolist()
    assert records["consistency"].tolist() == pytest.approx(of_samples, rel=1e-4)


def test_limit_is_cross_entropy():
    output = make_output("long")
    plain = functional.cross_entropy(output.logits, output.labels)
    torch.testing.assert_close(ready("eac", consistency_weight=0)(output)[0], plain)


@pytest.mark.parametrize("name", ["eac", "lnsu"])
def test_equivariant_maps_have_no_inconsistency(name):
    output = make_output()
    same = replace(output, feature_map_flipped=output.feature_map.flip(3))
    assert ready(name)(same)[1]["consistency"].abs().max() == 0
    unmirrored = replace(output, feature_map_flipped=output.feature_map)
    assert ready(name)(unmirrored)[1]["consistency"].min() > 0
    assert METHODS[name].two_views


@pytest.mark.parametrize("name", ["eac", "lnsu"])
def test_consistency_moves_both_maps_but_not_the_classifier(name):
    output = make_output()
    ready(name)(output)[0].backward()
    assert output.feature_map.grad.abs().sum() > 0
    assert output.feature_map_flipped.grad.abs().sum() > 0
    assert output.classifier.weight.grad is None
    assert output.logits_flipped.grad is None


@pytest.mark.parametrize("value", [-1, math.inf])
def test_consistency_weight_outside_its_range_is_refused(value):
    with pytest.raises(ValueError, match=r"consistency_weight of eac is .*; it lies from"):
        make_method("eac", {"consistency_weight": value})
