"""What goes wrong in a run is told in one line, in time, and what was finished stays."""

import json
import subprocess
import sys
from dataclasses import replace

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from nlalib.paths import ROOT
from nlalib.training import devices, progress_bar, training_run
from nlalib.training.config import RunConfig
from nlalib.training.launch import train
from nlalib.training.progress_bar import shown
from nlalib.training.resumable import Interrupted

TINY = RunConfig(
    train_images=180,
    test_images=40,
    image_size=16,
    epochs=2,
    batch_size=64,
    device="cpu",
    method="ce",
    backbone="resnet10_narrow16_stride2",
)


@pytest.fixture(scope="module")
def data(loaded):
    return loaded(TINY)


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "runs"))


def interrupt_after(epoch: int):
    def stop(line: str):
        if f"epoch {epoch}/" in line:
            raise KeyboardInterrupt

    return stop


def test_an_interrupt_is_one_line_that_says_how_far_and_how_to_go_on(data):
    with pytest.raises(Interrupted) as stopped:
        train(TINY, *data, report=interrupt_after(1))
    words = "stopped after epoch 1 of 2; run this cell again to go on"
    assert str(stopped.value) == words
    assert stopped.value._render_traceback_() == [words]
    assert not TINY.is_done
    lines = []
    train(TINY, *data, report=lines.append)
    assert "going on after epoch 1 of 2" in lines


def test_an_interrupt_before_the_first_epoch_is_done_says_so(data, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(training_run, "train_epoch", interrupted)
    with pytest.raises(Interrupted, match="before the first epoch was done; run this cell again"):
        train(TINY, *data)


def test_a_notebook_shows_the_line_alone_and_still_fails():
    words = "stopped after epoch 3 of 6; run this cell again to go on"
    code = f"from nlalib.training.resumable import Interrupted\nraise Interrupted({words!r})"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    with pytest.raises(CellExecutionError):
        NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    (error,) = notebook.cells[0].outputs
    assert error.traceback == [words]


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda path: path.unlink(), "is lost"),
        (lambda path: path.write_bytes(path.read_bytes()[:-50]), "is damaged"),
        (lambda path: pd.read_parquet(path)[:-1].to_parquet(path), "has 161 rows, not 162"),
    ],
)
def test_lost_and_short_records_are_seen_when_resuming(data, damage, cause):
    with pytest.raises(Interrupted):
        train(TINY, *data, report=interrupt_after(1))
    damage(TINY.folder / "records" / "0000.parquet")
    lines = []
    with pytest.raises(ValueError, match=rf"records of epoch 1, .*{cause}.* Delete .*anew"):
        train(TINY, *data, report=lines.append)
    assert not any("epoch 2/" in line for line in lines)


def test_another_number_of_threads_is_told_and_recorded(data):
    with pytest.raises(Interrupted):
        train(TINY, *data, report=interrupt_after(1))
    file = TINY.folder / "environment.json"
    now = torch.get_num_threads()
    file.write_text(json.dumps({**json.loads(file.read_text()), "threads": now + 1}))
    lines = []
    train(TINY, *data, report=lines.append)
    told = f"threads {now + 1}, now {now}"
    assert f"begun with {told}: the results may differ in their last digits" in lines
    assert json.loads(file.read_text())["begun_with"] == told


def test_what_a_run_began_with_is_told_after_two_interruptions_too(data):
    config = replace(TINY, epochs=3)
    with pytest.raises(Interrupted):
        train(config, *data, report=interrupt_after(1))
    file = config.folder / "environment.json"
    now = torch.get_num_threads()
    file.write_text(json.dumps({**json.loads(file.read_text()), "threads": now + 1}))
    with pytest.raises(Interrupted):
        train(config, *data, report=interrupt_after(2))
    train(config, *data)
    assert json.loads(file.read_text())["begun_with"] == f"threads {now + 1}, now {now}"


def test_predictions_that_are_not_finite_end_a_run_with_what_to_do(data, monkeypatch):
    """Of weights that the last step of an epoch broke: all losses were finite."""
    broken = np.full((len(data[0]), 7), np.nan)
    monkeypatch.setattr(
        training_run, "predict", lambda learned, images, positions, _: broken[positions]
    )
    with pytest.raises(FloatingPointError, match=r"'held_out' is not finite in epoch 0: lower lr"):
        train(TINY, *data)


def test_all_files_of_a_run_may_be_read_by_the_same_people(data):
    folder = train(replace(TINY, epochs=1), *data)
    modes = {file.stat().st_mode & 0o777 for file in folder.glob("[!.]*")}
    assert len(modes) == 1


def test_a_limit_of_file_sizes_is_one_line(tmp_path):
    code = (
        "import resource, sys, torch; from pathlib import Path\n"
        "from nlalib.training.checkpoint import write_checkpoint\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "path = Path(sys.argv[1])\n"
        "try:\n"
        "    write_checkpoint(path, {'weights': torch.zeros(100_000)})\n"
        "except OSError as error:\n"
        "    print(error)\n"
    )
    path = tmp_path / "checkpoint.pt"
    finished = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    (line,) = finished.stdout.strip().splitlines()
    assert f"no room to write {path}" in line
    assert "File too large" in line
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_not_there_is_refused_for_a_finished_run_too(data, monkeypatch):
    config = replace(TINY, epochs=1)
    train(config, *data)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match=r"finds no CUDA device \(.+\); use 'auto' or 'cpu'"):
        train(replace(config, device="cuda"), *data)


def test_hidden_devices_are_told_apart_from_absent_ones(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(RuntimeError, match="CUDA_VISIBLE_DEVICES is empty, which hides all"):
        devices.require_device("cuda")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")

    def too_old():
        raise RuntimeError("The NVIDIA driver on your system is too old\nmore")

    monkeypatch.setattr(torch.cuda, "init", too_old)
    with pytest.raises(RuntimeError, match=r"\(The NVIDIA driver on your system is too old\)"):
        devices.require_device("cuda")
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(RuntimeError, match="this PyTorch was built without CUDA"):
        devices.require_device("cuda")


def test_no_memory_left_says_what_to_lower_and_keeps_the_epochs(data, monkeypatch):
    plain = training_run.train_epoch

    def full(config, epoch, **given):
        if epoch:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(config, epoch, **given)

    with monkeypatch.context() as patch:
        patch.setattr(training_run, "train_epoch", full)
        with pytest.raises(RuntimeError, match=r"batches of 64 .* 1 epochs that are done are kept"):
            train(TINY, *data)
    lines = []
    train(TINY, *data, report=lines.append)
    assert "going on after epoch 1 of 2" in lines


@pytest.mark.parametrize("schedule", ["exponential", "one_cycle"])
def test_the_rate_waits_for_the_first_step_that_fp16_takes(data, monkeypatch, schedule, recwarn):
    """A step whose gradients overflow is left out; then PyTorch warns of a rate that moves."""
    taken = iter([False] * 3 + [True] * 10)  # the first epoch has three steps
    rates, plain = [], training_run.train_epoch

    def spy(config, epoch, **given):
        rates.append(given["optimizer"].param_groups[0]["lr"])
        return plain(config, epoch, **given)

    def step(self, closure=None):
        self._is_overflow = not next(taken)
        if not self._is_overflow:
            self.optimizer.step(closure)

    monkeypatch.setattr(AcceleratedOptimizer, "step", step)
    monkeypatch.setattr(training_run, "train_epoch", spy)
    train(replace(TINY, epochs=3, lr_schedule=schedule), *data)
    assert rates[1] == rates[0]
    assert rates[2] != rates[1]
    assert not [w for w in recwarn if "lr_scheduler.step" in str(w.message)]


class Tracker:
    """What Accelerate would make for a logger."""

    name = "tracker"

    def __init__(self):
        self.rows, self.finished = [], False

    def log(self, values, step=None, **_):
        self.rows.append((step, values))

    def finish(self):
        self.finished = True


def test_a_logger_hears_each_epoch_and_changes_nothing_else(data, monkeypatch):
    assert replace(TINY, logger="tensorboard").run_id == TINY.run_id
    tracker, plain = Tracker(), training_run.make_accelerator

    def with_tracker(*given):
        accelerator = plain(*given)
        accelerator.trackers = [tracker]
        return accelerator

    monkeypatch.setattr(training_run, "make_accelerator", with_tracker)
    folder = train(TINY, *data)
    metrics = pd.read_csv(folder / "metrics.csv")
    assert [step for step, _ in tracker.rows] == [0, 1]
    for step, values in tracker.rows:
        assert values["train_loss"] == pytest.approx(metrics["train_loss"][step])
    assert tracker.finished


def test_a_logger_that_is_not_installed_is_told(data, monkeypatch):
    monkeypatch.setattr(devices, "is_tensorboard_available", lambda: False)
    with pytest.raises(RuntimeError, match="pip install tensorboard, or leave logger empty"):
        train(replace(TINY, logger="tensorboard"), *data)


def test_a_bar_moves_for_whoever_looks_on_and_for_nobody_else(capsys, monkeypatch):
    for name in ("JPY_SESSION_NAME", "TQDM_DISABLE"):
        monkeypatch.delenv(name, raising=False)
    assert list(shown(range(5), "epoch 1/2")) == list(range(5))
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("JPY_SESSION_NAME", "notebook.ipynb")  # by the Jupyter server
    assert list(shown(range(5), "epoch 1/2")) == list(range(5))
    assert "epoch 1/2" in capsys.readouterr().out
    monkeypatch.setattr(progress_bar, "is_first_process", lambda: False)
    list(shown(range(5), "epoch 1/2"))
    monkeypatch.setattr(progress_bar, "is_first_process", lambda: True)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    list(shown(range(5), "epoch 1/2"))
    assert capsys.readouterr().out == ""
