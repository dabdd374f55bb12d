"""RC against a plain loop, and its kinship to CC."""

import math
from dataclasses import replace

import pytest
import torch

from method_batches import CLASSES, ready, rows_of, share_within
from nlalib.methods import make_method


@pytest.mark.parametrize(("epoch", "uniform_epochs"), [(0, 1), (1, 1), (1, 2), (0, 0)])
def test_rc_by_hand(output, epoch, uniform_epochs):
    method = ready("rc", uniform_epochs=uniform_epochs)
    loss, _ = method(replace(output, epoch=epoch))
    total = 0.0
    for _, p, members, _, _ in rows_of(output):
        even = [float(c in members) / len(members) for c in range(CLASSES)]
        weights = even if epoch < uniform_epochs else share_within(p, members)
        total -= sum(w * math.log(value) for w, value in zip(weights, p, strict=True))
    assert loss.item() == pytest.approx(total / len(output.labels), rel=1e-5)


def test_rc_has_the_gradient_of_cc_after_the_uniform_epochs(output):
    gradients = []
    for name in ("rc", "cc"):
        loss, _ = ready(name)(output)
        gradients.append(torch.autograd.grad(loss, output.logits)[0])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"uniform_epochs": -1}, "uniform_epochs of rc is -1"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_method("rc", settings)
