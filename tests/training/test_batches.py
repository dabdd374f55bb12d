"""A balanced sampler draws each class as often; what it leaves out is not recorded."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from nlalib.training import loop
from nlalib.training.augmentation import augment
from nlalib.training.batches import batches, to_tensor
from nlalib.training.config import RunConfig
from nlalib.training.launch import train

LABELS = np.repeat([0, 1, 2], [700, 200, 100])


def drawn(seed: int, epoch: int, labels=LABELS) -> list[int]:
    parts = batches(len(labels), 32, seed, epoch, labels=labels)
    return np.concatenate(parts).tolist()


def test_each_class_comes_as_often_in_the_mean():
    counts = Counter(int(LABELS[position]) for epoch in range(20) for position in drawn(0, epoch))
    assert sum(counts.values()) == 20 * len(LABELS)
    for number in counts.values():
        assert number == pytest.approx(20 * len(LABELS) / 3, rel=0.03)


def test_images_of_a_class_come_as_often_as_each_other():
    counts = Counter(position for epoch in range(200) for position in drawn(0, epoch))
    rare = [counts[position] for position in range(900, 1000)]
    assert min(rare) > 0.7 * np.mean(rare)
    assert np.mean(rare) == pytest.approx(200 * 1000 / 3 / 100, rel=0.03)


def test_draws_belong_to_seed_and_epoch():
    assert drawn(1, 2) == drawn(1, 2)
    assert drawn(1, 2) != drawn(1, 3)
    assert drawn(1, 2) != drawn(2, 2)


def test_a_run_records_what_it_has_seen_and_nothing_else(loaded, tmp_path, monkeypatch):
    monkeypatch.setenv("NLA_RUNS", str(tmp_path))
    config = RunConfig(
        train_images=180, test_images=40, image_size=16, epochs=2, device="cpu", method="ce"
    )
    config = replace(config, sampler="balanced", backbone="resnet10_narrow16_stride2")
    index, images = loaded(config)
    folder = train(config, index, images)
    records = pd.read_parquet(folder / "naw.parquet")
    labels = index.loc[index["part"] == "train", "label"].to_numpy()
    metrics = pd.read_csv(folder / "metrics.csv")
    for epoch, rows in records.groupby("epoch"):
        seen = set(drawn(config.seed, epoch, labels))
        assert 0 < len(seen) < len(labels)
        assert rows["p_gt"].notna().tolist() == [n in seen for n in range(len(labels))]
        right = rows["p_gt"] >= rows["p_nn"]
        share = right[rows["p_gt"].notna()].mean()
        assert metrics["train_accuracy"][epoch] == pytest.approx(share)


def test_each_draw_is_augmented_afresh(loaded, tmp_path, monkeypatch):
    monkeypatch.setenv("NLA_RUNS", str(tmp_path))
    config = RunConfig(
        train_images=180, test_images=40, image_size=16, epochs=1, device="cpu", method="ce",
        sampler="balanced", backbone="resnet10_narrow16_stride2",
    )  # fmt: skip
    index, images = loaded(config)
    numbers, pixels = [], []

    def watched(batch, draws, *given):
        numbers.extend(draws.tolist())
        pixels.append(batch)
        return augment(batch, draws, *given)

    monkeypatch.setattr(loop, "augment", watched)
    train(config, index, images)
    train_rows = np.flatnonzero(index["part"] == "train")
    order = drawn(0, 0, index["label"].to_numpy()[train_rows])
    assert len(set(order)) < len(order)  # some come twice
    assert sorted(numbers) == list(range(len(order)))  # and have numbers of their own
    assert np.array_equal(torch.cat(pixels), to_tensor(images[train_rows[order]]))


def test_two_processes_do_not_draw_alike():
    with pytest.raises(ValueError, match="a balanced sampler may draw an image twice"):
        RunConfig(sampler="balanced", processes=2)
