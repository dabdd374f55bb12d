"""A run from the face weights starts from the calibrated network, resumes, and takes options."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from nlalib.networks.face_resnet import load_face_weights
from nlalib.networks.normalisation import normalise
from nlalib.networks.registry import build_model
from nlalib.paths import ROOT
from nlalib.training import training_run
from nlalib.training.config import RunConfig
from nlalib.training.launch import train

FACE = RunConfig(
    backbone="face_resnet",
    initial_weights="dlib_face",
    image_size=103,
    train_images=180,
    test_images=40,
    epochs=2,
    batch_size=32,
    method="ce",
    optimizer="adam",
    lr=1.0e-4,
    lr_schedule="exponential",
    seed=2,
    device="cpu",
)
RESULTS = ("metrics.csv", "predictions.parquet", "naw.parquet", "weights.safetensors")


@pytest.fixture(scope="module")
def data(loaded):
    return loaded(FACE)


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "runs"))


class Killed(Exception):
    pass


def test_a_run_starts_from_the_calibrated_network_and_resumes_bit_by_bit(
    data, monkeypatch, tmp_path
):
    begun, plain = {}, training_run.train_epoch

    def spy(config, epoch, **given):
        if not begun:
            state = given["learner"].model.state_dict()
            begun.update({name: value.clone() for name, value in state.items()})
        return plain(config, epoch, **given)

    with monkeypatch.context() as patch:
        patch.setattr(training_run, "train_epoch", spy)
        lines = []
        whole = train(FACE, *data, report=lines.append)
    assert lines[1].startswith("initial weights: dlib_face@55533b28a958")
    wanted = {name: (whole / name).read_bytes() for name in RESULTS}

    # By hand: the same seed's classifier, and dlib's weights calibrated on the training images
    # as they are (fewer here than the calibration takes at most).
    index, images = data
    positions = np.flatnonzero(index["part"] == "train")
    network = build_model("face_resnet", 7, FACE.seed)
    pixels = torch.from_numpy(images[positions]).permute(0, 3, 1, 2)
    load_face_weights(network, normalise(pixels))
    for name, value in network.state_dict().items():
        torch.testing.assert_close(begun[name], value, rtol=1e-5, atol=1e-6)

    def stop(line):
        if "epoch 1/" in line:
            raise Killed

    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "again"))
    with pytest.raises(Killed):
        train(FACE, *data, report=stop)
    again = train(FACE, *data)
    assert {name: (again / name).read_bytes() for name in RESULTS} == wanted


def test_precision_order_of_channels_and_compilation_are_for_this_network_too(data, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(type(module).__name__))
    losses = {}
    for change in ({}, {"precision": "bf16"}, {"channels_last": False, "compile": True}):
        config = replace(FACE, epochs=1, deterministic=not change, **change)
        folder = train(config, *data)
        losses[str(change)] = pd.read_csv(folder / "metrics.csv")["train_loss"][0]
        names = set(build_model("face_resnet", 7, 0).state_dict())
        assert set(load_file(folder / "weights.safetensors")) == names
        (folder / "done").unlink()
    assert compiled == ["FaceResNet"]
    first, *others = losses.values()
    assert others == pytest.approx([first, first], rel=0.05)


def test_two_processes_train_it(data, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = train(replace(FACE, epochs=1, processes=2, batch_size=60), *data)
    records = pd.read_parquet(folder / "naw.parquet")
    assert len(records) == (data[0]["part"] == "train").sum()
    assert (records["cross_entropy"] > 0).all()
