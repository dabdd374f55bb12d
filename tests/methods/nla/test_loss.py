"""NLA's total loss against the released code's numbers and against its parts."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional

import nla_by_hand
from nla_by_hand import CHOICES
from nlalib.methods.nla.consistency import jensen_shannon, released_consistency
from nlalib.methods.nla.loss import nla_loss
from nlalib.methods.nla.weights import VARIANTS, naw_variant
from places import GOLDEN_FOLDER

GOLDEN = json.loads((GOLDEN_FOLDER / "nla_released.json").read_text())["cases"]
EVERY_VARIANT = [*VARIANTS, "released_2025_03"]
LARGE = 1e4


def random_views(n: int = 6, k: int = 7, seed: int = 0, dtype=torch.float64):
    generator = np.random.default_rng(seed)
    views = [
        torch.tensor(generator.normal(0, 2, (n, k)), dtype=dtype, requires_grad=True)
        for _ in range(2)
    ]
    return *views, torch.tensor(generator.integers(0, k, n))


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"n{case['n']}")
def test_total_and_gradients_are_the_released_ones(case):
    logits = torch.tensor(case["logits"], requires_grad=True)
    flipped = torch.tensor(case["logits_flipped"], requires_grad=True)
    labels = torch.tensor(case["labels"])
    schedule = {"epoch": case["epoch"], "epochs": case["epochs"]}
    loss = nla_loss(logits, flipped, labels, variant="released_2025_05", **schedule)
    loss.backward()
    expected = [
        torch.tensor(case[key])
        for key in ("total_official_2025_05", "grad_logits_total", "grad_logits_flipped_total")
    ]
    found = [loss.detach(), logits.grad, flipped.grad]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def total_by_hand(logits, flipped, labels, choice: dict, epoch: int, epochs: int) -> float:
    lists = (logits.tolist(), flipped.tolist(), labels.tolist())
    return nla_by_hand.total(*lists, choice, epoch, epochs)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("trade_off", [0.0, 0.3, 0.5, 1.0])
def test_total_by_hand(variant, trade_off):
    views, given = random_views(), {"trade_off": trade_off}
    expected = total_by_hand(*views, CHOICES[variant] | given, epoch=5, epochs=60)
    found = nla_loss(*views, epoch=5, epochs=60, variant=variant, **given)
    assert found.item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("variant", EVERY_VARIANT)
def test_gradients_of_the_total_are_those_of_central_differences(variant):
    logits, flipped, labels = random_views(n=3, k=4)
    assert torch.autograd.gradcheck(
        lambda z, z_flipped: nla_loss(z, z_flipped, labels, epoch=4, epochs=60, variant=variant),
        (logits, flipped),
    )


def test_variants_differ():
    logits, flipped, labels = random_views()
    totals = [
        nla_loss(logits, flipped, labels, epoch=4, epochs=60, variant=variant).item()
        for variant in EVERY_VARIANT
    ]
    assert min(abs(a - b) for i, a in enumerate(totals) for b in totals[:i]) > 1e-4


def test_detached_paper_variant_changes_the_gradient_and_not_the_value():
    logits, flipped, labels = random_views()
    schedule = {"epoch": 4, "epochs": 60}
    attached = nla_loss(logits, flipped, labels, **schedule)
    detached = nla_loss(
        logits, flipped, labels, variant=naw_variant("paper", detached=True), **schedule
    )
    torch.testing.assert_close(attached, detached)
    (one,), (other,) = (torch.autograd.grad(loss, logits) for loss in (attached, detached))
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("variant", EVERY_VARIANT)
def test_without_consistency_the_flipped_view_gets_no_gradient(variant):
    logits, flipped, labels = random_views()
    loss = nla_loss(logits, flipped, labels, epoch=4, epochs=60, variant=variant, trade_off=1.0)
    loss.backward()
    assert flipped.grad is None or flipped.grad.abs().max() == 0
    assert logits.grad.abs().max() > 0


SCHEDULE = {"epoch": 4, "epochs": 60}


@pytest.mark.parametrize("variant", EVERY_VARIANT)
@pytest.mark.parametrize("trade_off", [0.2, 0.5])
def test_without_weighting_the_rest_is_cross_entropy_and_consistency(variant, trade_off):
    logits, flipped, labels = random_views()
    given = {"trade_off": trade_off, "weighting": False}
    found = nla_loss(logits, flipped, labels, variant=variant, **given, **SCHEDULE)
    total = total_by_hand(logits, flipped, labels, CHOICES[variant] | given, **SCHEDULE)
    assert found.item() == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize("variant", EVERY_VARIANT)
def test_consistency_none_is_the_whole_of_lambda_one_and_reads_one_view(variant):
    logits, flipped, labels = random_views()
    alone = nla_loss(logits, None, labels, variant=variant, consistency="none", **SCHEDULE)
    whole = nla_loss(logits, flipped, labels, variant=variant, trade_off=1.0, **SCHEDULE)
    torch.testing.assert_close(alone, whole)
    plain = nla_loss(logits, None, labels, consistency="none", weighting=False, **SCHEDULE)
    torch.testing.assert_close(plain, functional.cross_entropy(logits, labels))


@pytest.mark.parametrize("variant", EVERY_VARIANT)
def test_consistency_of_the_variant_can_be_exchanged(variant):
    logits, flipped, labels = random_views()
    own = nla_loss(logits, flipped, labels, variant=variant, **SCHEDULE)
    other = "released" if variant == "paper" else "jensen_shannon"
    same = "jensen_shannon" if variant == "paper" else "released"
    losses = {
        name: nla_loss(logits, flipped, labels, variant=variant, consistency=name, **SCHEDULE)
        for name in (same, other)
    }
    torch.testing.assert_close(losses[same], own)
    difference = released_consistency(logits, flipped) - jensen_shannon(logits, flipped).mean()
    sign = 1 if other == "released" else -1
    torch.testing.assert_close(losses[other] - own, sign * difference / 2)


def test_a_variant_made_by_hand_comes_with_the_divergence():
    logits, flipped, labels = random_views()
    by_name = nla_loss(logits, flipped, labels, variant="paper", **SCHEDULE)
    by_hand = nla_loss(logits, flipped, labels, variant=naw_variant("paper"), **SCHEDULE)
    torch.testing.assert_close(by_name, by_hand)


def test_an_unknown_consistency_is_refused():
    with pytest.raises(ValueError, match="unknown consistency 'jsd'; known are jensen_shannon"):
        nla_loss(*random_views(), epoch=0, epochs=60, consistency="jsd")


@pytest.mark.parametrize("variant", EVERY_VARIANT)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_give_finite_values_and_gradients(variant, dtype):
    rows = [[LARGE, -LARGE, -LARGE], [-LARGE, LARGE, -LARGE], [LARGE] * 3, [LARGE, LARGE, -LARGE]]
    logits = torch.tensor(rows, dtype=dtype, requires_grad=True)
    flipped = torch.tensor(rows[::-1], dtype=dtype, requires_grad=True)
    labels = torch.zeros(4, dtype=torch.int64)
    loss = nla_loss(logits, flipped, labels, epoch=59, epochs=60, variant=variant)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert torch.isfinite(flipped.grad).all()


@pytest.mark.parametrize("variant", EVERY_VARIANT)
def test_a_single_sample_and_equal_views_leave_the_weighted_cross_entropy(variant):
    logits, _, labels = random_views(n=1)
    schedule = {"epoch": 4, "epochs": 60, "variant": variant}
    loss = nla_loss(logits, logits, labels, **schedule)
    whole = nla_loss(logits, logits, labels, trade_off=1.0, **schedule)
    torch.testing.assert_close(loss, 0.5 * whole)
    assert loss > 0.5 * functional.cross_entropy(logits, labels)


@pytest.mark.parametrize("trade_off", [-0.1, 1.1, float("nan")])
def test_a_trade_off_outside_its_range_is_refused(trade_off):
    with pytest.raises(ValueError, match=r"trade_off is .*between 0 and 1"):
        nla_loss(*random_views(), epoch=0, epochs=60, trade_off=trade_off)


def test_an_unknown_variant_and_an_epoch_outside_are_refused():
    with pytest.raises(ValueError, match="unknown NAW variant 'may'"):
        nla_loss(*random_views(), epoch=0, epochs=60, variant="may")
    with pytest.raises(ValueError, match="epoch is 60"):
        nla_loss(*random_views(), epoch=60, epochs=60)
