"""Logit adjustment against a plain loop, and on a long tail."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from method_batches import BATCHES, COUNTS, make_output, mean, of_labels, ready, rows_of, softmax
from nlalib.methods import ModelOutput, make_method


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize(("settings", "tau"), [({}, 1), ({"tau": 0.5}, 0.5)])
def test_loss_equals_a_plain_loop(kind, settings, tau):
    output = make_output(kind)
    numbers = [max(n, 1) for n in COUNTS]
    prior = [tau * math.log(n / sum(numbers)) for n in numbers]
    by_hand = mean(
        -math.log(softmax([z + a for z, a in zip(r.z, prior, strict=True)])[r.label])
        for r in rows_of(output)
    )
    assert ready("logit_adjusted", **settings)(output)[0].item() == pytest.approx(by_hand, rel=2e-5)


def test_limit_is_cross_entropy():
    output = make_output("long")
    plain = functional.cross_entropy(output.logits, output.labels)
    torch.testing.assert_close(ready("logit_adjusted", tau=0)(output)[0], plain)


def test_adjustment_lifts_the_recall_of_the_tail():
    """Two overlapping Gaussians, 19 to 1; a linear network; tested on as many of both."""
    generator = torch.Generator().manual_seed(0)

    def points_of(labels):
        return torch.randn(len(labels), 2, generator=generator) + 1.5 * labels[:, None]

    labels = (torch.arange(1000) % 20 == 0).long()
    points, test_labels = points_of(labels), torch.arange(1000) % 2
    test_points = points_of(test_labels)
    recall = {}
    for name in ("ce", "logit_adjusted"):
        torch.manual_seed(0)
        method, network = ready(name, of_labels(labels, 2, 2)), nn.Linear(2, 2)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
        for _ in range(100):
            output = ModelOutput(network(points), None, labels, epoch=0, epochs=1)
            optimizer.zero_grad()
            method(output)[0].backward()
            optimizer.step()
        test = ModelOutput(network(test_points), None, None, epoch=0, epochs=1)
        hits = method.predict(test).argmax(dim=1) == test_labels
        recall[name] = [hits[test_labels == c].float().mean().item() for c in (0, 1)]
    assert recall["logit_adjusted"][1] > recall["ce"][1] + 0.2
    # The best linear border treats both alike.
    assert recall["logit_adjusted"][0] == pytest.approx(recall["logit_adjusted"][1], abs=0.1)


def test_tau_outside_its_range_is_refused():
    with pytest.raises(ValueError, match=r"tau of logit_adjusted is .*; it lies from"):
        make_method("logit_adjusted", {"tau": -0.1})
