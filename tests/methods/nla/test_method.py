"""The method `nla`: each of its choices alone against the formula by hand, and its settings."""

import math
from dataclasses import asdict, replace

import pytest
import torch

from nla_by_hand import MAY, PAPER, RELEASED, V_NAW, total, weights
from nlalib.methods import make_method
from nlalib.methods.nla.consistency import jensen_shannon
from nlalib.methods.nla.weights import VARIANTS

# What the options mean in the formula by hand: (s, c) of the two cases, with s = 0.8 and
# |c| = s (r^2 - 1) / (r^2 + 1), or as in the releases.
OPTIONS = [
    ({}, {}),
    *[({"trade_off": lambda_}, {"trade_off": lambda_}) for lambda_ in (0.0, 0.3, 1.0)],
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


def by_hand(output, changed) -> float:
    views = output.logits.tolist(), output.logits_flipped.tolist()
    return total(*views, output.labels.tolist(), PAPER | changed, output.epoch, output.epochs)


def weights_by_hand(output, changed) -> list[float]:
    schedule = (output.epoch, output.epochs)
    return weights(output.logits.tolist(), output.labels.tolist(), PAPER | changed, *schedule)


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


def test_weights_of_pairs_are_no_records_of_samples(output):
    assert make_method("nla", {"variant": "released_2025_03"})(output)[1] == {}


def test_epoch_changes_the_loss_of_nla_alone(output):
    later = replace(output, epoch=9)
    assert make_method("nla")(later)[0] != make_method("nla")(output)[0]
    assert make_method("ce")(later)[0] == make_method("ce")(output)[0]


@pytest.mark.parametrize(("settings", "changed"), OPTIONS, ids=lambda value: str(value))
def test_each_choice_of_nla_is_the_formula_with_that_choice(output, settings, changed):
    method = make_method("nla", settings)
    loss, records = method(output)
    assert loss.item() == pytest.approx(by_hand(output, changed), rel=1e-5)
    if (PAPER | changed)["weighting"]:
        expected = weights_by_hand(output, changed)
        assert records["weight"].tolist() == pytest.approx(expected, rel=1e-5)
    else:
        assert records == {}
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
        logits = output.logits.detach().clone().requires_grad_()
        loss, records = make_method("nla", {"detached": detached})(replace(output, logits=logits))
        loss.backward()
        found[detached] = (loss.item(), records["weight"], logits.grad)
    assert found[True][0] == found[False][0]
    assert torch.equal(found[True][1], found[False][1])
    assert (found[True][2] - found[False][2]).abs().max() > 1e-3
    # Detached, each sample's gradient is that of lambda (1 + w) CE with w as a number.
    weights = found[True][1]
    logits = output.logits.detach().clone().requires_grad_()
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
        whole = by_hand(output, part)
        plain = by_hand(output, part | {"consistency": "none"})
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
        ({"consistency": None, "false_case": "may"}, "false_case of nla is 'may'; known are paper"),
        ({"weighting": "false"}, "weighting of nla is 'false'; it is True or False"),
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


@pytest.mark.parametrize("value", [-0.1, 1.1, "0.5", True, None, float("nan")])
def test_trade_off_is_checked_before_any_work(value):
    with pytest.raises(ValueError, match=r"trade_off of nla is .*it lies from 0 to 1"):
        make_method("nla", {"trade_off": value})


def test_unknown_variant_lists_the_known():
    with pytest.raises(ValueError, match="variant of nla is 'papre'; known are paper, "):
        make_method("nla", {"variant": "papre"})


@pytest.mark.parametrize("weighting", [True, False])
@pytest.mark.parametrize("term", ["l1", "cam"])
def test_terms_that_the_authors_tried_take_the_place_of_the_divergence(output, term, weighting):
    """lambda (weighted cross-entropy) + (1 - lambda) term, the term by plain loops."""
    settings = {"weighting": weighting, "trade_off": 0.3, "consistency": term}
    method = make_method("nla", settings)
    assert method.two_views
    assert not method.sums_over_batch
    plain = make_method("nla", {"weighting": weighting, "consistency": "none"})(output)[0].item()
    terms = []
    if term == "l1":
        for first, second in zip(output.logits, output.logits_flipped, strict=True):
            p, q = first.softmax(0).tolist(), second.softmax(0).tolist()
            terms.append(sum(abs(a - b) for a, b in zip(p, q, strict=True)))
    else:
        weight, side = output.classifier.weight.tolist(), output.feature_map.shape[3]
        first, second = output.feature_map.tolist(), output.feature_map_flipped.tolist()
        for one, other in zip(first, second, strict=True):
            for row in weight:
                for y in range(len(one[0])):
                    for x in range(side):
                        cam = sum(w * m[y][x] for w, m in zip(row, one, strict=True))
                        mirrored = sum(
                            w * m[y][side - 1 - x] for w, m in zip(row, other, strict=True)
                        )
                        terms.append((cam - mirrored) ** 2)
    wanted = 0.3 * plain + 0.7 * sum(terms) / len(terms)
    loss, records = method(output)
    assert loss.item() == pytest.approx(wanted, rel=1e-4)
    assert ("weight" in records) == weighting
    loss.backward()
