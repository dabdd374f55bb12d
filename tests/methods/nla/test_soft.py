"""What is special about NLA with votes."""

from dataclasses import replace

import torch

from method_batches import ready
from method_toys import learn_from_three_votes


def test_one_stray_vote_moves_the_weight_by_little(output):
    clear = torch.tensor([[0.0, 100, 0, 0, 0]]).expand(len(output.labels), -1)
    stray = torch.tensor([[1.0, 99, 0, 0, 0]]).expand(len(output.labels), -1)
    method = ready("nla_soft")
    one, other = (method(replace(output, votes=votes))[1] for votes in (clear, stray))
    assert (one["weight"] - other["weight"]).abs().max() < 0.01
    assert (one["p_negative"] - other["p_negative"]).abs().max() <= 0.01


def test_gradients_through_the_weight_cost_accuracy_where_votes_are_few():
    """What the docstring of nla_soft says."""
    _, attached, _ = learn_from_three_votes("nla_soft")
    _, detached, _ = learn_from_three_votes("nla_soft", detached=True)
    assert attached < detached - 0.05
