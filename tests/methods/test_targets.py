"""What the methods of candidates and votes share: limits, and a truth that is hidden."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from method_batches import (
    CLASSES,
    WIDTH,
    ready,
    with_all_candidates,
    with_one_candidate,
)
from method_toys import blobs, learn_from_three_votes, train
from nlalib.data.candidates import random_candidates
from nlalib.methods import METHODS, TrainingSet
from nlalib.methods.targets import probabilities_within

FROM_CANDIDATES = sorted(name for name in METHODS if METHODS[name].needs == ("candidates",))
FROM_VOTES = sorted(name for name in METHODS if METHODS[name].needs == ("votes",))


@pytest.mark.parametrize("epoch", [0, 3])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *[(name, {}) for name in ("cc", "rc", "proden", "cavl", "ldl", "self_distillation")],
        ("decoder", {"decoder": False, "uniformity": 0.0}),
        ("pico", {"weight": 0.0}),
    ],
)
def test_one_candidate_or_votes_that_agree_give_the_cross_entropy(output, name, settings, epoch):
    """Not `lws`, whose loss is sigmoid, and not `uncertainty` while its noise is not zero."""
    certain = with_one_candidate()
    samples = output.samples.tolist()
    batch = replace(
        output, candidates=certain.candidates[samples], votes=certain.votes[samples], epoch=epoch
    )
    loss, _ = ready(name, certain, **settings)(batch)
    expected = functional.cross_entropy(output.logits, output.labels)
    torch.testing.assert_close(loss, expected)
    found, wanted = (torch.autograd.grad(x, output.logits)[0] for x in (loss, expected))
    torch.testing.assert_close(found, wanted)


def test_all_candidates_give_cc_and_rc_no_gradient(output):
    everything, batch = with_all_candidates(output)
    loss, _ = ready("cc", everything)(batch)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    for name in ("cc", "rc"):
        loss, _ = ready(name, everything)(batch)
        assert torch.autograd.grad(loss, output.logits)[0].abs().max() < 1e-6


@pytest.mark.parametrize(
    ("name", "settings"),
    [("proden", {}), ("decoder", {"decoder": False, "momentum": 0.0, "uniformity": 0.0})],
)
def test_all_candidates_give_stored_targets_no_gradient_where_predictions_stand_still(
    output, name, settings
):
    everything, batch = with_all_candidates(output)
    method = ready(name, everything, **settings)
    first, second = (
        torch.autograd.grad(method(batch)[0], output.logits)[0].abs().max() for _ in range(2)
    )
    assert first > 1e-3  # towards the uniform targets of the first turn
    assert second < 1e-6


def test_all_candidates_do_move_cavl_and_leave_equal_logits_of_lws_equal(output):
    everything, batch = with_all_candidates(output)
    cavl = ready("cavl", everything)
    cavl(batch)
    assert torch.autograd.grad(cavl(batch)[0], output.logits)[0].abs().max() > 1e-3
    equal = torch.full(output.logits.shape, 0.7, requires_grad=True)
    loss, _ = ready("lws", everything)(replace(batch, logits=equal))
    (gradient,) = torch.autograd.grad(loss, equal)
    assert gradient.max() < 0
    torch.testing.assert_close(gradient, gradient[:, :1].expand(-1, CLASSES))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *[(name, {}) for name in FROM_CANDIDATES if name != "decoder"],
        ("decoder", {"decoder": False}),
    ],
)
def test_a_linear_model_finds_the_truth_in_the_candidates(name, settings):
    features, truth = blobs()
    # More dimensions than two, so that the weight's rows have room to keep apart.
    features = functional.pad(features, (0, WIDTH - 2))
    candidates = torch.from_numpy(random_candidates(truth.numpy(), CLASSES, 0.5, seed=1))
    training_set = TrainingSet(truth, CLASSES, WIDTH, candidates=candidates)
    chance = (1 / candidates.sum(dim=1)).mean()
    method = ready(name, training_set, **settings)
    torch.manual_seed(0)
    records = train(method, nn.Linear(WIDTH, CLASSES), features, truth, training_set)
    assert chance < 0.5
    assert records["disambiguated"].mean() > 0.9
    assert (records["identified"] == truth).float().mean() > 0.9


@pytest.mark.parametrize("name", FROM_VOTES)
def test_a_linear_model_sees_through_the_votes_of_single_images(name):
    settings = {"detached": True} if name == "nla_soft" else {}
    majority, accuracy, p_truth = learn_from_three_votes(name, **settings)
    assert majority < 0.6
    assert accuracy > 0.9
    assert 0.3 < p_truth < 0.6  # the distribution of the votes, and no sure answer


def test_probabilities_within_sets_that_underflow_or_are_empty():
    logits = torch.tensor([[1e4, 0.0, 0.0], [1.0, 2.0, 3.0]])
    members = torch.tensor([[False, True, True], [False, False, False]])
    assert probabilities_within(logits, members).tolist() == [[0, 0.5, 0.5], [0, 0, 0]]
