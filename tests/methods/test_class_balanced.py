"""Class-balanced loss against a plain loop, and its weights."""

import math

import pytest
import torch
from torch.nn import functional

from method_batches import (
    BATCHES,
    CLASSES,
    COUNTS,
    TRAINING_SET,
    make_output,
    mean,
    ready,
    rows_of,
)
from nlalib.methods import make_method
from nlalib.methods.class_balanced import effective_number_weights


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize(("settings", "beta"), [({}, 0.9999), ({"beta": 0.9}, 0.9)])
def test_loss_equals_a_plain_loop(kind, settings, beta):
    output = make_output(kind)
    inverse = [(1 - beta) / (1 - beta**n) if n else 0.0 for n in COUNTS]
    weights = [value * 4 / sum(inverse) for value in inverse]  # four classes have images
    by_hand = mean(weights[r.label] * -math.log(r.p[r.label]) for r in rows_of(output))
    loss, records = ready("class_balanced", **settings)(output)
    assert loss.item() == pytest.approx(by_hand, rel=2e-5)
    of_labels = [weights[label] for label in output.labels]
    assert records["weight"].tolist() == pytest.approx(of_labels, rel=1e-4)


def test_limit_is_cross_entropy():
    output = make_output("long")
    plain = functional.cross_entropy(output.logits, output.labels)
    torch.testing.assert_close(ready("class_balanced", beta=0)(output)[0], plain)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999, 1 - 1e-12])
def test_weights_are_normalised_and_ordered(beta):
    weights = effective_number_weights(TRAINING_SET.labels, CLASSES, beta).tolist()
    assert sum(weights) == pytest.approx(4)  # classes with images
    assert weights[4] == 0
    assert weights[:4] == sorted(weights[:4])
    if beta == 1 - 1e-12:  # the limit: one over the number of images
        assert [w * n for w, n in zip(weights, COUNTS, strict=True)][:4] == pytest.approx(
            [weights[3]] * 4, rel=1e-3
        )


@pytest.mark.parametrize("value", [-0.1, 1, 1.0])
def test_beta_outside_its_range_is_refused(value):
    with pytest.raises(ValueError, match=r"beta of class_balanced is .*; it lies from"):
        make_method("class_balanced", {"beta": value})
