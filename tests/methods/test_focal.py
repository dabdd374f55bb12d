"""Focal loss against a plain loop, and its limit."""

import math

import pytest
import torch
from torch.nn import functional

from method_batches import BATCHES, make_output, mean, ready, rows_of, softmax
from nlalib.methods import ModelOutput, make_method


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize(("settings", "gamma"), [({}, 2), ({"gamma": 1.0}, 1)])
def test_loss_equals_a_plain_loop(kind, settings, gamma):
    output = make_output(kind)
    by_hand = mean((1 - r.p[r.label]) ** gamma * -math.log(r.p[r.label]) for r in rows_of(output))
    assert ready("focal", **settings)(output)[0].item() == pytest.approx(by_hand, rel=2e-5)


def test_limit_is_cross_entropy():
    output = make_output("long")
    plain = functional.cross_entropy(output.logits, output.labels)
    torch.testing.assert_close(ready("focal", gamma=0)(output)[0], plain)


def test_weight_falls_with_the_probability():
    logits = torch.tensor([[-2.0, 0.0], [0.0, 0.0], [2.0, 0.0]])
    output = ModelOutput(logits, None, torch.zeros(3, dtype=torch.int64), epoch=0, epochs=1)
    weight = ready("focal")(output)[1]["weight"].tolist()
    assert weight == pytest.approx([(1 - softmax(row)[0]) ** 2 for row in logits.tolist()])
    assert weight == sorted(weight, reverse=True)


@pytest.mark.parametrize("value", [-0.5, math.inf])
def test_gamma_outside_its_range_is_refused(value):
    with pytest.raises(ValueError, match=r"gamma of focal is .*; it lies from"):
        make_method("focal", {"gamma": value})
