"""Methods: their losses against plain loops and the formula, their settings, the registry."""

import math
from dataclasses import replace

import pytest
import torch

from nlalib.methods import METHODS, Method, ModelOutput, make_method, register
from nlalib.naw import weight_at

CLASSES = 5


@pytest.fixture
def output() -> ModelOutput:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 12, CLASSES, generator=generator)
    labels = torch.randint(0, CLASSES, (12,), generator=generator)
    return ModelOutput(logits[0], logits[1], labels, epoch=2, epochs=10)


def softmax(row) -> list[float]:
    exponentials = [math.exp(value) for value in row.tolist()]
    return [value / sum(exponentials) for value in exponentials]


def nla_by_hand(output: ModelOutput, trade_off: float) -> tuple[float, list[float]]:
    """lambda mean((1 + w) CE) + (1 - lambda) mean(JSD), sample by sample; and the weights."""
    total, weights = 0.0, []
    views = zip(output.logits, output.logits_flipped, output.labels.tolist(), strict=True)
    for row, mirrored, label in views:
        p, q = softmax(row), softmax(mirrored)
        nearest = max(value for name, value in enumerate(p) if name != label)
        weight = weight_at(
            torch.tensor(p[label]), torch.tensor(nearest), epoch=output.epoch, epochs=output.epochs
        ).item()
        divergence = 0.0
        for a, b in zip(p, q, strict=True):
            divergence += a * math.log(2 * a / (a + b)) / 2 + b * math.log(2 * b / (a + b)) / 2
        total += trade_off * (1 + weight) * -math.log(p[label]) + (1 - trade_off) * divergence
        weights.append(weight)
    return total / len(weights), weights


def test_cross_entropy_equals_a_plain_loop(output):
    loss, facts = make_method("ce")(output)
    by_hand = [
        -math.log(softmax(row)[label])
        for row, label in zip(output.logits, output.labels.tolist(), strict=True)
    ]
    assert loss.item() == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-5)
    assert facts == {}
    assert not METHODS["ce"].two_views


@pytest.mark.parametrize("trade_off", [0.0, 0.3, 0.5, 1.0])
def test_nla_equals_the_formula_by_hand(output, trade_off):
    loss, facts = make_method("nla", {"trade_off": trade_off})(output)
    by_hand, weights = nla_by_hand(output, trade_off)
    assert loss.item() == pytest.approx(by_hand, rel=1e-5)
    assert facts["weight"].tolist() == pytest.approx(weights, rel=1e-5)
    assert METHODS["nla"].two_views


def test_paper_and_one_half_are_the_defaults(output):
    loss, _ = make_method("nla")(output)
    same, _ = make_method("nla", {"variant": "paper", "trade_off": 0.5})(output)
    assert torch.equal(loss, same)


def test_each_variant_has_a_loss_of_its_own(output):
    variants = ("paper", "released_2025_03", "released_2025_05", "v_naw")
    losses = [make_method("nla", {"variant": variant})(output)[0].item() for variant in variants]
    assert all(math.isfinite(loss) for loss in losses)
    for position, loss in enumerate(losses):
        others = losses[:position] + losses[position + 1 :]
        assert min(abs(loss - other) for other in others) > 1e-3


def test_weights_of_pairs_are_no_facts_of_samples(output):
    assert make_method("nla", {"variant": "released_2025_03"})(output)[1] == {}


def test_epoch_changes_the_loss_of_nla_alone(output):
    later = replace(output, epoch=9)
    assert make_method("nla")(later)[0] != make_method("nla")(output)[0]
    assert make_method("ce")(later)[0] == make_method("ce")(output)[0]


@pytest.mark.parametrize("name", ["ce", "nla"])
def test_loss_has_gradients_and_facts_have_none(output, name):
    logits = output.logits.clone().requires_grad_()
    loss, facts = make_method(name)(replace(output, logits=logits))
    loss.backward()
    assert logits.grad.abs().sum() > 0
    for values in facts.values():
        assert not values.requires_grad
        assert values.shape == (12,)


def test_unknown_method_lists_the_known():
    with pytest.raises(ValueError, match="unknown method 'nal'; known are ce, nla"):
        make_method("nal")


def test_unknown_setting_lists_the_known():
    with pytest.raises(ValueError, match="'nla' has no setting lambda; it has variant, trade_off"):
        make_method("nla", {"lambda": 0.5})
    with pytest.raises(ValueError, match="'ce' has no setting trade_off; it has none"):
        make_method("ce", {"trade_off": 0.5})


@pytest.mark.parametrize("value", [-0.1, 1.1, "0.5", True, None, float("nan")])
def test_trade_off_is_checked_before_any_work(value):
    with pytest.raises(ValueError, match=r"trade_off of nla is .*lambda lies between 0 and 1"):
        make_method("nla", {"trade_off": value})


def test_unknown_variant_lists_the_known():
    with pytest.raises(ValueError, match="variant 'papre' of nla; known are paper, released_2025"):
        make_method("nla", {"variant": "papre"})


def test_registered_method_is_found_by_its_name(output, monkeypatch):
    monkeypatch.setattr("nlalib.methods.base.METHODS", dict(METHODS))

    @register("halved")
    class Halved(Method):
        def __init__(self, share: float = 0.5):
            super().__init__()
            self.share = share

        def forward(self, output):
            return self.share * output.logits.sum(), {}

    assert make_method("halved", {"share": 0.25})(output)[0] == 0.25 * output.logits.sum()
    assert "halved" not in METHODS
