"""What a GPU gives: our epoch, the bare step, and that step as one CUDA graph, which is the limit.

python -m benchmarks cuda

Where NVIDIA's multi-process service is running, runs side by side are measured with and without it.
A step is of both views of each image. The bare step is forward, cross-entropy, backward and Adam on
tensors that lie on the card; played as one graph nothing waits for launches any more. An epoch is
`nlalib.training.loop.train_epoch`: images, augmentation, the method `nla`, the records.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from epochs import plain_epoch
from measuring import in_turns, record
from PIL import Image
from side_by_side import rate_together
from steps import config_of, our_epoch, random_images

from nlalib.training.bare_step import bare_steps
from nlalib.training.config import RunConfig

STEPS = 50  # of a measurement of bare steps
# Of an epoch: a third of RAF-DB, so that what an epoch costs once weighs more here than there.
# One by one steps need no more than a quarter of it.
IMAGES, FEW_IMAGES = 4096, 1024
CASES = (
    (224, "resnet18", 32),
    (224, "resnet18", 128),
    (112, "resnet18", 32),
    (112, "face_resnet", 32),
    (48, "resnet18_narrow32", 32),
    (48, "resnet18_narrow32", 128),
)
LIMIT = "bare step as one graph"
SECONDS = 8  # of runs side by side
PIPES, NO_PIPES = "CUDA_MPS_PIPE_DIRECTORY", "/nowhere"


def settings(size: int, network: str, batch: int) -> RunConfig:
    changes = {"augmentation": "released", "lr_schedule": "exponential"}
    return config_of(network, size, batch, "bf16", **changes)


def variants_of(config: RunConfig, on_gpu: bool, compiled: bool) -> dict[str, Callable]:
    """Return what is compared in one case."""
    images = random_images(IMAGES, config.image_size)
    few = images[:FEW_IMAGES]
    found = {
        "bare step, eager": bare_steps(config, STEPS, False),
        LIMIT: bare_steps(config, STEPS, on_gpu),
    }
    for graph in dict.fromkeys([on_gpu, False]):
        for kept in (True, False):
            name = f"our epoch, {'graph' if graph else 'eager'}"
            name += ", images kept" if kept else ", images brought"
            found[name] = our_epoch(config, images if graph else few, graph, kept)
    strict = replace(config, deterministic=True)
    found["our epoch, graph, deterministic"] = our_epoch(strict, images, on_gpu, True)
    if compiled:
        whole = replace(config, compile=True)
        found["our epoch, graph, compiled"] = our_epoch(whole, images, on_gpu, True)
    return found


def images_of(variant: str, batch: int) -> int:
    """Return on how many images one call of a variant trains."""
    if variant.startswith("bare"):
        return STEPS * batch
    return FEW_IMAGES if "eager" in variant else IMAGES


def one_case(size: int, network: str, batch: int, rounds: int, compiled: bool) -> pd.DataFrame:
    config = settings(size, network, batch)
    variants = variants_of(config, torch.cuda.is_available(), compiled)
    seconds = in_turns(variants, rounds, time.perf_counter)
    rates = {name: images_of(name, batch) / np.array(values) for name, values in seconds.items()}
    table = pd.DataFrame(
        {
            "images_per_second": {name: np.median(values) for name, values in rates.items()},
            "share_of_limit": {n: np.median(values / rates[LIMIT]) for n, values in rates.items()},
        }
    )
    table = table.rename_axis("variant").reset_index()
    return table.assign(pixels=size, network=network, batch=batch, runs=1)


def side_by_side(runs: int, pipes: str) -> pd.DataFrame:
    """Several processes train on the one card at the same time, by MPS's `pipes` or without."""
    config = settings(112, "face_resnet", 32)
    total = rate_together(runs, config, IMAGES, SECONDS, **{PIPES: pipes or NO_PIPES})
    row = {"variant": "our epoch, graph, images kept", "images_per_second": total, "runs": runs}
    row |= {"pixels": 112, "network": "face_resnet", "batch": 32, "mps": bool(pipes)}
    return pd.DataFrame([row])


def plain_loop(folder: Path) -> pd.DataFrame:
    """The habits of released FER code, at 224 pixels; see `epochs`."""
    files = [folder / f"{number}.jpg" for number in range(256)]
    for file, pixels in zip(files, random_images(len(files), 100), strict=True):
        Image.fromarray(pixels).save(file, quality=90)
    epoch = plain_epoch(files, 224, "resnet18", 32)
    seconds = in_turns({"plain loop fp32": epoch}, 2, time.perf_counter)["plain loop fp32"]
    row = {"variant": "plain loop fp32", "images_per_second": len(files) / np.median(seconds)}
    return pd.DataFrame([{**row, "pixels": 224, "network": "resnet18", "batch": 32, "runs": 1}])


def running_mps() -> str:
    """Return the folder by which NVIDIA's multi-process service (MPS) answers; "" if none."""
    folder = Path(os.environ.get(PIPES, "/tmp/nvidia-mps"))
    return str(folder) if (folder / "control").exists() else ""


def driver() -> str:
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    return found.stdout.split("\n")[0].strip()


def everything(quick: bool) -> None:
    """All of it, in some minutes; nothing where there is no CUDA device."""
    pipes = running_mps()
    os.environ[PIPES] = NO_PIPES  # of this process
    if not torch.cuda.is_available():
        print("cuda: there is no CUDA device, so nothing is measured")
        return
    rounds, runs = (2, (1, 16)) if quick else (5, (1, 4, 16))
    tables = []
    for case in CASES:
        tables.append(one_case(*case, rounds, compiled=case == CASES[2]))
        print(tables[-1].to_string(index=False), flush=True)
    for used in ["", pipes] if pipes else [""]:
        for number in runs:
            tables.append(side_by_side(number, used))
            print(tables[-1].to_string(index=False), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        tables.append(plain_loop(Path(folder)))
    table = pd.concat(tables, ignore_index=True)
    record("cuda", table.assign(driver=driver(), cuda=torch.version.cuda))
