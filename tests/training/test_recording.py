"""A step that is recorded and played does what the ordinary step does, or says why it is not.

On the CPU a stand-in is called as CUDA would be: it plays by doing the step again, on the places
that were recorded.
"""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.utils import DistributedType
from torch import nn

from nlalib.training import resumable, training_run
from nlalib.training.batches import DeviceImages
from nlalib.training.config import RunConfig
from nlalib.training.launch import train
from nlalib.training.recording import CudaRecorder, RecordedStep, cannot_be_recorded

TINY = RunConfig(
    train_images=180,
    test_images=40,
    image_size=16,
    epochs=2,
    batch_size=24,
    device="cpu",
    lr_schedule="exponential",
    backbone="resnet10_narrow16_stride2",
)
RESULTS = ("metrics.csv", "predictions.parquet", "naw.parquet", "weights.safetensors")


class StandIn:
    """Counts what a recorder of CUDA would be asked for."""

    def __init__(self):
        self.calls = []

    def warm_up(self, step, inputs):
        self.calls.append("ordinary")
        return step(*inputs)

    def record(self, step, inputs):
        self.calls.append("record")
        outputs = []

        def play():
            self.calls.append("play")
            outputs[:] = step(*inputs)

        return play, outputs


class Counter(nn.Module):
    """Adds up what it is given: in place, or by putting a new tensor there."""

    def __init__(self, in_place: bool):
        super().__init__()
        self.in_place = in_place
        self.register_buffer("total", torch.zeros(()))

    def step(self, values):
        if self.in_place:
            self.total += values.sum()
        else:
            self.total = self.total + values.sum()
        return (self.total.clone(),)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture(scope="module")
def data(loaded):
    return loaded(TINY)


def test_ordinary_steps_then_one_recording_and_the_odd_batch_by_itself():
    recorder, module, told = StandIn(), Counter(True), []
    recorded = RecordedStep(recorder, module, told.append)
    totals, played = [], []
    for _ in range(2):  # two epochs, each of which is recorded anew
        recorded.begin(module.step)
        totals += [float(recorded(torch.ones(n))[0]) for n in (4, 4, 4, 4, 4, 3)]
        played.append(recorded.played)
    assert totals == [4, 8, 12, 16, 20, 23, 27, 31, 35, 39, 43, 46]
    assert recorder.calls[:6] == [*3 * ["ordinary"], "record", *2 * ["play"]]
    assert recorder.calls[6:] == ["ordinary", "record", *4 * ["play"]]
    assert played == [2, 4]
    assert told == []


def test_an_epoch_too_short_to_record_leaves_its_ordinary_steps_to_the_next():
    recorder, module = StandIn(), Counter(True)
    recorded = RecordedStep(recorder, module, print)
    for _ in range(2):
        recorded.begin(module.step)
        for _ in range(2):
            recorded(torch.ones(1))
    assert recorder.calls == [*3 * ["ordinary"], "record", "play"]


def test_inputs_are_copied_into_the_places_that_were_recorded():
    recorder, seen = StandIn(), []
    recorded = RecordedStep(recorder, nn.Linear(1, 1), print)
    recorded.begin(lambda values: (seen.append(values.data_ptr()) or values * 2,))
    given = [torch.full((2,), float(number)) for number in range(6)]
    outputs = [recorded(values)[0].tolist() for values in given]
    assert outputs == [[2.0 * n, 2.0 * n] for n in range(6)]
    assert len(set(seen[3:])) == 1
    assert [values.tolist() for values in given] == [[n, n] for n in range(6)]


def test_a_step_that_puts_new_tensors_in_place_of_old_ones_is_not_recorded():
    recorder, module, told = StandIn(), Counter(False), []
    recorded = RecordedStep(recorder, module, told.append)
    recorded.begin(module.step)
    assert [float(recorded(torch.ones(2))[0]) for _ in range(6)] == [2, 4, 6, 8, 10, 12]
    assert recorder.calls == ["ordinary"]
    assert len(told) == 1
    assert "not recorded" in told[0]
    assert "total" in told[0]


def test_a_recording_that_fails_is_told_once_and_the_steps_go_on():
    class Failing(StandIn):
        def record(self, step, inputs):
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    module, told = Counter(True), []
    recorded = RecordedStep(Failing(), module, told.append)
    for _ in range(2):
        recorded.begin(module.step)
        for _ in range(6):
            total = float(recorded(torch.ones(1))[0])
    assert total == 12
    (line,) = told
    assert line.endswith("operation not permitted when stream is capturing")


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({}, ""),
        ({"cuda_graph": "off"}, "cuda_graph is 'off'"),
        ({"precision": "fp16"}, "fp16 looks at each step"),
        ({"lr_schedule": "one_cycle"}, "the schedule 'one_cycle' changes"),
    ],
)
def test_what_cannot_be_recorded_says_why(change, cause):
    card = SimpleNamespace(device=torch.device("cuda"), distributed_type=DistributedType.NO)
    assert cannot_be_recorded(replace(TINY, **change), card).startswith(cause)
    assert bool(cause) == bool(cannot_be_recorded(replace(TINY, **change), card))
    several = SimpleNamespace(device=card.device, distributed_type=DistributedType.MULTI_GPU)
    assert cannot_be_recorded(TINY, several) == "there are several processes"
    processor = SimpleNamespace(device=torch.device("cpu"), distributed_type=DistributedType.NO)
    assert cannot_be_recorded(TINY, processor) == "a graph is for CUDA"


@pytest.mark.parametrize("method", ["ce", "nla", "eac", "ldl", "pico"])
def test_a_run_with_recorded_steps_and_kept_images_is_the_ordinary_one(
    data, runs, monkeypatch, method
):
    config, lines = replace(TINY, method=method), []
    ordinary = train(config, *data)
    wanted = {name: (ordinary / name).read_bytes() for name in RESULTS}
    (ordinary / "done").unlink()
    recorders = []

    def stand_in():
        recorders.append(StandIn())
        return recorders[-1]

    monkeypatch.setattr(training_run, "cannot_be_recorded", lambda *_: "")
    monkeypatch.setattr(training_run, "CudaRecorder", stand_in)
    monkeypatch.setattr(
        resumable, "DeviceImages", lambda images, device, _: DeviceImages(images, device, True)
    )
    folder = train(config, *data, report=lines.append)
    for name in RESULTS:
        assert (folder / name).read_bytes() == wanted[name]
    (recorder,) = recorders
    if method == "pico":  # which puts new prototypes in the place of the old ones
        assert recorder.calls == ["ordinary"]
        assert any("not recorded" in line for line in lines)
    else:
        assert recorder.calls.count("record") == config.epochs
        assert recorder.calls.count("play") >= 2 * config.epochs


def test_kept_images_are_those_of_the_store():
    images = np.random.default_rng(0).integers(0, 256, (2050, 5, 4, 3), dtype=np.uint8)
    stored = DeviceImages(images, torch.device("cpu"))
    kept = DeviceImages(images, torch.device("cpu"), kept=True)
    assert kept.are_kept
    assert not stored.are_kept
    positions = np.array([2049, 0, 1024, 7, 7])
    for found in (stored.read(positions), kept.read(positions)):
        assert torch.equal(found, torch.from_numpy(images[positions]).permute(0, 3, 1, 2))
        assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(kept.gather(torch.from_numpy(positions)), stored.read(positions))
    groups = [positions[:2], positions[2:]]
    for one, other in zip(kept.stream(groups), stored.stream(groups), strict=True):
        assert torch.equal(one, other)


def card_run(data, **change):
    config = replace(TINY, device="cuda", precision="bf16", epochs=1, lr=1.0e-4, batch_size=8)
    return replace(config, **change)


class NeverRecorded(CudaRecorder):
    """Leaves all to ordinary steps, with the optimiser that a recording would have."""

    def record(self, step, inputs):
        raise RuntimeError("not in this test")


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["ce", "nla", "eac", "ldl"])
def test_a_graph_and_ordinary_steps_on_a_gpu_agree(data, runs, monkeypatch, method, precision):
    """Over the 21 steps of an epoch; by deterministic algorithms, as atomic additions differ."""
    config = card_run(data, method=method, precision=precision, deterministic=True)
    found = []
    for recorder in (NeverRecorded, CudaRecorder):
        lines = []
        monkeypatch.setattr(training_run, "CudaRecorder", recorder)
        folder = train(config, *data, report=lines.append)
        refused = any("not recorded" in line for line in lines)
        assert refused == (recorder is NeverRecorded)
        found.append(pd.read_parquet(folder / "naw.parquet")["cross_entropy"])
        (folder / "done").unlink()
    np.testing.assert_allclose(*found, rtol=1e-5)


@pytest.mark.cuda
@pytest.mark.parametrize("place", ["auto", "off"])
def test_images_on_a_gpu_or_brought_to_it_are_the_same(data, place):
    device, read = torch.device("cuda"), partial(DeviceImages, data[1])
    images = read(device, kept=place == "auto")
    groups = [np.arange(9), np.arange(9, 11)]
    for found, positions in zip(images.stream(groups), groups, strict=True):
        assert torch.equal(found.cpu(), read(torch.device("cpu")).read(positions))


@pytest.mark.cuda
def test_a_run_goes_from_a_gpu_to_the_cpu_and_back(data, runs):
    def stop(line):
        if "epoch 1/" in line:
            raise RuntimeError("stopped")

    for first, then in (("cuda", "cpu"), ("cpu", "cuda")):
        config = card_run(data, epochs=2, device=first, precision="fp32", seed=int(first == "cpu"))
        with pytest.raises(RuntimeError, match="stopped"):
            train(config, *data, report=stop)
        lines = []
        folder = train(replace(config, device=then), *data, report=lines.append)
        assert any(line.startswith(f"begun with device {first}, now {then}") for line in lines)
        assert pd.read_csv(folder / "metrics.csv")["epoch"].tolist() == [0, 1]
