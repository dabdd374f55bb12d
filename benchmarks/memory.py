"""(e) Time of an epoch and memory, as images grow from 1 to 64 thousand.

python benchmarks/memory.py [--pixels 112] [--thousands 1 4 16 64]

Generated JPEGs are indexed, decoded into the stored array and trained on for two epochs, each
number in a fresh process, through the library's own functions. The network is a tiny one, as the
subject is what surrounds it. Reported, in MiB, is the growth since the start after each part, as
the kernel counts it: `private` (RssAnon: what the process allocated), `mapped` (RssFile: pages of
files, which the kernel takes back at will, the libraries' own code among them), and the `peak` of
the whole within the part. `kept` is the same run with the pages of the stored array kept mapped,
as plain indexing would.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

DISTINCT = 500
KEPT = 16_000  # of as many, the pages are kept as well


def generate(root: Path, number: int, pixels: int) -> None:
    """Write JPEGs: some hundred pictures under as many names as are asked for."""
    generator = np.random.default_rng(0)
    for name in range(min(DISTINCT, number)):
        coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((pixels, pixels), Image.Resampling.BICUBIC)
        image.save(root / f"{name:06d}.jpg")
    for name in range(DISTINCT, number):
        os.link(root / f"{name % DISTINCT:06d}.jpg", root / f"{name:06d}.jpg")


def kilobytes() -> dict[str, int]:
    """Return this process's memory by the kernel's account; VmHWM is the peak of the whole."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return {name: int(found[name].split()[0]) for name in ("RssAnon", "RssFile", "VmRSS", "VmHWM")}


def grown(start: dict[str, int]) -> dict[str, float]:
    """Return the growth since the start, MiB, and begin to look for the next peak."""
    now = kilobytes()
    Path("/proc/self/clear_refs").write_text("5")
    return {
        "private_mib": (now["RssAnon"] - start["RssAnon"]) / 1024,
        "mapped_mib": (now["RssFile"] - start["RssFile"]) / 1024,
        "peak_mib": (now["VmHWM"] - start["VmRSS"]) / 1024,
    }


def one_number(root: Path, number: int, pixels: int, keep: bool) -> dict:
    """Index, store and train; return seconds, and growth of memory in MiB, of each part."""
    import torch
    from torch import nn

    from nlalib import training
    from nlalib.images import image_array
    from nlalib.models import BACKBONES, Representation
    from nlalib.runs import RunConfig

    class Tiny(nn.Module):
        def __init__(self, num_classes: int):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 8, 8, stride=8), nn.Linear(8, num_classes)

        def forward(self, images):
            feature_map = self.conv(images).relu()
            features = feature_map.mean(dim=(2, 3))
            return Representation(self.fc(features), features, feature_map)

    BACKBONES["resnet18_narrow16"] = Tiny
    if keep:
        training.read_images = lambda images, positions: images[positions]
    torch.set_num_threads(1)
    config = RunConfig(method="ce", image_size=pixels, batch_size=32, epochs=2, device="cpu")
    config = RunConfig(**{**vars(config), "augmentation": "flip", "train_images": number})
    start = kilobytes()
    grown(start)
    result = {"images": number, "kept": keep}
    names = [f"{n:06d}.jpg" for n in range(number)]
    parts = np.array(["train"] * 8 + ["held_out", "test"])[np.arange(number) % 10]
    index = pd.DataFrame({"image_id": names, "path": names, "part": parts})
    index["label"] = np.arange(number) // 10 % 7
    for name, growth in grown(start).items():
        result[f"index_{name}"] = growth
    started = time.perf_counter()
    images = image_array(index, root=root, size=pixels)
    result["store_seconds"] = time.perf_counter() - started
    result["stored_mib"] = images.nbytes / 2**20
    for name, growth in grown(start).items():
        result[f"store_{name}"] = growth
    folder = training.train(config, index, images)
    result["second_epoch_seconds"] = pd.read_csv(folder / "timing.csv")["seconds"][1]
    for name, growth in grown(start).items():
        result[f"train_{name}"] = growth
    return result


def growth(pixels: int, numbers: list[int]) -> None:
    """Measure each number of images in a process of its own; the table is written after each."""
    from measuring import record

    rows = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "images"
        root.mkdir()
        generate(root, max(numbers), pixels)
        for number in numbers:
            for keep in (False, True) if number == KEPT else (False,):
                command = [sys.executable, __file__, "--pixels", str(pixels)]
                command += ["--child", str(root), str(number)] + ["--keep"] * keep
                environment = {**os.environ, "NLA_CACHE": f"{name}/cache", "NLA_RUNS": f"{name}/r"}
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
                rows.append(json.loads(done.stdout))
                shutil.rmtree(f"{name}/r")
                record(f"growth_{pixels}_pixels", as_table(rows, pixels))


def as_table(rows: list[dict], pixels: int) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    table["second_epoch_ms_an_image"] = 1000 * table["second_epoch_seconds"] / table["images"]
    return table.assign(pixels=pixels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pixels", type=int, default=112)
    parser.add_argument("--thousands", type=float, nargs="+", default=[1, 4, 16, 64, 71.85])
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--keep", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        root, number = Path(given.child[0]), int(given.child[1])
        print(json.dumps(one_number(root, number, given.pixels, given.keep)))
        return
    growth(given.pixels, [round(1000 * thousand) for thousand in given.thousands])


if __name__ == "__main__":
    main()
