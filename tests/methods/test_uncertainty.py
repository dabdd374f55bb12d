"""The uncertainty-aware loss against a plain loop, and its limit."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from method_batches import CLASSES, ready, rows_of, softmax
from nlalib.methods import make_method


def test_uncertainty_by_hand(output):
    method = ready("uncertainty", draws=4)
    with torch.no_grad():
        method.scale.weight.normal_(generator=torch.Generator().manual_seed(2))
    loss, records = method(output)
    total, means = 0.0, []
    for number, (z, _, _, shares, _) in enumerate(rows_of(output)):
        raw = method.scale.weight @ output.features[number] + method.scale.bias
        scales = [math.log(1 + math.exp(value)) for value in raw.tolist()]
        noise = method.noise[(int(output.samples[number]) + 97 * output.epoch) % 256].tolist()
        expected = [0.0] * CLASSES
        for draw in noise:
            p = softmax([a + s * e for a, s, e in zip(z, scales, draw, strict=True)])
            expected = [a + b / 4 for a, b in zip(expected, p, strict=True)]
        total -= sum(q * math.log(value) for q, value in zip(shares, expected, strict=True))
        means.append(sum(scales) / CLASSES)
    assert loss.item() == pytest.approx(total / len(output.labels), rel=1e-5)
    assert records["uncertainty"].tolist() == pytest.approx(means, rel=1e-5)


def test_uncertainty_predicts_the_mean_over_its_draws(output):
    method = ready("uncertainty", draws=3)
    predicted = method.predict(replace(output, labels=None, samples=None)).exp()
    scale = math.log(1 + math.exp(-1))
    for row, z in zip(predicted.tolist(), output.logits.tolist(), strict=True):
        draws = [
            softmax([a + scale * e for a, e in zip(z, noise, strict=True)])
            for noise in method.noise[:16].reshape(-1, CLASSES).tolist()
        ]
        assert len(draws) == 48
        assert row == pytest.approx([sum(column) / 48 for column in zip(*draws, strict=True)], 1e-4)


def test_uncertainty_without_noise_is_the_cross_entropy_to_the_votes(output):
    method = ready("uncertainty")
    nn.init.constant_(method.scale.bias, -1e4)
    shares = output.votes / output.votes.sum(dim=1, keepdim=True)
    torch.testing.assert_close(method(output)[0], functional.cross_entropy(output.logits, shares))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"draws": 0}, "draws of uncertainty is 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_method("uncertainty", settings)
