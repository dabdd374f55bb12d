"""The two consistency terms against SciPy, the released code's numbers and plain loops."""

import json
import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax

from nla_by_hand import released_consistency as released_by_hand
from nlalib.methods.nla.consistency import absolute_difference, jensen_shannon, released_consistency
from places import GOLDEN_FOLDER

GOLDEN = json.loads((GOLDEN_FOLDER / "nla_released.json").read_text())["cases"]
LARGE = 1e4
both_terms = pytest.mark.parametrize("term", [jensen_shannon, released_consistency])


def two_views(n: int, k: int = 7, seed: int = 0, spread: float = 3.0):
    generator = np.random.default_rng(seed)
    return [torch.tensor(generator.normal(0, spread, (n, k))) for _ in range(2)]


@pytest.mark.parametrize("spread", [0.1, 3.0, 20.0])
def test_jensen_shannon_is_scipys(spread):
    z, z_flipped = two_views(8, spread=spread)
    expected = jensenshannon(softmax(z.numpy(), axis=1), softmax(z_flipped.numpy(), axis=1), axis=1)
    torch.testing.assert_close(
        jensen_shannon(z, z_flipped), torch.tensor(expected**2), atol=1e-10, rtol=1e-7
    )


@both_terms
def test_gradients_are_those_of_central_differences(term):
    z, z_flipped = (view.requires_grad_() for view in two_views(3, k=4))
    assert torch.autograd.gradcheck(lambda *views: term(*views).sum(), (z, z_flipped))


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"n{case['n']}")
def test_released_consistency_is_the_released_one(case):
    z, z_flipped = torch.tensor(case["logits"]), torch.tensor(case["logits_flipped"])
    found = float(released_consistency(z, z_flipped))
    assert found == pytest.approx(case["jsd_official_sum"], rel=1e-5, abs=1e-5)
    assert released_by_hand(z.tolist(), z_flipped.tolist()) == pytest.approx(
        case["jsd_official_sum"], rel=1e-4
    )


def test_released_consistency_is_a_sum_over_samples():
    z, z_flipped = two_views(6)
    parts = [released_consistency(z[i : i + 1], z_flipped[i : i + 1]) for i in range(6)]
    torch.testing.assert_close(released_consistency(z, z_flipped), torch.stack(parts).sum())
    assert float(released_consistency(z, z_flipped)) == pytest.approx(
        released_by_hand(z.tolist(), z_flipped.tolist()), rel=1e-9
    )


def test_released_consistency_has_no_upper_bound_and_the_divergence_has():
    opposite = torch.tensor([[50.0, -50.0]]), torch.tensor([[-50.0, 50.0]])
    assert released_consistency(*opposite) > 10 * math.log(2)
    assert float(jensen_shannon(*opposite)) == pytest.approx(math.log(2), abs=1e-6)


def test_jensen_shannon_of_a_sample_does_not_depend_on_its_batch():
    z, z_flipped = two_views(7)
    together = jensen_shannon(z, z_flipped)
    assert together.shape == (7,)
    alone = [jensen_shannon(z[i : i + 1], z_flipped[i : i + 1]) for i in range(7)]
    torch.testing.assert_close(torch.cat(alone), together)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    torch.testing.assert_close(jensen_shannon(z[order], z_flipped[order]), together[order])


views = st.integers(1, 5).flatmap(
    lambda n: st.tuples(*[
        st.lists(
            st.lists(st.floats(-LARGE, LARGE, width=32), min_size=4, max_size=4),
            min_size=n,
            max_size=n,
        )
        for _ in range(2)
    ])
)  # fmt: skip


@settings(max_examples=60)
@given(views)
def test_jensen_shannon_is_a_symmetric_divergence_of_at_most_ln_2(pair):
    z, z_flipped = map(torch.tensor, pair)
    found = jensen_shannon(z, z_flipped)
    assert ((found >= -1e-6) & (found <= math.log(2) + 1e-6)).all()
    torch.testing.assert_close(found, jensen_shannon(z_flipped, z))


@settings(max_examples=30)
@given(views, st.floats(-50, 50, width=32))
def test_equal_views_differ_by_nothing(pair, shift):
    z = torch.tensor(pair[0], dtype=torch.float64)
    # A constant added to all logits changes no probability.
    assert jensen_shannon(z, z + shift).abs().max() < 1e-9
    assert released_consistency(z, z + shift).abs() < 1e-9


@both_terms
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_give_finite_values_and_gradients(term, dtype):
    z = torch.tensor([[LARGE, -LARGE, -LARGE], [LARGE] * 3, [-LARGE, LARGE, 0.0]], dtype=dtype)
    z_flipped = torch.tensor([[-LARGE, LARGE, 0.0], [0.0] * 3, [-LARGE, LARGE, 0.0]], dtype=dtype)
    z, z_flipped = z.requires_grad_(), z_flipped.requires_grad_()
    value = term(z, z_flipped)
    value.sum().backward()
    assert value.dtype == dtype
    for tensor in (value, z.grad, z_flipped.grad):
        assert torch.isfinite(tensor).all()


@both_terms
def test_float32_agrees_with_float64(term):
    z, z_flipped = two_views(16)
    torch.testing.assert_close(
        term(z.float(), z_flipped.float()).double(), term(z, z_flipped), rtol=1e-4, atol=1e-5
    )


def test_l1_distance_is_a_plain_loop():
    z, z_flipped = two_views(5)
    p, q = softmax(z.numpy(), axis=1), softmax(z_flipped.numpy(), axis=1)
    for found, one, other in zip(absolute_difference(z, z_flipped), p, q, strict=True):
        assert float(found) == pytest.approx(
            sum(abs(a - b) for a, b in zip(one, other, strict=True))
        )
    sure, opposite = torch.eye(2) * LARGE, torch.eye(2).flip(0) * LARGE
    assert absolute_difference(sure, opposite).tolist() == [2, 2]
    assert absolute_difference(sure, sure).tolist() == [0, 0]
