"""LNSU-Net against a plain loop, and its targets; its consistency is tested beside EAC's."""

import pytest
import torch
from torch.nn import functional

from method_batches import (
    BATCHES,
    CLASSES,
    COUNTS,
    SAMPLES,
    TRAINING_SET,
    entropy_to,
    make_output,
    mean,
    ready,
    rows_of,
)
from nlalib.methods import make_method
from nlalib.methods.lnsu import rarity_weights, smooth_targets


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize(
    ("settings", "scale", "share", "factor"),
    [
        ({}, 0.1, 0.7, 0.1),
        ({"class_weight_scale": 0.5}, 0.5, 0.7, 0.1),
        ({"label_share": 0.9}, 0.1, 0.9, 0.1),
        ({"consistency_weight": 1.0}, 0.1, 0.7, 1.0),
    ],
)
def test_loss_equals_a_plain_loop(kind, settings, scale, share, factor):
    output = make_output(kind)
    weights = [scale * SAMPLES / n if n else 0.0 for n in COUNTS]
    entropies = []
    for row in rows_of(output):
        others = sum(w for c, w in enumerate(weights) if c != row.label)
        target = [
            share if c == row.label else (1 - share) * w / others for c, w in enumerate(weights)
        ]
        entropies.append(entropy_to(target, row.p))
    weight = output.classifier.weight.detach()
    first, second = (
        torch.stack([torch.tensordot(weight, one.detach(), 1) for one in maps])  # (N, K, h, w)
        for maps in (output.feature_map, output.feature_map_flipped)
    )
    squared = ((first - second.flip(3)) ** 2).mean(dim=(2, 3)).tolist()  # (N, K)
    consistency = mean(
        mean(w * square for w, square in zip(weights, of_sample, strict=True))
        for of_sample in squared
    )
    expected = mean(entropies) + factor * consistency
    assert ready("lnsu", **settings)(output)[0].item() == pytest.approx(expected, rel=2e-5)


def test_limit_is_cross_entropy():
    output = make_output("long")
    plain = functional.cross_entropy(output.logits, output.labels)
    found = ready("lnsu", label_share=1, consistency_weight=0)(output)[0]
    torch.testing.assert_close(found, plain)


def test_targets_favour_rare_classes():
    weights = rarity_weights(TRAINING_SET.labels, CLASSES, 0.1)
    assert weights.tolist() == pytest.approx([0.2, 4 / 12, 4 / 7, 4.0, 0.0])
    targets = smooth_targets(weights, 0.7)
    assert targets.sum(dim=1).tolist() == pytest.approx([1.0] * CLASSES)
    assert targets.diagonal().tolist() == pytest.approx([0.7] * CLASSES)
    assert targets[0, 3] > targets[0, 2] > targets[0, 1] > targets[0, 4] == 0


def test_targets_are_even_where_no_other_class_has_images():
    weights = rarity_weights(torch.zeros(9, dtype=torch.int64), 4, 0.1)
    assert smooth_targets(weights, 0.7)[0].tolist() == pytest.approx([0.7, 0.1, 0.1, 0.1])


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("class_weight_scale", 0),
        ("class_weight_scale", -1),
        ("label_share", -0.1),
        ("label_share", 1.1),
        ("consistency_weight", -1),
    ],
)
def test_settings_outside_their_range_are_refused(setting, value):
    with pytest.raises(ValueError, match=rf"{setting} of lnsu is .*; it lies from"):
        make_method("lnsu", {setting: value})
