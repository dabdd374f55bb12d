"""NLA around the losses of candidates and of votes, against plain loops, and its limits."""

import math
from dataclasses import replace

import pytest
import torch

import nla_by_hand
from method_batches import (
    CLASSES,
    divergence,
    mean,
    ready,
    rows_of,
    with_all_candidates,
    with_one_candidate,
)
from nlalib.methods import make_method


@pytest.mark.parametrize("trade_off", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["nla_candidates", "nla_soft"])
def test_nla_with_votes_by_hand(output, name, trade_off):
    loss, records = ready(name, trade_off=trade_off)(output)
    total, weights = 0.0, []
    for row, z_flipped in zip(rows_of(output), output.logits_flipped.tolist(), strict=True):
        z, p, members, shares, _ = row
        if name == "nla_candidates":
            p_gt = sum(p[c] for c in members)
            p_nn = max([p[c] for c in range(CLASSES) if c not in members], default=0.0)
            inner = -math.log(p_gt)
        else:
            p_gt = sum(q * value for q, value in zip(shares, p, strict=True))
            p_nn = max((1 - q) * value for q, value in zip(shares, p, strict=True))
            inner = divergence(shares, p)
        assert p_gt + p_nn <= 1 + 1e-9
        at = (p_gt, p_nn)
        weights.append(nla_by_hand.weight(at, at, nla_by_hand.PAPER, epoch=3, epochs=10))
        total += trade_off * (1 + weights[-1]) * inner
        total += (1 - trade_off) * nla_by_hand.jensen_shannon(z, z_flipped)
    assert loss.item() == pytest.approx(total / len(output.labels), rel=1e-4)
    assert records["weight"].tolist() == pytest.approx(weights, rel=1e-4)


@pytest.mark.parametrize("name", ["nla_candidates", "nla_soft"])
def test_detached_weights_change_the_gradient_and_not_the_value(output, name):
    attached, detached = (ready(name, detached=d)(output)[0] for d in (False, True))
    torch.testing.assert_close(attached, detached)
    one, other = (torch.autograd.grad(loss, output.logits)[0] for loss in (attached, detached))
    assert (one - other).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["nla_candidates", "nla_soft"])
def test_nla_with_votes_without_its_weight_is_the_inner_loss(output, name):
    loss, records = ready(name, trade_off=1.0, weighting=False)(output)
    inner, _ = ready({"nla_candidates": "cc", "nla_soft": "ldl"}[name])(output)
    torch.testing.assert_close(loss, inner)
    assert "weight" not in records


@pytest.mark.parametrize("name", ["nla_candidates", "nla_soft"])
@pytest.mark.parametrize("variant", ["paper", "released_2025_05", "v_naw"])
def test_one_candidate_or_votes_that_agree_give_nla(output, name, variant):
    certain = with_one_candidate()
    samples = output.samples.tolist()
    batch = replace(output, candidates=certain.candidates[samples], votes=certain.votes[samples])
    loss, records = ready(name, certain, variant=variant)(batch)
    expected, expected_records = make_method("nla", {"variant": variant})(batch)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(records["weight"], expected_records["weight"])
    views = (output.logits, output.logits_flipped)
    torch.testing.assert_close(
        torch.autograd.grad(loss, views), torch.autograd.grad(expected, views), atol=1e-6, rtol=1e-4
    )


def test_all_candidates_leave_nla_its_consistency_alone(output):
    everything, batch = with_all_candidates(output)
    loss, _ = ready("nla_candidates", everything, trade_off=1.0)(batch)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert torch.autograd.grad(loss, output.logits)[0].abs().max() < 1e-6
    loss, _ = ready("nla_candidates", everything, trade_off=0.5)(batch)
    pairs = zip(output.logits.tolist(), output.logits_flipped.tolist(), strict=True)
    by_hand = mean(nla_by_hand.jensen_shannon(*pair) for pair in pairs) / 2
    assert loss.item() == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"variant": "released_2025_03"},
            "variant of nla_candidates is 'rel.*known are paper",
        ),
        ({"trade_off": 1.5}, r"trade_off of nla_candidates is 1\.5"),
        ({"weighting": 0}, "weighting of nla_candidates is 0"),
        ({"detached": "no"}, "detached of nla_candidates is 'no'"),
        ({"detached": True, "weighting": False}, r"detached of .* no weight"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_method("nla_candidates", settings)
