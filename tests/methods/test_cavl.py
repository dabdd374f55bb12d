"""CAVL against a plain loop."""

import math
from dataclasses import replace

import pytest

from method_batches import CLASSES, ready, rows_of, three_turns


def test_cavl_by_hand_over_three_turns():
    method, stored = ready("cavl"), {}
    for batch in three_turns():
        loss, _ = method(batch)
        total = 0.0
        for sample, (z, p, members, _, _) in zip(
            batch.samples.tolist(), rows_of(batch), strict=True
        ):
            even = [float(c in members) / len(members) for c in range(CLASSES)]
            target = stored.get(sample, even)
            total -= sum(q * math.log(value) for q, value in zip(target, p, strict=True))
            highest = max(members, key=lambda c: z[c] * abs(1 - z[c]))
            stored[sample] = [float(c == highest) for c in range(CLASSES)]
        assert loss.item() == pytest.approx(total / len(batch.labels), rel=1e-5)


def test_cavl_takes_a_candidate_also_where_all_activations_are_negative(output):
    negative = replace(output, logits=-3.0 - output.logits.detach().abs())
    method = ready("cavl")
    method(negative)
    targets = method.targets[negative.samples]
    assert (targets[negative.candidates.logical_not()] == 0).all()
    assert targets.sum(dim=1).tolist() == [1.0] * len(output.labels)
