"""Several processes are one run: on the same global batch they give one process's numbers.

The processes are real, on the CPU with gloo.
"""

import json
import multiprocessing
import os
import socket
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from nlalib.networks.registry import BACKBONES, Backbone
from nlalib.networks.representation import Representation
from nlalib.paths import ROOT
from nlalib.training import launch
from nlalib.training.config import RunConfig
from nlalib.training.devices import make_accelerator
from nlalib.training.launch import train

PROCESSES = 2
TINY = RunConfig(
    train_images=180,
    test_images=41,
    image_size=16,
    epochs=2,
    batch_size=33,  # odd, so that shares differ
    optimizer="adam",
    device="cpu",
)


class Plain(nn.Module):
    """A network without batch normalisation: a sample's output depends on that sample alone."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.body = nn.Conv2d(3, 8, 5, stride=3)
        self.fc = nn.Linear(8, num_classes)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, images):
        self.passes += images.mean() * self.training  # differs between processes, until copied
        feature_map = self.body(images).relu()
        features = feature_map.mean(dim=(2, 3))
        return Representation(self.fc(features), features, feature_map)


@pytest.fixture(scope="module")
def data(loaded):
    """The index and the decoded images of the tiny run."""
    return loaded(TINY)


def train_as(rank: int, processes: int, port: int, runs: Path, config: RunConfig, data) -> None:
    """Be one of the processes that torchrun would start."""
    os.environ |= {"NLA_RUNS": str(runs), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    torch.set_num_threads(1)
    BACKBONES["resnet18_narrow16"] = Backbone(Plain)
    written = []
    train(config, *data, report=lambda line: written.append((os.getpid(), line)))
    if rank:
        assert written == []
    torch.distributed.destroy_process_group()


def train_together(runs: Path, config: RunConfig, data, number: int = PROCESSES) -> Path:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nlalib.training.loop"])
    processes = [
        context.Process(target=train_as, args=(rank, number, port, runs, config, data))
        for rank in range(number)
    ]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        time.sleep(0.05)
        if any(process.exitcode for process in processes):
            for process in processes:
                process.kill()
    assert [process.exitcode for process in processes] == [0] * number
    return runs / config.run_id


@pytest.fixture(scope="module")
def both(data, tmp_path_factory) -> tuple[Path, Path]:
    """The folders of the same run, made by one process and by two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLA_RUNS", str(tmp_path_factory.mktemp("one")))
        patch.setitem(BACKBONES, "resnet18_narrow16", Backbone(Plain))
        one = train(TINY, *data)
    torch.set_num_threads(threads)
    runs = tmp_path_factory.mktemp("two")
    return one, train_together(runs, replace(TINY, processes=PROCESSES), data)


def test_losses_and_metrics_are_those_of_one_process(both):
    one, two = (pd.read_csv(folder / "metrics.csv") for folder in both)
    assert list(one.columns) == list(two.columns)
    np.testing.assert_allclose(one.to_numpy(), two.to_numpy(), rtol=2e-4, atol=1e-6)
    # Two epochs moved the weights, so equal losses are no accident of the start.
    assert abs(one["train_loss"][0] - one["train_loss"][1]) > 1e-3


def test_weights_are_those_of_one_process(both):
    one, two = (load_file(folder / "weights.safetensors") for folder in both)
    for name in ("body.weight", "body.bias", "fc.weight", "fc.bias"):
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=2e-5)


def test_records_of_each_sample_come_from_all_processes(both):
    one, two = (pd.read_parquet(folder / "naw.parquet") for folder in both)
    pd.testing.assert_frame_equal(one, two, rtol=1e-3, atol=1e-5)
    assert one["p_gt"].std() > 0.001


def test_predictions_of_all_images_come_from_all_processes(both):
    one, two = (pd.read_parquet(folder / "predictions.parquet") for folder in both)
    pd.testing.assert_frame_equal(one, two, rtol=1e-3, atol=1e-5)
    assert (two["part"] == "test").sum() % 41 == 0


def test_first_process_alone_writes_and_leaves_a_finished_run(both):
    one, two = both
    assert {file.name for file in one.iterdir()} == {file.name for file in two.iterdir()}
    config = json.loads((two / "config.json").read_text())
    assert config["processes"] == PROCESSES
    assert one.name != two.name  # statistics of batches are local, so the runs are not the same


def test_a_single_process_of_torchrun_may_leave_layers_idle(data, tmp_path):
    """RUL has a head of its own in training, and the network's takes no part."""
    folder = train_together(tmp_path, replace(TINY, method="rul"), data, number=1)
    assert (folder / "done").exists()


def test_number_of_processes_must_be_the_one_of_the_run(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="started as 2 processes, but processes is 1: start as"):
        make_accelerator("cpu", "fp32")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(RuntimeError, match="started as 1 processes, but processes is 2"):
        make_accelerator("cpu", "fp32", 2)


def test_run_of_two_processes_from_a_notebook(tmp_path, monkeypatch, data):
    """As a cell calls it: fresh processes by torchrun, whose lines come back."""
    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    config = replace(
        TINY, epochs=1, batch_size=80, processes=2, backbone="resnet10_narrow16_stride2"
    )
    lines = []
    folder = train(config, *data, report=lines.append)
    assert lines[0].startswith("device cpu")
    assert lines[0].endswith("precision fp32, 2 processes")
    assert lines[1].startswith("nla seed 0: epoch 1/1, loss")
    assert len(lines) == 2
    assert (folder / "done").exists()
    records = pd.read_parquet(folder / "naw.parquet")
    assert records["image_id"].tolist() == data[0].query("part == 'train'")["image_id"].tolist()


def test_a_part_of_the_stored_images_is_not_taken_for_the_whole(tmp_path):
    np.save(tmp_path / "images.npy", np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3))
    stored = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert launch.file_of(stored) == tmp_path / "images.npy"
    assert launch.file_of(stored[1:]) is None
    assert launch.file_of(stored[[1, 0]]) is None
    assert launch.file_of(np.array(stored)) is None


def test_failure_of_a_process_is_told_in_the_notebook(tmp_path, monkeypatch, data):
    """Here of the program that starts them, so that the test takes no time."""
    (tmp_path / "broken.py").write_text("import sys; print('half'); sys.exit('no device left')")
    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "runs"))
    started = launch.subprocess.Popen

    def broken(command, **options):
        return started([command[0], str(tmp_path / "broken.py")], **options)

    monkeypatch.setattr(launch.subprocess, "Popen", broken)
    lines = []
    with pytest.raises(RuntimeError, match=r"(?s)2 processes training .* status 1:.*no device"):
        train(replace(TINY, processes=2), *data, report=lines.append)
    assert lines == ["half"]


def test_parameters_file_starts_a_run(tmp_path, monkeypatch, capsys, data):
    """The command line with one process; torchrun starts the same in several."""
    file, asked = tmp_path / "parameters.yaml", []
    few = {"train_images": 180, "test_images": 40, "image_size": 16}
    file.write_text(yaml.safe_dump({**few, "epochs": 1}))
    monkeypatch.setattr(launch, "train", lambda config, *_, **__: asked.append(config))
    launch.main([str(file)])
    assert asked == [RunConfig(**few, epochs=1)]
    file.write_text(yaml.safe_dump({"epoch": 1}))
    with pytest.raises(ValueError, match="unknown parameter 'epoch'; did you mean 'epochs'"):
        launch.main([str(file)])
    monkeypatch.setenv("WORLD_SIZE", "2")
    file.write_text(yaml.safe_dump({**few, "seed": 4}))
    launch.main([str(file)])
    assert asked[1] == RunConfig(**few, seed=4, processes=2)


def test_finished_run_is_not_started_again(both, monkeypatch, data):
    monkeypatch.setenv("NLA_RUNS", str(both[1].parent))
    monkeypatch.setattr(launch, "TrainingRun", lambda *_: pytest.fail("trained again"))
    lines = []
    config = replace(TINY, processes=PROCESSES)
    assert train(config, *data, report=lines.append) == both[1]
    assert lines[0].startswith(f"already done: {config.run_id} (delete ")
