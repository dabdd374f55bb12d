"""Every method in a run of one epoch; killed runs of methods that remember."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from nlalib.data.pixels import image_array
from nlalib.data.splits import load_dataset
from nlalib.methods import METHODS
from nlalib.training import use
from nlalib.training.config import RunConfig
from nlalib.training.launch import train


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Sums are ordered by threads, and runs are compared bit by bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A configuration of one epoch, and the index and images of 40 rendered training faces."""
    config = RunConfig(
        dataset="rendered",
        train_images=180,  # as many as it takes to hold out some of each class
        test_images=40,
        image_size=24,
        backbone="resnet10_narrow16_stride2",
        epochs=1,
        batch_size=16,
        device="cpu",
    )
    index, _ = load_dataset(config.data)
    index = index.groupby("part").head(40).reset_index(drop=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLA_CACHE", str(tmp_path_factory.mktemp("cache")))
        return config, index, np.array(image_array(index, root=Path("nowhere"), size=24))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_trains(name, faces, tmp_path, monkeypatch):
    monkeypatch.setenv("NLA_RUNS", str(tmp_path))
    config, index, images = faces
    folder = train(replace(config, method=name), index, images)
    metrics = pd.read_csv(folder / "metrics.csv")
    assert np.isfinite(metrics["train_loss"]).all()
    assert metrics["test_overall_accuracy"].between(0, 1).all()
    records = pd.read_parquet(folder / "naw.parquet")
    assert len(records) == (index["part"] == "train").sum()
    assert records.notna().all(axis=None)
    # And it can be used: 04 ends with a photograph.
    _, classifier = use.load_classifier(folder.name)
    np.testing.assert_allclose(use.classify(classifier, images[:2]).sum(axis=1), 1, atol=1e-5)


class Killed(Exception):
    pass


@pytest.mark.parametrize("name", ["scn", "rul"])
def test_killed_run_ends_with_the_same_bits(name, faces, tmp_path, monkeypatch):
    config, index, images = faces
    settings = {"relabel_margin": 0.0, "relabel_from": 0.0} if name == "scn" else {}
    config = replace(config, method=name, method_settings=settings, epochs=2)
    folders = []
    for part in ("whole", "killed"):
        monkeypatch.setenv("NLA_RUNS", str(tmp_path / part))
        if part == "killed":

            def stop(line: str):
                if "epoch 1/" in line:
                    raise Killed

            with pytest.raises(Killed):
                train(config, index, images, report=stop)
            torch.manual_seed(99)  # no global state takes part
        folders.append(train(config, index, images))
    for file in ("metrics.csv", "naw.parquet", "weights.safetensors"):
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes()
    if name == "scn":
        records = pd.read_parquet(folders[0] / "naw.parquet").query("epoch == 0")
        assert records["relabelled"].sum() > 0
