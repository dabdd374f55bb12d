"""NAW's weights against the released code's numbers and against the formula by hand."""

import json
import math
from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

import nla_by_hand
from nla_by_hand import CHOICES
from nlalib.methods.nla.weights import (
    VARIANTS,
    diagonal_covariance,
    epoch_scale,
    gaussian,
    label_and_nearest_negative,
    naw_loss,
    naw_variant,
    naw_weights,
    weight_at,
)
from places import GOLDEN_FOLDER

# Numbers of the authors' code on random logits, float32.
GOLDEN = json.loads((GOLDEN_FOLDER / "nla_released.json").read_text())["cases"]
EVERY_LOSS = [*VARIANTS, "released_2025_03"]
SCHEDULES = [(0, 60), (1, 60), (20, 60), (59, 60), (0, 1)]
cases = pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"n{case['n']}")
variants = pytest.mark.parametrize("variant", VARIANTS)
losses = pytest.mark.parametrize("variant", EVERY_LOSS)


def slopes(function, logits: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Return the gradient by central differences."""
    gradient = np.zeros_like(logits)
    for place in np.ndindex(*logits.shape):
        shift = np.zeros_like(logits)
        shift[place] = step
        gradient[place] = (function(logits + shift) - function(logits - shift)) / (2 * step)
    return gradient


def random_batch(n: int, k: int = 7, seed: int = 0, spread: float = 2.0):
    """Return float64 logits and labels, about half of which lead."""
    generator = np.random.default_rng(seed)
    logits, labels = generator.normal(0, spread, (n, k)), generator.integers(0, k, n)
    logits[np.arange(n), labels] += spread
    return logits, labels


def as_tensors(logits, labels, dtype=torch.float64, requires_grad=False):
    logits = torch.tensor(np.asarray(logits), dtype=dtype, requires_grad=requires_grad)
    return logits, torch.tensor(np.asarray(labels))


def close(value, expected, atol=1e-5, rtol=1e-5):
    torch.testing.assert_close(
        value.detach().double(),
        torch.as_tensor(expected, dtype=torch.float64),
        atol=atol,
        rtol=rtol,
    )


# --- the released code ----------------------------------------------------------------------


@cases
def test_points_are_the_released_ones(case):
    p_gt, p_nn = label_and_nearest_negative(
        *as_tensors(case["logits"], case["labels"], torch.float32)
    )
    close(p_gt, case["p_gt"])
    close(p_nn, case["p_nn"])
    assert (p_gt >= p_nn).tolist() == case["is_true_case"]
    assert epoch_scale(case["epoch"], case["epochs"]) == pytest.approx(case["epsilon"], abs=1e-7)


@cases
@pytest.mark.parametrize(
    ("variant", "key"),
    [("released_2025_05", "weight_official_2025_05"), ("v_naw", "weight_v_naw")],
)
def test_weights_are_the_released_ones(case, variant, key):
    logits, labels = as_tensors(case["logits"], case["labels"], torch.float32)
    schedule = {"epoch": case["epoch"], "epochs": case["epochs"], "variant": variant}
    close(naw_weights(logits, labels, **schedule), case[key])
    by_hand = nla_by_hand.weights(
        case["logits"], case["labels"], CHOICES[variant], case["epoch"], case["epochs"]
    )
    assert by_hand == pytest.approx(case[key], abs=1e-5)  # the loops are right as well


@cases
def test_losses_are_the_released_ones(case):
    logits, labels = as_tensors(case["logits"], case["labels"], torch.float32)
    schedule = {"epoch": case["epoch"], "epochs": case["epochs"]}
    may = naw_loss(logits, labels, variant="released_2025_05", **schedule)
    close(may, np.mean(case["naw_loss_official_2025_05"]))
    march = naw_loss(logits, labels, variant="released_2025_03", **schedule)
    close(march, case["naw_loss_mean_official_2025_03"])
    by_hand = nla_by_hand.naw_loss(case["logits"], case["labels"], "released_2025_03", **schedule)
    assert by_hand == pytest.approx(case["naw_loss_mean_official_2025_03"], rel=1e-5)


def test_the_golden_cases_hold_both_kinds_of_samples():
    leading = [is_true for case in GOLDEN for is_true in case["is_true_case"]]
    assert 10 < sum(leading) < len(leading) - 10


# --- plain loops ----------------------------------------------------------------------------


@variants
@pytest.mark.parametrize(("epoch", "epochs"), SCHEDULES)
def test_weights_and_their_gradient_follow_the_formula(variant, epoch, epochs):
    values, labels = random_batch(6, seed=epoch)
    directions = np.random.default_rng(1).normal(size=6)
    assert {p >= q for p, q in map(nla_by_hand.point, values, labels)} == {True, False}

    logits, targets = as_tensors(values, labels, requires_grad=True)
    weights = naw_weights(logits, targets, epoch=epoch, epochs=epochs, variant=variant)
    close(weights, nla_by_hand.weights(values, labels, CHOICES[variant], epoch, epochs), atol=1e-10)
    weights.backward(torch.tensor(directions))

    def by_hand(z):
        return np.dot(directions, nla_by_hand.weights(z, labels, CHOICES[variant], epoch, epochs))

    close(logits.grad, slopes(by_hand, values), atol=1e-7)


@losses
@pytest.mark.parametrize(("epoch", "epochs"), SCHEDULES)
def test_loss_and_its_gradient_follow_the_formula(variant, epoch, epochs):
    values, labels = random_batch(5, seed=10 + epoch)
    schedule = {"variant": variant, "epoch": epoch, "epochs": epochs}
    logits, targets = as_tensors(values, labels, requires_grad=True)
    loss = naw_loss(logits, targets, **schedule)
    close(loss, nla_by_hand.naw_loss(values, labels, **schedule), atol=1e-10)
    loss.backward()
    close(
        logits.grad,
        slopes(lambda z: nla_by_hand.naw_loss(z, labels, **schedule), values),
        atol=1e-7,
    )


@pytest.mark.parametrize(("ratio", "covariance"), [(2, 0.48), (6, 0.7568), (1, 0.0)])
def test_covariance_from_the_papers_two_numbers(ratio, covariance):
    variance, found = diagonal_covariance(0.8, ratio)
    assert variance == 0.8
    assert found == pytest.approx(covariance, abs=5e-5)
    eigenvalues = np.linalg.eigvalsh([[variance, found], [found, variance]])
    assert math.sqrt(eigenvalues[1] / eigenvalues[0]) == pytest.approx(ratio)


def test_schedule_of_the_released_code():
    stated = {0: 0.0, 1: 0.221, 2: 0.393, 5: 0.713, 20: 0.993}
    for epoch, scale in stated.items():
        assert epoch_scale(epoch, 60) == pytest.approx(scale, abs=5e-4)
    scales = [epoch_scale(epoch, 60) for epoch in range(60)]
    assert all(a < b for a, b in pairwise(scales))
    assert epoch_scale(3, 10, slope=2.0) == pytest.approx(1 - math.exp(-0.6))


def test_normalised_gaussian_is_a_density():
    axis = torch.linspace(-6, 7, 800, dtype=torch.float64)
    p_gt, p_nn = torch.meshgrid(axis, axis, indexing="ij")
    values = gaussian(p_gt, p_nn, (0.3, 0.15), 0.8, 0.7568, normalised=True)
    assert float(values.sum() * (axis[1] - axis[0]) ** 2) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("variant", "true_range", "false_range"),
    [
        ("released_2025_05", (1.15, 1.25), (1.00, 1.48)),
        ("v_naw", (1.7, 2.0), (1.0, 1.84)),
    ],
)
def test_weights_span_what_is_known_of_the_releases(variant, true_range, false_range):
    """Spans of 1 + w noted of the released code, on all points that seven classes allow."""
    grid = torch.linspace(0, 1, 401, dtype=torch.float64)
    p_gt, p_nn = torch.meshgrid(grid, grid, indexing="ij")
    possible = (p_gt + p_nn <= 1 + 1e-9) & (p_nn >= (1 - p_gt) / 6 - 1e-9)
    lifted = 1 + weight_at(p_gt, p_nn, epoch=59, epochs=60, variant=variant)
    for case, (low, high) in ((p_gt >= p_nn, true_range), (p_gt < p_nn, false_range)):
        span = lifted[case & possible]
        assert float(span.min()) == pytest.approx(low, abs=0.1)
        assert float(span.max()) == pytest.approx(high, abs=0.06)


@variants
def test_a_tie_belongs_to_the_true_case(variant):
    tie = torch.tensor([0.5], dtype=torch.float64)
    true, _ = nla_by_hand.gaussians(CHOICES[variant], 9, 60)
    at = (0.5, 0.5)
    expected = nla_by_hand.density(at, at, *true, CHOICES[variant]["normalised"])
    assert float(weight_at(tie, tie, epoch=9, epochs=60, variant=variant)) == pytest.approx(
        expected
    )


def test_a_changed_variant_leaves_the_named_one_as_it_is():
    before = VARIANTS["paper"]
    changed = naw_variant("paper", slope=0.0, normalised=False)
    assert (changed.slope, changed.normalised) == (0.0, False)
    assert VARIANTS["paper"] is before
    assert (before.slope, before.normalised) == (15.0, True)
    assert naw_variant(changed, slope=15.0, normalised=True) == before


@pytest.mark.parametrize("epoch", [0, 5, 59])
def test_without_slope_the_schedule_stays_at_its_first_epoch(epoch):
    values, labels = random_batch(12)
    still = naw_weights(
        *as_tensors(values, labels), epoch=epoch, epochs=60, variant=naw_variant("paper", slope=0.0)
    )
    close(still, nla_by_hand.weights(values, labels, CHOICES["paper"], 0, 60), atol=1e-10)


@pytest.mark.parametrize("case", ["true", "false"])
def test_round_gaussians_depend_on_the_distance_from_the_mean_alone(case):
    round_one = naw_variant("paper", true_covariance=0.0, false_covariance=0.0)
    mean = {"true": (0.5, 0.5), "false": (0.3, 0.15)}[case]
    # Points of the case: half a circle around the mean, on its side of the line or beyond it.
    start = -3 * math.pi / 4 if case == "true" else math.pi / 4
    angles = start + math.pi * (0.1 + 0.8 * torch.linspace(0, 1, 9, dtype=torch.float64))
    radius = 0.3
    p_gt = mean[0] + radius * torch.cos(angles)
    p_nn = mean[1] + radius * torch.sin(angles)
    is_case = (p_gt >= p_nn) == (case == "true")
    assert is_case.sum() >= 3
    found = weight_at(p_gt[is_case], p_nn[is_case], epoch=30, epochs=60, variant=round_one)
    close(found, [math.exp(-(radius**2) / 1.6) / (2 * math.pi * 0.8)] * len(found), atol=1e-12)


# --- samples and their batch-mates -----------------------------------------------------------


@variants
def test_weights_do_not_depend_on_batch_mates_or_order(variant):
    logits, labels = as_tensors(*random_batch(9), requires_grad=True)
    schedule = {"variant": variant, "epoch": 7, "epochs": 60}
    together = naw_weights(logits, labels, **schedule)
    order = torch.tensor([4, 8, 1, 0, 7, 2, 6, 3, 5])
    torch.testing.assert_close(
        naw_weights(logits[order], labels[order], **schedule), together[order]
    )
    alone = [naw_weights(logits[i : i + 1], labels[i : i + 1], **schedule) for i in range(9)]
    torch.testing.assert_close(torch.cat(alone), together)
    (gradient,) = torch.autograd.grad(together[3], logits)
    assert gradient[3].abs().sum() > 0
    assert gradient[torch.arange(9) != 3].abs().sum() == 0


def mean_of_single_losses(logits, labels, **schedule):
    singles = [naw_loss(z[None], y[None], **schedule) for z, y in zip(logits, labels, strict=True)]
    return torch.stack(singles).mean()


@variants
def test_loss_is_the_mean_of_the_samples_losses(variant):
    logits, labels = as_tensors(*random_batch(9))
    schedule = {"variant": variant, "epoch": 7, "epochs": 60}
    together = naw_loss(logits, labels, **schedule)
    torch.testing.assert_close(together, mean_of_single_losses(logits, labels, **schedule))


def test_the_loss_of_march_depends_on_batch_mates():
    logits, labels = as_tensors(*random_batch(9))
    schedule = {"variant": "released_2025_03", "epoch": 7, "epochs": 60}
    together = naw_loss(logits, labels, **schedule)
    assert abs(together - mean_of_single_losses(logits, labels, **schedule)) > 0.05


@pytest.mark.parametrize("variant", ["released_2025_05", "released_2025_03"])
def test_a_single_sample_has_no_batch_mates(variant):
    values, labels = random_batch(1)
    loss = naw_loss(*as_tensors(values, labels), variant=variant, epoch=7, epochs=60)
    close(loss, nla_by_hand.naw_loss(values, labels, "released_2025_05", 7, 60), atol=1e-10)


# --- numbers at the limit --------------------------------------------------------------------

LARGE = 1e4
EXTREME = torch.tensor(
    [
        [LARGE, -LARGE, -LARGE],  # certain of the label
        [-LARGE, LARGE, -LARGE],  # certain of another class
        [LARGE, LARGE, LARGE],  # nothing known
        [LARGE, LARGE, -LARGE],  # on the line p_gt = p_nn
        [-LARGE, LARGE, LARGE],  # two other classes
        [0.0, LARGE, -LARGE],
    ]
)


@losses
@pytest.mark.parametrize("epoch", [0, 59])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_give_finite_values_and_gradients(variant, epoch, dtype):
    logits = EXTREME.clone().to(dtype).detach().requires_grad_()
    loss = naw_loss(
        logits, torch.zeros(6, dtype=torch.int64), variant=variant, epoch=epoch, epochs=60
    )
    loss.backward()
    assert loss.dtype == dtype
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_the_weights_of_march_are_bounded_by_the_probabilities_alone():
    """No square, but p_gt and p_nn lie in [0, 1]: a large cross-entropy cannot make it overflow.

    The form is bilinear in the two samples' points, so its extremes lie at the triangle's corners.
    """
    corners = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5)]
    largest = 0.0
    for case in nla_by_hand.gaussians(CHOICES["released_2025_03"], 59, 60):
        for first in corners:
            values = [nla_by_hand.density(first, second, *case, True) for second in corners]
            largest = max(largest, *values)
    assert 2 < largest < 1e4
    logits = EXTREME.double()
    loss = naw_loss(
        logits,
        torch.zeros(6, dtype=torch.int64),
        variant="released_2025_03",
        epoch=59,
        epochs=60,
    )
    cross_entropy = torch.nn.functional.cross_entropy(logits, torch.zeros(6, dtype=torch.int64))
    assert loss <= largest * cross_entropy


@losses
def test_float32_agrees_with_float64(variant):
    values, labels = random_batch(16, seed=5)
    schedule = {"variant": variant, "epoch": 4, "epochs": 60}
    found = {}
    for dtype in (torch.float32, torch.float64):
        logits, targets = as_tensors(values, labels, dtype, requires_grad=True)
        loss = naw_loss(logits, targets, **schedule)
        loss.backward()
        assert loss.dtype == dtype
        found[dtype] = (loss.detach().double(), logits.grad.double())
    for single, double in zip(found[torch.float32], found[torch.float64], strict=True):
        torch.testing.assert_close(single, double, rtol=1e-4, atol=1e-5)


finite_logits = st.lists(
    st.lists(st.floats(-LARGE, LARGE, width=32), min_size=4, max_size=4), min_size=1, max_size=6
)


@settings(max_examples=40)
@given(finite_logits, st.sampled_from(sorted(VARIANTS)), st.integers(0, 59))
def test_weights_lie_between_zero_and_the_peak_of_their_case(rows, variant, epoch):
    logits = torch.tensor(rows)
    labels = torch.zeros(len(rows), dtype=torch.int64)
    weights = naw_weights(logits, labels, epoch=epoch, epochs=60, variant=variant)
    p_gt, p_nn = label_and_nearest_negative(logits, labels)
    peaks = [
        nla_by_hand.density(case[0], case[0], *case, CHOICES[variant]["normalised"])
        for case in nla_by_hand.gaussians(CHOICES[variant], epoch, 60)
    ]
    assert weights.shape == (len(rows),)
    assert ((p_gt >= 0) & (p_nn >= 0) & (p_gt + p_nn <= 1 + 1e-6)).all()
    highest = torch.where(p_gt >= p_nn, peaks[0], peaks[1])
    assert ((weights >= 0) & (weights <= highest + 1e-6)).all()


# --- choices and errors ----------------------------------------------------------------------


@variants
def test_detached_weights_pass_no_gradient(variant):
    detached = naw_variant(variant, detached=True)
    schedule = {"epoch": 3, "epochs": 60}
    logits, labels = as_tensors(*random_batch(5), requires_grad=True)
    attached_weights = naw_weights(logits, labels, variant=variant, **schedule)
    weights = naw_weights(logits, labels, variant=detached, **schedule)
    assert attached_weights.requires_grad
    assert not weights.requires_grad
    torch.testing.assert_close(weights, attached_weights.detach())

    naw_loss(logits, labels, variant=detached, **schedule).backward()
    found = logits.grad.clone()
    cross_entropy = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    (expected,) = torch.autograd.grad((weights * cross_entropy).mean(), logits)
    torch.testing.assert_close(found, expected)
    attached = naw_loss(logits, labels, variant=variant, **schedule)
    (other,) = torch.autograd.grad(attached, logits)
    assert (other - found).abs().max() > 1e-3


def test_single_choices_can_be_changed():
    flat = naw_variant("paper", slope=0.0)
    logits, labels = as_tensors(*random_batch(5))
    late = naw_weights(logits, labels, variant=flat, epoch=59, epochs=60)
    first = naw_weights(logits, labels, variant="paper", epoch=0, epochs=60)
    torch.testing.assert_close(late, first)


@pytest.mark.parametrize("function", [naw_weights, naw_loss])
def test_an_unknown_variant_is_refused_with_the_known_ones(function):
    logits, labels = as_tensors(*random_batch(2))
    with pytest.raises(ValueError, match="unknown NAW variant 'papre'; known are paper"):
        function(logits, labels, epoch=0, epochs=60, variant="papre")


@losses
@pytest.mark.parametrize("epoch", [-1, 60])
def test_an_epoch_outside_the_schedule_is_refused(variant, epoch):
    logits, labels = as_tensors(*random_batch(2))
    with pytest.raises(ValueError, match=f"epoch is {epoch}.*0 to epochs - 1 = 59"):
        naw_loss(logits, labels, epoch=epoch, epochs=60, variant=variant)


@pytest.mark.parametrize(("variance", "ratio"), [(0.0, 2), (0.8, 0.5)])
def test_impossible_axes_are_refused(variance, ratio):
    with pytest.raises(ValueError, match="must be > 0"):
        diagonal_covariance(variance, ratio)
