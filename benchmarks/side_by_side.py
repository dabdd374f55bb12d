"""Two one-thread runs side by side, against one run with two threads.

Each is a process that trains `nla` on random images at 48 pixels for some seconds; reported are
the images (of two views) that all processes of a variant together train on a second.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pandas as pd
import torch
from measuring import record
from steps import CONFIG, SMALL, our_epoch, random_images

from nlalib.training.config import RunConfig

VARIANTS = {"one run, one thread": (1, 1), "one run, two threads": (1, 2),
            "two runs, one thread each": (2, 1)}  # fmt: skip


def rate_together(
    runs: int, config: RunConfig, images: int, seconds: int, **environment: str
) -> float:
    """Return the images a second of as many processes that train at the same time."""
    words = [sys.executable, __file__, json.dumps(asdict(config)), str(images), str(seconds)]
    processes = [
        subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        for _ in range(runs)
    ]
    for process in processes:
        process.stdout.readline()  # it is ready
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    return sum(float(process.communicate()[0].split()[-1]) for process in processes)


def worker(config: RunConfig, images: int, seconds: int) -> None:
    """Be one of the processes: say when ready, begin when told, print images a second."""
    on_gpu = torch.cuda.is_available()
    epoch = our_epoch(config, random_images(images, config.image_size), on_gpu, on_gpu)
    epoch()
    print("ready", flush=True)
    sys.stdin.readline()
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        epoch()
        done += images
    print(done / (time.perf_counter() - started), flush=True)


def threads(quick: bool) -> None:
    """Measure the variants in turns."""
    rows = []
    for network in (SMALL, "resnet18"):
        config = replace(CONFIG, backbone=network, augmentation="affine")
        for _ in range(2 if quick else 3):
            for name, (runs, count) in VARIANTS.items():
                seconds = 4 if quick else 8
                rate = rate_together(runs, config, 256, seconds, OMP_NUM_THREADS=str(count))
                rows.append((network, name, rate))
    table = pd.DataFrame(rows, columns=["network", "variant", "images_per_second"])
    grouped = table.groupby(["network", "variant"], sort=False)["images_per_second"]
    table = grouped.agg(["median", "min", "max", "size"]).reset_index()
    first = table.groupby("network")["median"].transform("first")
    table.insert(3, "ratio_to_one_thread", table["median"] / first)
    record("threads", table.rename(columns={"median": "images_per_second", "size": "rounds"}))


if __name__ == "__main__":
    worker(RunConfig(**json.loads(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3]))
