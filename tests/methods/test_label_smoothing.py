"""Label smoothing against a plain loop."""

import pytest
import torch
from torch.nn import functional

from method_batches import BATCHES, CLASSES, entropy_to, make_output, mean, ready, rows_of
from nlalib.methods import make_method


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize(("settings", "epsilon"), [({}, 0.1), ({"epsilon": 0.2}, 0.2)])
def test_loss_equals_a_plain_loop(kind, settings, epsilon):
    output = make_output(kind)
    by_hand = mean(
        entropy_to(
            [(1 - epsilon) * (c == r.label) + epsilon / CLASSES for c in range(CLASSES)], r.p
        )
        for r in rows_of(output)
    )
    found = ready("label_smoothing", **settings)(output)[0].item()
    assert found == pytest.approx(by_hand, rel=2e-5)


def test_limit_is_cross_entropy():
    output = make_output("long")
    plain = functional.cross_entropy(output.logits, output.labels)
    torch.testing.assert_close(ready("label_smoothing", epsilon=0)(output)[0], plain)


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_epsilon_outside_its_range_is_refused(value):
    with pytest.raises(ValueError, match=r"epsilon of label_smoothing is .*; it lies from"):
        make_method("label_smoothing", {"epsilon": value})
