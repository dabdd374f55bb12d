"""(e) Time of an epoch and memory, as images grow from 1 to 64 thousand.

python benchmarks/memory.py [--pixels 112] [--thousands 1 4 16 64]

Generated JPEGs are indexed, decoded into the stored array and trained on, each number in a fresh
process, through the library's own functions. The network is a tiny one, as the subject is what
surrounds it. Reported are milliseconds an image of the epochs after the first (median and
quartiles; the wall clock, evaluation and checkpoint included) and, in MiB, the growth since the
start after each part, as the kernel counts it: `private` (RssAnon: what the process allocated),
`mapped` (RssFile: pages of files, which the kernel takes back at will, the libraries' own code
among them), and the `peak` of the whole within the part. `kept` is the same
run with the pages of the stored array kept mapped, as plain indexing would.
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
BASE = 4_000  # an epoch of as many is what others are compared with


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


def one_number(root: Path, number: int, pixels: int, epochs: int, keep: bool) -> dict:
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
    config = RunConfig(method="ce", image_size=pixels, batch_size=32, epochs=epochs, device="cpu")
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
    seconds = pd.read_csv(folder / "timing.csv")["seconds"][1:]
    for name, share in (("", 0.5), ("_lower_quartile", 0.25), ("_upper_quartile", 0.75)):
        result[f"epoch_ms_an_image{name}"] = 1000 * seconds.quantile(share) / number
    for name, growth in grown(start).items():
        result[f"train_{name}"] = growth
    return result


def growth(pixels: int, numbers: list[int], epochs: int) -> None:
    """Measure each number of images in a process of its own; the table is written after each."""
    from measuring import RESULTS, record

    rows = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "images"
        root.mkdir()
        generate(root, max(numbers), pixels)
        for number in numbers:
            for keep in (False, True) if number == KEPT else (False,):
                command = [sys.executable, __file__, "--pixels", str(pixels)]
                command += ["--epochs", str(epochs)] + ["--keep"] * keep
                command += ["--child", str(root), str(number)]
                environment = {**os.environ, "NLA_CACHE": f"{name}/cache", "NLA_RUNS": f"{name}/r"}
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
                rows.append(json.loads(done.stdout))
                shutil.rmtree(f"{name}/r")
                table = as_table(rows, pixels)
                record(f"growth_{pixels}_pixels", table)
    draw(table, RESULTS / f"growth_{pixels}_pixels.svg")


def as_table(rows: list[dict], pixels: int) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    base = table.loc[(table["images"] == BASE) & ~table["kept"], "epoch_ms_an_image"]
    if len(base):
        table["time_ratio"] = table["epoch_ms_an_image"] / base.item()
    return table.assign(pixels=pixels)


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw time an image and memory against the number of images."""
    import matplotlib.pyplot as plt

    let_go, kept = table[~table["kept"]], table[table["kept"]]
    thousands = let_go["images"] / 1000
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    names = [f"epoch_ms_an_image{end}" for end in ("", "_lower_quartile", "_upper_quartile")]
    middle, low, high = (let_go[name] for name in names)
    left.errorbar(thousands, middle, [middle - low, high - middle], marker="o", capsize=3)
    left.set(xlabel="images (thousands)", ylabel="ms an image, epochs after the first")
    left.set_ylim(0, None)
    names = {"train_private_mib": "private", "train_mapped_mib": "mapped"}
    names |= {"train_peak_mib": "peak", "stored_mib": "the stored images"}
    for name, label in names.items():
        right.plot(thousands, let_go[name], "--" if name == "stored_mib" else "o-", label=label)
    right.plot(kept["images"] / 1000, kept["train_peak_mib"], "kx", label="peak, pages kept")
    right.set(xlabel="images (thousands)", ylabel="growth in training (MiB)")
    right.legend(frameon=False, fontsize="small")
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pixels", type=int, default=112)
    parser.add_argument("--thousands", type=float, nargs="+", default=[1, 4, 16, 64, 71.85])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--keep", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        root, number = Path(given.child[0]), int(given.child[1])
        print(json.dumps(one_number(root, number, given.pixels, given.epochs, given.keep)))
        return
    growth(given.pixels, [round(1000 * t) for t in given.thousands], given.epochs)


if __name__ == "__main__":
    main()
