"""What reaches the network, the method and the optimizer during the epochs of a whole run.

A backbone and a method that keep what they are given listen to a run of seed 3, whose training
images lie among others in no order.
"""

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from nlalib.data.labels import expressions
from nlalib.methods import METHODS, Method
from nlalib.networks.registry import BACKBONES, Backbone, build_model
from nlalib.networks.representation import Representation
from nlalib.training.augmentation import RECIPES, EpochDraws, augment
from nlalib.training.config import RunConfig
from nlalib.training.launch import train

SEED, EPOCHS, BATCH, SIDE = 3, 2, 64, 16


class Listening(nn.Module):
    """A small network that keeps its first weights and the images of its training."""

    heard: "Heard"

    def __init__(self, num_classes: int):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, stride=2)
        self.fc = nn.Linear(4, num_classes)

    def forward(self, images):
        if self.training:
            if not self.heard.images:
                self.heard.first_weights = deepcopy(self.state_dict())
            self.heard.images.append(images.detach().clone())
        feature_map = self.convolution(images).relu()
        features = feature_map.mean(dim=(2, 3))
        return Representation(self.fc(features), features, feature_map)


class Noting(Method):
    """Cross-entropy that keeps what is said beside the images; its record is its number."""

    heard: "Heard"
    needs = ("votes",)

    def forward(self, output):
        self.heard.batches.append(output)
        loss = nn.functional.cross_entropy(output.logits, output.labels)
        return loss, {"number": output.samples.float()}


@dataclass
class Heard:
    """What was given, batch by batch, and what lay ready."""

    index: pd.DataFrame
    pixels: np.ndarray
    images: list
    batches: list
    rates: list
    records: pd.DataFrame | None = None
    first_weights: dict | None = None

    @property
    def training(self) -> np.ndarray:
        """Where the training images lie."""
        return np.flatnonzero(self.index["part"] == "train")

    @property
    def batches_in_an_epoch(self) -> int:
        return len(self.batches) // EPOCHS


@pytest.fixture(scope="module")
def heard(loaded, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLA_RUNS", str(tmp_path_factory.mktemp("runs")))
        patch.setitem(BACKBONES, "listening", Backbone(Listening))
        patch.setitem(METHODS, "noting", Noting)
        config = RunConfig(
            train_images=180,
            test_images=40,
            image_size=SIDE,
            backbone="listening",
            method="noting",
            augmentation="affine",
            lr_schedule="one_cycle",
            lr=0.01,
            epochs=EPOCHS,
            batch_size=BATCH,
            seed=SEED,
            device="cpu",
        )
        index, images = loaded(config)
        order = np.random.default_rng(0).permutation(len(index))
        index, images = index.iloc[order].reset_index(drop=True), images[order]
        heard = Heard(index, images, [], [], [])
        Listening.heard = Noting.heard = heard
        hook = register_optimizer_step_pre_hook(
            lambda optimizer, *_: heard.rates.append(optimizer.param_groups[0]["lr"])
        )
        try:
            folder = train(config, index, images)
        finally:
            hook.remove()
        heard.records = pd.read_parquet(folder / "naw.parquet")
        heard.others = [build_model("listening", 7, seed).state_dict() for seed in (SEED, 0)]
    return heard


def test_training_images_lie_in_no_order(heard):
    """Else the rest of this file would prove less."""
    assert not np.array_equal(heard.training, np.arange(len(heard.training)))
    assert len(heard.images) == len(heard.batches) == len(heard.rates) == 3 * EPOCHS


def test_each_sample_is_seen_once_an_epoch_in_the_order_of_seed_and_epoch(heard):
    for epoch in range(EPOCHS):
        first = epoch * heard.batches_in_an_epoch
        batches = heard.batches[first : first + heard.batches_in_an_epoch]
        seen = np.concatenate([batch.samples.numpy() for batch in batches])
        draws = np.random.default_rng([SEED, epoch, 0])
        assert np.array_equal(seen, draws.permutation(len(heard.training)))


def test_labels_and_votes_are_those_of_the_images(heard):
    rows = heard.index.iloc[heard.training]
    votes = rows[[f"votes_{name}" for name in expressions(7)]].to_numpy()
    for batch in heard.batches:
        assert np.array_equal(batch.labels, rows["label"].to_numpy()[batch.samples])
        assert np.array_equal(batch.votes, votes[batch.samples])


def test_images_are_those_of_the_samples_augmented_by_seed_and_epoch(heard):
    for number, (images, batch) in enumerate(zip(heard.images, heard.batches, strict=True)):
        epoch = number // heard.batches_in_an_epoch
        draws = EpochDraws(len(heard.training), SEED, epoch)
        pixels = torch.from_numpy(heard.pixels[heard.training[batch.samples]]).permute(0, 3, 1, 2)
        wanted = augment(pixels, batch.samples, draws, RECIPES["affine"])
        torch.testing.assert_close(images, wanted)


def test_the_method_is_told_epoch_and_epochs(heard):
    told = [(batch.epoch, batch.epochs) for batch in heard.batches]
    each = heard.batches_in_an_epoch
    assert told == [(epoch, EPOCHS) for epoch in range(EPOCHS) for _ in range(each)]


def test_the_network_begins_with_the_runs_seed(heard):
    own, other = heard.others
    for name, values in heard.first_weights.items():
        assert torch.equal(values, own[name])
    assert not torch.equal(own["fc.weight"], other["fc.weight"])


def test_the_rate_follows_one_cycle_step_by_step(heard):
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([parameter], lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=len(heard.rates))
    wanted = []
    for _ in heard.rates:
        wanted.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert heard.rates == pytest.approx(wanted)


def test_records_stand_beside_their_image_and_epoch(heard):
    ids = heard.index["image_id"].to_numpy()[heard.training]
    assert len(heard.records) == EPOCHS * len(ids)
    for epoch, records in heard.records.groupby("epoch"):
        assert epoch in range(EPOCHS)
        assert np.array_equal(ids[records["number"].astype(int)], records["image_id"])
