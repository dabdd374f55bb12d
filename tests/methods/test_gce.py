"""Generalised cross-entropy against a plain loop, and its pull."""

import pytest
import torch
from torch.nn import functional

from method_batches import BATCHES, make_output, mean, of_labels, ready, rows_of, softmax
from nlalib.methods import ModelOutput, make_method


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize(("settings", "q"), [({}, 0.7), ({"q": 0.5}, 0.5)])
def test_loss_equals_a_plain_loop(kind, settings, q):
    output = make_output(kind)
    by_hand = mean((1 - r.p[r.label] ** q) / q for r in rows_of(output))
    assert ready("gce", **settings)(output)[0].item() == pytest.approx(by_hand, rel=2e-5)


def test_limit_is_cross_entropy():
    output = make_output("long")
    plain = functional.cross_entropy(output.logits, output.labels)
    assert ready("gce", q=1e-4)(output)[0].item() == pytest.approx(plain.item(), rel=1e-3)


@pytest.mark.parametrize("q", [0.3, 0.7, 1.0])
def test_gce_pulls_less_at_confidently_wrong_samples(q):
    """By p_y^q against cross-entropy, which is what the record says."""
    gradients, labels = {}, torch.tensor([1, 1])
    for name, settings in (("ce", {}), ("gce", {"q": q})):
        logits = torch.tensor([[5.0, 0.0, -1.0], [0.0, 5.0, -1.0]], requires_grad=True)
        output = ModelOutput(logits, None, labels, epoch=0, epochs=1)
        loss, records = ready(name, of_labels(labels, 3), **settings)(output)
        loss.backward()
        gradients[name] = logits.grad
    ratio = gradients["gce"] / gradients["ce"]
    for n, row in enumerate(logits.tolist()):
        expected = softmax(row)[1] ** q
        assert ratio[n].tolist() == pytest.approx([expected] * 3, rel=1e-3)
        assert records["weight"][n].item() == pytest.approx(expected, rel=1e-3)
    assert ratio[0].max() < 0.3 < ratio[1].min()


@pytest.mark.parametrize("value", [0, -0.1, 1.1])
def test_q_outside_its_range_is_refused(value):
    with pytest.raises(ValueError, match=r"q of gce is .*; it lies from"):
        make_method("gce", {"q": value})
