"""One run in several processes, from a shell or from inside a notebook.

torchrun --nproc-per-node 2 -m nlalib.training.launch parameters.yaml
accelerate launch --num_processes 2 -m nlalib.training.launch parameters.yaml
python -m nlalib.training.launch parameters.yaml

The YAML file holds parameters of `04_training.ipynb`; `processes` is as many as were started.
`nlalib.training.loop.train` with `processes` above 1 calls `train_in_processes`, so that the same
works in a notebook. That starts fresh processes and does not fork the kernel, as Accelerate's
`notebook_launcher` does: a fork fails once a cell has touched CUDA, and may hang once threads run.
"""

import argparse
import mmap
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

from nlalib.data.pixels import image_array
from nlalib.data.splits import load_dataset
from nlalib.paths import ROOT
from nlalib.training.config import RunConfig
from nlalib.training.devices import started_processes
from nlalib.training.loop import train


def train_in_processes(
    config: RunConfig, index: pd.DataFrame, images: np.ndarray, report: Callable[[str], None]
) -> None:
    """Train in `config.processes` fresh processes on this machine; see `train`.

    Raises
    ------
    RuntimeError
        If one of them fails, with the end of what it said.
    """
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
        )
        try:
            for line in process.stdout:
                report(line.rstrip("\n"))
            process.wait()
        finally:  # an interrupted cell
            process.terminate()
            process.wait()
        if process.returncode:
            errors.seek(0)
            raise RuntimeError(
                f"{config.processes} processes training {config.run_id} ended with status "
                f"{process.returncode}:\n{errors.read()[-3000:]}"
            )


def file_of(images: np.ndarray) -> Path | None:
    """Return the file that holds just these images, if they are memory-mapped from one.

    A part of a memory-mapped array has the file's name all the same, but not its content.
    """
    is_whole = isinstance(images, np.memmap) and isinstance(images.base, mmap.mmap)
    return Path(images.filename) if is_whole else None


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
    train(config, index, images, report=lambda line: print(line, flush=True))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
