"""The bare step does what a run's step does to the network, and no more."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from nlalib.networks.representation import Representation
from nlalib.training import bare_step
from nlalib.training.config import RunConfig

TINY = RunConfig(image_size=16, batch_size=6, device="cpu", backbone="resnet10_narrow16_stride2")


class Spy(nn.Module):
    """A linear network that remembers what it was given."""

    def __init__(self, *_):
        super().__init__()
        self.fc = nn.Linear(3, 7)
        self.seen = []

    def forward(self, images):
        self.seen.append((tuple(images.shape), self.fc.weight.detach().clone()))
        features = images.mean(dim=(2, 3))
        return Representation(self.fc(features), features, images)


@pytest.mark.parametrize(("method", "views"), [("ce", 1), ("eac", 2), ("nla", 2)])
def test_each_call_makes_as_many_steps_on_as_many_views_as_the_method_sees(
    monkeypatch, method, views
):
    network = Spy()
    monkeypatch.setattr(bare_step, "build_model", lambda *_: network)
    several = bare_step.bare_steps(replace(TINY, method=method), 3, graph=False)
    assert network.seen == []
    for calls in (1, 2):
        several()
        assert len(network.seen) == 3 * calls
    assert {shape for shape, _ in network.seen} == {(views * 6, 3, 16, 16)}
    moved = [not torch.equal(a, b) for (_, a), (_, b) in pairwise(network.seen)]
    assert all(moved)


def test_a_network_of_the_study_takes_the_bare_step():
    bare_step.bare_steps(TINY, 1, graph=False)()


@pytest.mark.cuda
def test_a_graph_of_the_bare_step_keeps_what_it_plays_on():
    config = replace(TINY, device="cuda", precision="bf16", image_size=48)
    several = bare_step.bare_steps(config, 3, graph=True)
    torch.cuda.empty_cache()  # gives back what nobody holds, as the next recording does
    several()
    assert bare_step.most_images_per_second(config) > 1
