"""PRODEN against a plain loop."""

import math

import pytest

from method_batches import CLASSES, ready, rows_of, share_within, three_turns


def test_proden_by_hand_over_three_turns():
    method, stored = ready("proden"), {}
    for batch in three_turns():
        loss, records = method(batch)
        total, identified = 0.0, []
        for sample, (_, p, members, _, _) in zip(
            batch.samples.tolist(), rows_of(batch), strict=True
        ):
            even = [float(c in members) / len(members) for c in range(CLASSES)]
            target = stored.get(sample, even)
            total -= sum(q * math.log(value) for q, value in zip(target, p, strict=True))
            stored[sample] = share_within(p, members)
            identified.append(max(members, key=lambda c: p[c]))
        assert loss.item() == pytest.approx(total / len(batch.labels), rel=1e-5)
        assert records["identified"].tolist() == identified
    for sample, target in stored.items():
        assert method.targets[sample].tolist() == pytest.approx(target, rel=1e-5)
