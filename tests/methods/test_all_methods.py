"""Methods: their losses against plain loops and the formula, their settings, the registry."""

import math
from dataclasses import asdict, replace

import pytest
import torch

from nlalib.methods import METHODS, Method, ModelOutput, make_method, register
from nlalib.methods.nla.consistency import jensen_shannon
from nlalib.methods.nla.weights import VARIANTS, weight_at

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
    method = make_method("nla", {"trade_off": trade_off})
    loss, facts = method(output)
    by_hand, weights = nla_by_hand(output, trade_off)
    assert loss.item() == pytest.approx(by_hand, rel=1e-5)
    assert facts["weight"].tolist() == pytest.approx(weights, rel=1e-5)
    assert method.two_views


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


# --- each choice of NLA alone ----------------------------------------------------------------

# What the options mean, written down once more: (s, c) of the two cases, with s = 0.8 and
# |c| = s (r^2 - 1) / (r^2 + 1), or as in the releases.
PAPER = {
    "true": (0.8, 0.8 * 3 / 5),
    "false": (0.8, 0.8 * 35 / 37),
    "normalised": True,
    "slope": 15.0,
    "weighting": True,
    "consistency": "jensen_shannon",
    "trade_off": 0.5,
}
MAY = {"false": (0.91**2 * 37 / 36, 0.91**2 * 35 / 36)}
V_NAW = {"true": (0.75, 0.5), "false": (0.85, 0.8), "normalised": False}
RELEASED = {"consistency": "released"}
OPTIONS = [
    ({"weighting": False}, {"weighting": False}),
    ({"consistency": "none"}, {"consistency": "none"}),
    ({"consistency": "released"}, RELEASED),
    ({"consistency": "jensen_shannon"}, {}),
    ({"variant": "released_2025_05"}, MAY | RELEASED),
    ({"variant": "v_naw"}, V_NAW | RELEASED),
    ({"variant": "v_naw", "consistency": "jensen_shannon"}, V_NAW),
    ({"variant": "v_naw", "consistency": "none"}, V_NAW | {"consistency": "none"}),
    ({"false_case": "released_2025_05"}, MAY),
    ({"false_case": "v_naw"}, {"false": (0.85, 0.8)}),
    ({"normalised": False}, {"normalised": False}),
    ({"slope": 0.0}, {"slope": 0.0}),
    ({"slope": 4}, {"slope": 4.0}),
    ({"true_ratio": 1.0, "false_ratio": 1}, {"true": (0.8, 0.0), "false": (0.8, 0.0)}),
    ({"true_ratio": 3.0}, {"true": (0.8, 0.8 * 8 / 10)}),
    ({"false_ratio": 4.0}, {"false": (0.8, 0.8 * 15 / 17)}),
    ({"weighting": False, "trade_off": 0.25}, {"weighting": False, "trade_off": 0.25}),
    ({"normalised": False, "trade_off": 0.75}, {"normalised": False, "trade_off": 0.75}),
    ({"weighting": False, "consistency": "none"}, {"weighting": False, "consistency": "none"}),
    # A release of which one thing is changed keeps the release's consistency.
    ({"variant": "released_2025_05", "normalised": False}, MAY | RELEASED | {"normalised": False}),
    ({"variant": "v_naw", "slope": 1.0}, V_NAW | RELEASED | {"slope": 1.0}),
]


def with_choices_by_hand(output: ModelOutput, changed: dict) -> tuple[float, list[float]]:
    """The loss and the weights, sample by sample, with nothing but `math`."""
    choice = PAPER | changed
    weighted, regulariser, weights = 0.0, 0.0, []
    views = zip(output.logits.tolist(), output.logits_flipped.tolist(), output.labels, strict=True)
    for z, mirrored, label in views:
        p, q = softmax(torch.tensor(z)), softmax(torch.tensor(mirrored))
        x, y = p[label], max(value for name, value in enumerate(p) if name != label)
        if x >= y:
            (s, c), mean = choice["true"], (0.5, 0.5)
            c *= -(1 - math.exp(-choice["slope"] * output.epoch / output.epochs))
        else:
            (s, c), mean = choice["false"], (0.3, 0.15)
        dx, dy, determinant = x - mean[0], y - mean[1], s * s - c * c
        weight = math.exp(-(s * dx * dx - 2 * c * dx * dy + s * dy * dy) / determinant / 2)
        weight /= 2 * math.pi * math.sqrt(determinant) if choice["normalised"] else 1
        weights.append(weight)
        weighted += (1 + weight * choice["weighting"]) * -math.log(x) / len(output.labels)
        if choice["consistency"] == "released":  # of the mean of the logits, and summed
            m = softmax(torch.tensor([(a + b) / 2 for a, b in zip(z, mirrored, strict=True)]))
            parts = zip(m, p, q, strict=True)
            regulariser += sum(c * (math.log(c / a) + math.log(c / b)) / 2 for c, a, b in parts)
        else:
            parts = zip(p, q, strict=True)
            regulariser += sum(
                a * math.log(2 * a / (a + b)) / 2 + b * math.log(2 * b / (a + b)) / 2
                for a, b in parts
            ) / len(output.labels)
    if choice["consistency"] == "none":
        return weighted, weights
    trade_off = choice["trade_off"]
    return trade_off * weighted + (1 - trade_off) * regulariser, weights


@pytest.mark.parametrize(("settings", "changed"), OPTIONS, ids=lambda value: str(value))
def test_each_choice_of_nla_is_the_formula_with_that_choice(output, settings, changed):
    method = make_method("nla", settings)
    loss, facts = method(output)
    by_hand, weights = with_choices_by_hand(output, changed)
    assert loss.item() == pytest.approx(by_hand, rel=1e-5)
    if (PAPER | changed)["weighting"]:
        assert facts["weight"].tolist() == pytest.approx(weights, rel=1e-5)
    else:
        assert facts == {}
    paper = make_method("nla")(output)[0].item()
    assert (abs(loss.item() - paper) > 1e-4) == (changed != {})
    assert method.two_views == ((PAPER | changed)["consistency"] != "none")


def test_the_batch_of_these_tests_holds_both_cases(output):
    weights = make_method("nla")(output)[1]["weight"]
    unscheduled = make_method("nla", {"slope": 0.0})(output)[1]["weight"]
    other_false = make_method("nla", {"false_ratio": 4.0})(output)[1]["weight"]
    assert 2 < (weights != unscheduled).sum() < 10  # the schedule moves the True case alone
    assert torch.equal(weights != unscheduled, weights == other_false)


def test_detached_weights_change_the_gradient_and_neither_loss_nor_weights(output):
    found = {}
    for detached in (False, True):
        logits = output.logits.clone().requires_grad_()
        loss, facts = make_method("nla", {"detached": detached})(replace(output, logits=logits))
        loss.backward()
        found[detached] = (loss.item(), facts["weight"], logits.grad)
    assert found[True][0] == found[False][0]
    assert torch.equal(found[True][1], found[False][1])
    assert (found[True][2] - found[False][2]).abs().max() > 1e-3
    # Detached, each sample's gradient is that of lambda (1 + w) CE with w as a number.
    weights = found[True][1]
    logits = output.logits.clone().requires_grad_()
    cross_entropy = torch.nn.functional.cross_entropy(logits, output.labels, reduction="none")
    divergence = jensen_shannon(logits, output.logits_flipped)
    (((1 + weights) * cross_entropy).mean() / 2 + divergence.mean() / 2).backward()
    torch.testing.assert_close(found[True][2], logits.grad)


def test_march_with_the_divergence_changes_the_regulariser_alone(output):
    """Its weighted part is tested with the golden numbers; here the rest is taken off by hand."""
    settings = {"variant": "released_2025_03"}
    alone = make_method("nla", settings | {"consistency": "none"})(output)[0].item()
    for consistency in ("jensen_shannon", "released"):
        loss = make_method("nla", settings | {"consistency": consistency})(output)[0].item()
        part = {"weighting": False, "consistency": consistency}
        whole, _ = with_choices_by_hand(output, part)
        plain, _ = with_choices_by_hand(output, part | {"consistency": "none"})
        assert loss == pytest.approx(alone / 2 + whole - plain / 2, rel=1e-5)
    assert make_method("nla", settings)(output)[0].item() == pytest.approx(loss, rel=1e-6)


def test_choices_leave_the_variants_as_they_are(output):
    before = dict(VARIANTS)
    copies = {name: asdict(variant) for name, variant in VARIANTS.items()}
    plain = make_method("nla")(output)[0]
    for settings, _ in OPTIONS:
        make_method("nla", settings)(output)
    assert before == VARIANTS
    assert copies == {name: asdict(variant) for name, variant in VARIANTS.items()}
    assert torch.equal(make_method("nla")(output)[0], plain)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"consistency": "jsd"}, "consistency of nla is 'jsd'; known are jensen_shannon, rel"),
        ({"consistency": None, "false_case": "may"}, "unknown NAW variant 'may'; known are paper"),
        ({"weighting": "false"}, "weighting of nla is 'false'; it is true or false"),
        ({"weighting": None}, "weighting of nla is None"),
        ({"normalised": 0}, "normalised of nla is 0"),
        ({"detached": "yes"}, "detached of nla is 'yes'"),
        ({"slope": -1.0}, r"slope of nla is -1.0; it lies from 0"),
        ({"slope": float("nan")}, "slope of nla is nan"),
        ({"slope": "15"}, "slope of nla is '15'"),
        ({"true_ratio": 0.5}, "true_ratio of nla is 0.5; it lies from 1"),
        ({"false_ratio": "6"}, "false_ratio of nla is '6'"),
        ({"false_ratio": 6.0, "false_case": "v_naw"}, "false_case as well as false_ratio"),
        ({"variant": "released_2025_03", "detached": True}, "detached as well as variant='rele"),
        ({"weighting": False, "slope": 0.0}, "slope as well as weighting=False"),
        ({"weighting": False, "false_case": "paper"}, "false_variance, .* as well as weighting"),
        ({"consistency": "none", "trade_off": 0.7}, "trade_off=0.7 as well as consistency='none'"),
    ],
)
def test_settings_of_nla_without_meaning_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_method("nla", settings)


def test_unknown_method_lists_the_known():
    with pytest.raises(ValueError, match=r"unknown method 'nal'; known are .*\bce, .*\bnla, "):
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
