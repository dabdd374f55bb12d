"""LWS against a plain loop."""

import math

import pytest

from method_batches import CLASSES, ready, rows_of, share_within, three_turns
from nlalib.methods import make_method


@pytest.mark.parametrize("leverage", [0.0, 1.0, 2.0])
def test_lws_by_hand_over_three_turns(leverage):
    method, stored = ready("lws", leverage=leverage), {}
    for batch in three_turns():
        loss, _ = method(batch)
        total = 0.0
        for sample, (z, p, members, _, _) in zip(
            batch.samples.tolist(), rows_of(batch), strict=True
        ):
            weights = stored.get(sample, [1 / CLASSES] * CLASSES)
            others = [c for c in range(CLASSES) if c not in members]
            total += sum(weights[c] / (1 + math.exp(z[c])) for c in members)
            total += leverage * sum(weights[c] / (1 + math.exp(-z[c])) for c in others)
            inside = share_within(p, members)
            outside = share_within(p, others) if others else [0.0] * CLASSES
            stored[sample] = [a + b for a, b in zip(inside, outside, strict=True)]
        assert loss.item() == pytest.approx(total / len(batch.labels), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"leverage": -1.0}, "leverage of lws is -1"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_method("lws", settings)
