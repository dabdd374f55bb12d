"""A run's index: three parts that share no image, stratified, the same for the same seed."""

import numpy as np
import pandas as pd
import pytest

from nlalib import datasets
from nlalib.datasets import dataset_root, load_dataset, stratified_subset
from nlalib.labels import RAFDB_TEST_COUNTS, RAFDB_TRAIN_COUNTS
from nlalib.paths import ROOT
from nlalib.runs import RunConfig

RENDERED = RunConfig(train_images=300, test_images=90, held_out=0.2)


@pytest.fixture(scope="module")
def rendered():
    return load_dataset(RENDERED)


def labelled(counts: dict[int, int], split: str, start: int = 0) -> pd.DataFrame:
    """An index with so many images of each class, the classes mixed."""
    labels = np.repeat(list(counts), list(counts.values()))
    labels = np.random.default_rng(0).permutation(labels)
    names = [f"{split}{number:05d}" for number in range(start, start + len(labels))]
    return pd.DataFrame(
        {"image_id": names, "path": [f"{n}.png" for n in names], "split": split, "label": labels}
    )


@pytest.fixture
def ferplus(monkeypatch):
    """A stand-in for the FERPlus reader; returns what it is asked with."""
    asked = {}
    index = pd.concat(
        [
            labelled({0: 200, 1: 40, 2: 60}, "train"),
            labelled({0: 20, 1: 4, 2: 6}, "validation"),
            labelled({0: 50, 1: 10, 2: 40}, "test"),
        ]
    )
    dropped = pd.DataFrame({"split": ["train"], "reason": ["tie"], "images": [3]})

    def read(root, **options):
        asked.update(root=root, **options)
        return index, dropped

    monkeypatch.setattr(datasets, "read_ferplus", read)
    return index, dropped, asked


def part(index: pd.DataFrame, name: str) -> pd.DataFrame:
    return index[index["part"] == name]


def test_parts_are_disjoint_and_complete(rendered):
    index, dropped = rendered
    assert index["image_id"].is_unique
    assert index["path"].is_unique
    assert index["part"].value_counts().to_dict() == {"train": 240, "held_out": 60, "test": 90}
    assert set(part(index, "test")["split"]) == {"test"}
    assert set(index[index["part"] != "test"]["split"]) == {"train"}
    assert list(index.index) == list(range(390))
    assert list(dropped.columns) == ["split", "reason", "images"]
    assert dropped.empty


def test_held_out_part_has_the_class_shares_of_the_training_images(rendered):
    index, _ = rendered
    for _, images in index[index["part"] != "test"].groupby("label"):
        assert abs((images["part"] == "held_out").sum() - 0.2 * len(images)) <= 1


def test_same_seed_same_index_other_seed_another(rendered):
    again, _ = load_dataset(RENDERED)
    pd.testing.assert_frame_equal(again, rendered[0])
    other, _ = load_dataset(RunConfig(train_images=300, test_images=90, data_seed=1))
    assert not set(other["path"]) & set(again["path"])
    # The seed of the training touches no image.
    same, _ = load_dataset(RunConfig(train_images=300, test_images=90, held_out=0.2, seed=5))
    pd.testing.assert_frame_equal(same, again)


def test_noise_changes_its_share_of_training_labels_and_no_other(rendered):
    clean, _ = rendered
    noisy, _ = load_dataset(
        RunConfig(train_images=300, test_images=90, held_out=0.2, noise_rate=0.2)
    )
    labels = clean.set_index("image_id")["label"]
    is_changed = noisy["label"].to_numpy() != labels[noisy["image_id"]].to_numpy()
    is_test = (noisy["part"] == "test").to_numpy()
    assert is_changed[~is_test].sum() == 60
    assert not is_changed[is_test].any()
    assert np.array_equal(is_changed, noisy["is_flipped"])
    assert len(part(noisy, "test")) == 90


def test_all_rendered_images_are_as_many_as_rafdb_has(monkeypatch):
    asked = {}

    def stand_in(**options):
        asked.update(options)
        raise InterruptedError

    monkeypatch.setattr(datasets, "rendered_index", stand_in)
    with pytest.raises(InterruptedError):
        load_dataset(RunConfig(train_images=0, test_images=0, data_seed=3, noise_rate=0.1))
    train, test = sum(RAFDB_TRAIN_COUNTS.values()), sum(RAFDB_TEST_COUNTS.values())
    assert (train, test) == (12271, 3068)
    assert asked == {"train": train, "test": test, "seed": 3, "flip_rate": 0.1}


def test_all_images_of_a_real_set_but_its_own_validation_split(ferplus):
    whole, dropped, asked = ferplus
    config = RunConfig(dataset="ferplus", train_images=0, test_images=0, label_rule="majority")
    index, found_dropped = load_dataset(config)
    wanted = set(whole.loc[whole["split"] != "validation", "image_id"])
    assert set(index["image_id"]) == wanted
    assert len(index) == len(wanted)
    assert found_dropped is dropped
    assert asked == {"root": ROOT / "data" / "ferplus", "rule": "majority", "num_classes": 7}


def test_subset_of_a_real_set_has_the_counts_asked_for(ferplus):
    config = RunConfig(dataset="ferplus", train_images=150, test_images=50, held_out=0.1)
    index, _ = load_dataset(config)
    counts = index.groupby(["part", "label"]).size().unstack()
    assert counts.loc["test"].tolist() == [25, 5, 20]
    assert (counts.loc["train"] + counts.loc["held_out"]).tolist() == [100, 20, 30]
    assert counts.loc["held_out"].tolist() == [10, 2, 3]


def test_too_many_images_asked_for(ferplus):
    with pytest.raises(ValueError, match="301 images asked for, but the set has 300; ask for few"):
        load_dataset(RunConfig(dataset="ferplus", train_images=301, test_images=0))
    with pytest.raises(ValueError, match="101 images asked for, but the set has 100"):
        load_dataset(RunConfig(dataset="ferplus", train_images=0, test_images=101))


def test_too_few_images_to_hold_some_out():
    with pytest.raises(ValueError, match="20 images, 1 of the rarest class, cannot be split"):
        load_dataset(RunConfig(train_images=20, test_images=10))


def test_subset_keeps_the_order_and_depends_on_the_seed():
    index = labelled({0: 300, 1: 30}, "train")
    subset = stratified_subset(index, 110, seed=0)
    assert subset["label"].value_counts().to_dict() == {0: 100, 1: 10}
    assert subset.index.is_monotonic_increasing
    pd.testing.assert_frame_equal(subset, stratified_subset(index, 110, seed=0))
    assert set(subset["image_id"]) != set(stratified_subset(index, 110, seed=1)["image_id"])
    assert stratified_subset(index, 0, seed=0) is index
    assert stratified_subset(index, 330, seed=0) is index


def test_root_is_the_given_folder_or_the_one_of_the_set(tmp_path):
    assert dataset_root(RunConfig(dataset="ferplus")) == ROOT / "data" / "ferplus"
    assert dataset_root(RunConfig(data_root=str(tmp_path))) == tmp_path
    assert dataset_root(RunConfig(data_root="data/mine")) == ROOT / "data" / "mine"
