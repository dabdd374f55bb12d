"""A run that can be killed at any moment and goes on: training with labels, and without.

Subclasses say what an epoch is. After each one a checkpoint is written; `done` comes last of all.
"""

import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from nlalib.data.content import compare_content, record_content
from nlalib.data.splits import HELD_OUT, TEST, TRAIN
from nlalib.files import write_csv, write_json
from nlalib.parameters import RunParameters
from nlalib.paths import display_path
from nlalib.training.batches import DeviceImages
from nlalib.training.checkpoint import (
    load_optimization_state,
    optimization_state,
    read_checkpoint,
    write_checkpoint,
)
from nlalib.training.devices import is_first_process, require_device
from nlalib.training.environment import begun_with, changes_since, environment


class Interrupted(KeyboardInterrupt):
    """A run was stopped by hand; what was finished stays. A notebook shows its one line."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        return [str(self)]


@dataclass
class Progress:
    """What a checkpoint holds beside weights: everything that the finished run will report."""

    epochs_done: int = 0
    metrics: list[dict] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    # epoch -> part -> probabilities, of the selected epochs
    predictions: dict[int, dict[str, Tensor]] = field(default_factory=dict)


class ResumableRun:
    """What the kinds of runs share.

    Parameters
    ----------
    name : str
        What lines of text call the run, beside its seed.
    config : RunParameters
        With `epochs`, `lr`, `batch_size`, `precision` and `seed`.
    index : pandas.DataFrame
        With the column `part`.
    images : numpy.ndarray, (len(index), size, size, 3) uint8
    accelerator : accelerate.Accelerator
    report : callable
        Gets a line of text after each epoch.
    kept : bool, optional
        As of `nlalib.training.batches.DeviceImages`.

    Attributes
    ----------
    told : dict of str
        By its words, each metric that is said of an epoch; a subclass declares them.
    parts : dict of numpy.ndarray
        The rows of each part.
    images : DeviceImages
    learned : torch.nn.Module
        All that learns; with `optimizer` and `scheduler` set by the subclass before `go`.
    progress : Progress
    """

    told: ClassVar[dict[str, str]]
    learned: nn.Module
    optimizer: object
    scheduler: object

    def __init__(
        self,
        name: str,
        config: RunParameters,
        index: pd.DataFrame,
        images: np.ndarray,
        accelerator: Accelerator,
        report: Callable[[str], None],
        kept: bool | None = None,
    ):
        self.name, self.config = name, config
        self.accelerator, self.report = accelerator, report
        self.folder, self.progress = config.folder, Progress()
        self.writes = accelerator.is_main_process
        self.index = index
        self.parts = {p: np.flatnonzero(index["part"] == p) for p in (TRAIN, HELD_OUT, TEST)}
        if self.writes:
            self._write_beginning()
            record_content(self.folder, index, images)
        self.images = DeviceImages(images, accelerator.device, kept)

    def run_epoch(self, epoch: int) -> dict:
        """Train for one epoch and return its row of metrics; subclasses do."""
        raise NotImplementedError

    def write_records(self, epoch: int) -> None:
        """Write what belongs to this epoch alone, before its checkpoint."""

    def check_records(self, epochs: int) -> None:
        """Raise ValueError if what was written of the first `epochs` epochs is not whole."""

    def write_results(self) -> None:
        """Write what the finished run leaves beside its metrics."""
        raise NotImplementedError

    def _write_beginning(self) -> None:
        """Write with which parameters the run runs, and on what."""
        parameters = {**asdict(self.config), "identity": self.config.identity}
        write_json(self.folder / "config.json", parameters)
        now = environment(self.accelerator.device.type)
        file = self.folder / "environment.json"
        if (self.folder / "checkpoint.pt").exists():
            if told := changes_since(file, now):
                # Results are repeated bit by bit only with as many threads on the same device.
                self.report(f"begun with {told}: the results may differ in their last digits")
            if all_told := "; then ".join(filter(None, [begun_with(file), told])):
                now["begun_with"] = all_told
        write_json(file, now)

    def go(self) -> None:
        """Go through the epochs that are left, and finish.

        Raises
        ------
        Interrupted
            For an interrupt from the keyboard, with how far the run has got.
        RuntimeError
            If the device has no memory left, with what to lower.
        FloatingPointError
            If an epoch's mean loss, or what the network predicts, is not finite.
        ValueError
            If the folder's checkpoint or records are damaged, or of another run.
        OSError
            If the disk is full or the folder cannot be written; what was finished stays.
        """
        try:
            self._resume()
            for epoch in range(self.progress.epochs_done, self.config.epochs):
                self._epoch(epoch)
            self.write_results()
            if self.writes:
                self._finish()
        except KeyboardInterrupt as error:
            raise Interrupted(self._how_far()) from error
        except torch.OutOfMemoryError as error:
            raise RuntimeError(self._out_of_memory()) from error
        self.accelerator.wait_for_everyone()
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def _resume(self) -> None:
        checkpoint = self.folder / "checkpoint.pt"
        if not checkpoint.exists():
            return
        state = read_checkpoint(checkpoint, self.config)
        self.check_records(state["progress"]["epochs_done"])
        self.learned.load_state_dict(state["learned"])
        load_optimization_state(state, self.optimizer, self.scheduler, self.accelerator)
        self.progress = Progress(**state["progress"])
        self.report(f"going on after epoch {self.progress.epochs_done} of {self.config.epochs}")

    def _epoch(self, epoch: int) -> None:
        started = time.perf_counter()
        row = self.run_epoch(epoch)
        self.progress.epochs_done = epoch + 1
        self.progress.metrics.append({"epoch": epoch, **row})
        self.keep_predictions()
        self.progress.seconds.append(time.perf_counter() - started)
        self.accelerator.log(row, step=epoch)
        if not self.writes:
            return
        self.write_records(epoch)
        state = {
            "run_id": self.config.run_id,
            "learned": self.learned.state_dict(),
            **optimization_state(self.optimizer, self.scheduler, self.accelerator),
            "progress": asdict(self.progress),
        }
        write_checkpoint(self.folder / "checkpoint.pt", state)
        self.report(self._line(row))

    def _line(self, row: dict) -> str:
        """Return what is said of the last epoch, which has the row of metrics `row`."""
        config, done = self.config, self.progress.epochs_done
        numbers = ", ".join(f"{words} {row[metric]:.3f}" for words, metric in self.told.items())
        minutes = np.mean(self.progress.seconds) * (config.epochs - done) / 60
        where = f"{self.name} seed {config.seed}: epoch {done}/{config.epochs}"
        return f"{where}, {numbers}, {minutes:.1f} min left"

    def keep_predictions(self) -> None:
        """Drop predictions that nobody will ask for any more."""

    def _finish(self) -> None:
        """Write metrics and times, `done` last, and remove what only a resumption needs."""
        metrics = pd.DataFrame(self.progress.metrics)
        seconds = self.progress.seconds
        timing = pd.DataFrame({"epoch": metrics["epoch"], "seconds": seconds})
        for name, table in {"metrics": metrics, "timing": timing}.items():
            write_csv(self.folder / f"{name}.csv", table)
        done = {"run_id": self.config.run_id, "seconds": float(sum(seconds))}
        write_json(self.folder / "done", done)
        _remove_what_resumes(self.folder)

    def _how_far(self) -> str:
        done = self.progress.epochs_done
        if not done:
            return "stopped before the first epoch was done; run this cell again to begin it anew"
        return f"stopped after epoch {done} of {self.config.epochs}; run this cell again to go on"

    def _out_of_memory(self) -> str:
        done = self.progress.epochs_done
        kept = f"; the {done} epochs that are done are kept" if done else ""
        off = " or keep the images off it (images_on_device)"
        off *= hasattr(self.config, "images_on_device")  # which pre-training has not
        return (
            f"{self.accelerator.device} has no memory left for batches of "
            f"{self.config.batch_size} images in {self.config.precision}{kept}. Let fewer runs "
            f"share the device{off}, and start again; or take precision 'bf16', a lower "
            "batch_size or image_size, which is another run"
        )


def finish_run(
    config: RunParameters,
    index: pd.DataFrame,
    images: np.ndarray,
    report: Callable[[str], None],
    make_run: Callable[..., ResumableRun],
) -> Path:
    """Make a run's folder, or go on with it; what training with labels and without share.

    Parameters
    ----------
    config, index, images, report
        Of the run.
    make_run : callable
        From these four to the run.

    Returns
    -------
    pathlib.Path
        The run's folder. A folder that is already `done` is returned at once.

    Raises
    ------
    RuntimeError
        If another process is training in the run's folder, if the device that is asked for is not
        there or is taken, or if it has no memory left.
    Interrupted, FloatingPointError, ValueError, OSError
        As `ResumableRun.go`; ValueError also for a folder that is of other images or labels.
    """
    require_device(config.device)  # also where there is nothing left to do
    first = is_first_process()
    if first:
        compare_content(config.folder, index, images)
    with config.locked() if first and not config.is_done else nullcontext():
        if config.is_done:  # maybe by a process that held the folder until now
            _already_done(config, report)
        else:
            make_run(config, index, images, report).go()
    return config.folder


def _already_done(config: RunParameters, report: Callable[[str], None]) -> None:
    """Say that a run is finished and how to train it anew; clear what a kill left beside it."""
    folder = display_path(config.folder)
    report(f"already done: {config.run_id} (delete {folder} to train it anew)")
    _remove_what_resumes(config.folder)


def _remove_what_resumes(folder: Path) -> None:
    """Remove from a finished run's folder what only a resumption needs."""
    shutil.rmtree(folder / "records", ignore_errors=True)
    for left in [folder / "checkpoint.pt", *folder.glob(".*.unfinished")]:
        left.unlink(missing_ok=True)
