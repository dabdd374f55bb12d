"""Where a run starts: in this process or in several, from a notebook or from a shell.

torchrun --nproc-per-node 2 -m nlalib.training.launch parameters.yaml
accelerate launch --num_processes 2 -m nlalib.training.launch parameters.yaml
python -m nlalib.training.launch parameters.yaml

The YAML file holds parameters of `04_training.ipynb`; `processes` is as many as were started.
`train` is what a notebook calls; with `processes` above 1 it starts fresh ones, and does not fork
the kernel, as Accelerate's `notebook_launcher` does: a fork fails once a cell has touched CUDA, and
may hang once threads run.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml

from nlalib.data.content import compare_content
from nlalib.data.pixels import file_of, image_array
from nlalib.data.splits import load_dataset
from nlalib.paths import ROOT
from nlalib.training.config import RunConfig
from nlalib.training.devices import (
    deterministic_algorithms,
    is_first_process,
    require_device,
    started_processes,
)
from nlalib.training.resumable import Interrupted, finish_run
from nlalib.training.training_run import TrainingRun


def train(
    config: RunConfig,
    index: pd.DataFrame,
    images: np.ndarray,
    report: Callable[[str], None] | None = None,
) -> Path:
    """Train one network and write its run folder; go on where a killed run stopped.

    Parameters
    ----------
    config : RunConfig
    index : pandas.DataFrame
        With the column `part`, from `nlalib.data.splits.load_dataset`.
    images : numpy.ndarray, (len(index), size, size, 3) uint8
        The decoded images, from `nlalib.data.pixels.image_array`.
    report : callable, optional
        Gets a line of text after each epoch.

    Returns
    -------
    pathlib.Path
        The run's folder. A folder that is already `done` is returned at once.

    Raises
    ------
    RuntimeError, Interrupted, FloatingPointError, ValueError, OSError
        As `nlalib.training.resumable.finish_run`.

    Notes
    -----
    A checkpoint is written after each epoch. All random numbers come from (seed, epoch), so a
    run that was killed and started again ends with the same numbers, bit by bit on the CPU with as
    many threads.

    With `config.processes` above 1, either this is one of the processes that torchrun or
    `accelerate launch` started, or they are started here. The first one alone writes and reports.
    """
    report = report if report and is_first_process() else lambda line: None
    if config.processes > 1 and started_processes() == 1 and not config.is_done:
        train_in_processes(config, index, images, report)
        return config.folder
    with deterministic_algorithms(config.deterministic):
        return finish_run(config, index, images, report, TrainingRun)


def train_in_processes(
    config: RunConfig, index: pd.DataFrame, images: np.ndarray, report: Callable[[str], None]
) -> None:
    """Train in `config.processes` fresh processes on this machine; see `train`.

    Raises
    ------
    RuntimeError
        If one of them fails, with the end of what it said.
    Interrupted
        For an interrupt from the keyboard.
    """
    require_device(config.device)
    compare_content(config.folder, index, images)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(config.processes), "-m", "nlalib.training.launch"]
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryFile("w+") as errors:
        folder = Path(name)
        (folder / "parameters.yaml").write_text(yaml.safe_dump(asdict(config)))
        index.to_parquet(folder / "index.parquet")
        stored = file_of(images)
        if stored is None:
            stored = folder / "images.npy"
            np.save(stored, images)
        command += [folder / "parameters.yaml", "--index", folder / "index.parquet"]
        process = subprocess.Popen(
            [*command, "--images", stored],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "TQDM_DISABLE": "1"},  # lines come through the pipe, no bars
        )
        try:
            for line in process.stdout:
                report(line.rstrip("\n"))
            process.wait()
        except KeyboardInterrupt as error:
            raise Interrupted(
                "stopped with its processes; run this cell again to go on after the last epoch "
                "that was done"
            ) from error
        finally:
            process.terminate()
            process.wait()
        if process.returncode:
            errors.seek(0)
            raise RuntimeError(
                f"{config.processes} processes training {config.run_id} ended with status "
                f"{process.returncode}:\n{errors.read()[-3000:]}"
            )


def main(arguments: Sequence[str]) -> None:
    """Train as one of the processes that torchrun started, or as the only one."""
    parser = argparse.ArgumentParser(prog="python -m nlalib.training.launch", description=__doc__)
    parser.add_argument("parameters", type=Path, help="YAML file")
    parser.add_argument("--index", type=Path, help="parquet file; the data set's without it")
    parser.add_argument("--images", type=Path, help="NumPy file that goes with --index")
    given = parser.parse_args(arguments)
    parameters = yaml.safe_load(given.parameters.read_text()) or {}
    config = RunConfig.from_parameters({"processes": started_processes(), **parameters})
    if given.index:
        index = pd.read_parquet(given.index)
        images = np.load(given.images, mmap_mode="r")
    else:
        index, _ = load_dataset(config.data)
        images = image_array(index, root=config.data.root, size=config.image_size)
    try:
        train(config, index, images, report=lambda line: print(line, flush=True))
    except Interrupted as stopped:
        sys.exit(str(stopped))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
