"""Two one-thread runs side by side, against one run with two threads.

Each is a process that trains `nla` on random images at 48 pixels for some seconds; reported are
the images (of two views) that all processes of a variant together train on a second.
"""

import argparse
import os
import subprocess
import sys
import time

import pandas as pd

VARIANTS = {"one run, one thread": (1, 1), "one run, two threads": (1, 2),
            "two runs, one thread each": (2, 1)}  # fmt: skip


def train_for(seconds: float, network: str) -> float:
    """Return the images a second of this process, after one epoch that warms up."""
    from dataclasses import replace

    from steps import CONFIG, our_epoch, random_images

    epoch = our_epoch(
        replace(CONFIG, backbone=network, augmentation="affine"), random_images(256, 48)
    )
    epoch()
    images, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        epoch()
        images += 256
    return images / (time.perf_counter() - started)


def threads(quick: bool) -> None:
    """Measure the variants in turns."""
    from measuring import record
    from steps import SMALL

    rows = []
    for network in (SMALL, "resnet18"):
        for _ in range(2 if quick else 3):
            for name, (runs, count) in VARIANTS.items():
                command = [sys.executable, __file__, network, "--seconds", "4" if quick else "8"]
                environment = {**os.environ, "OMP_NUM_THREADS": str(count)}
                started = [
                    subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
                    for _ in range(runs)
                ]
                rows.append((network, name, sum(float(p.communicate()[0]) for p in started)))
    table = pd.DataFrame(rows, columns=["network", "variant", "images_per_second"])
    grouped = table.groupby(["network", "variant"], sort=False)["images_per_second"]
    table = grouped.agg(["median", "min", "max", "size"]).reset_index()
    first = table.groupby("network")["median"].transform("first")
    table.insert(3, "ratio_to_one_thread", table["median"] / first)
    record("threads", table.rename(columns={"median": "images_per_second", "size": "rounds"}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network")
    parser.add_argument("--seconds", type=float, default=10)
    given = parser.parse_args()
    print(train_for(given.seconds, given.network))
