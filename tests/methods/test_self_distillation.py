"""Self-distillation against a plain loop, and its limit."""

import math

import pytest
import torch

from method_batches import CLASSES, divergence, ready, rows_of, three_turns
from nlalib.methods import make_method


def test_self_distillation_by_hand_over_three_turns():
    method = ready("self_distillation", weight=2.0, momentum=0.6, ramp=0.2)
    history = {}
    for batch in three_turns():
        loss, records = method(batch)
        ramp = math.exp(-5 * (1 - batch.epoch / 2) ** 2) if batch.epoch < 2 else 1.0
        total, to_teacher = 0.0, []
        for sample, (_, p, _, shares, _) in zip(
            batch.samples.tolist(), rows_of(batch), strict=True
        ):
            past = history.setdefault(sample, [])
            # Weights 0.4 * 0.6^age of what was said before, divided by their sum.
            ages = [0.6 ** (len(past) - 1 - turn) for turn in range(len(past))]
            teacher = [
                sum(age * said[c] for age, said in zip(ages, past, strict=True)) / sum(ages)
                for c in range(CLASSES)
                if past
            ]
            to_teacher.append(divergence(teacher, p) if past else 0.0)
            total += divergence(shares, p) + 2.0 * ramp * to_teacher[-1]
            past.append(p)
        assert loss.item() == pytest.approx(total / len(batch.labels), rel=1e-4)
        assert records["kl_to_teacher"].tolist() == pytest.approx(to_teacher, rel=1e-3, abs=1e-6)
    assert sorted(len(past) for past in history.values()) == [1, 1, 1, 2, 3, 3]


def test_self_distillation_without_weight_is_ldl():
    alone = ready("self_distillation", weight=0.0)
    ldl = ready("ldl")
    for batch in three_turns():
        torch.testing.assert_close(alone(batch)[0], ldl(batch)[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 1.0}, "momentum of self_distillation is 1"),
        ({"weight": -1.0}, "weight of self_distillation is -1"),
        ({"ramp": 2.0}, "ramp of self_distillation is 2"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_method("self_distillation", settings)
