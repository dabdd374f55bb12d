"""(e) Time of an epoch and memory, as images grow from 1 to 64 thousand.

python benchmarks/memory.py [--pixels 112] [--thousands 1 4 16 64] [--network NAME]

Generated JPEGs are indexed, decoded into the stored array and trained on, each number in a fresh
process, through the library's own functions; decoded by the first process that wants that number,
and found by those of other variants and rounds. The network is a tiny one, as the subject is what
surrounds it, unless one is named.

Reported are milliseconds an image of the epochs after the first (median and quartiles; by the wall
clock, with the evaluation, without the writing of records and checkpoint after it) and, in MiB, the
growth since the start after each part, as the kernel counts it: `private` (RssAnon: what the
process allocated), `mapped` (RssFile: pages of files, which the kernel takes back at will, the
libraries' own code among them), and the `peak` of the whole within the part. `resident_peak_mib` is
that peak of training not as growth but with all that was there before, PyTorch above all. Ratios
are to the run with 4 thousand images of the same round and variant. Variants:

- `as it is`;
- `blocks given back`: glibc keeps freed blocks of up to 32 MiB for later, between which the room is
  more or less broken up, by chance; here every block above 1 MB goes back to the kernel at once;
- `pages kept`: the pages of the stored array stay mapped, as plain indexing would have it.

Files go to the system's temporary folder (`TMPDIR`); 287,401 images of 112 pixels take 11 GB.
"""

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

DISTINCT = 500
BASE = 4_000  # an epoch of as many is what others are compared with
AFFECTNET = 283_901 + 3_500  # its training and validation images
STORED = "size of the stored images"
AS_IT_IS, GIVEN_BACK, KEPT = "as it is", "blocks given back", "pages kept"


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


def index_of(number: int) -> pd.DataFrame:
    names = [f"{n:06d}.jpg" for n in range(number)]
    parts = np.array(["train"] * 8 + ["held_out", "test"])[np.arange(number) % 10]
    index = pd.DataFrame({"image_id": names, "path": names, "part": parts})
    index["label"] = np.arange(number) // 10 % 7
    return index


def one_number(
    root: Path, number: int, pixels: int, epochs: int, variant: str, network: str | None
) -> dict:
    """Index, store and train; return seconds, and growth of memory in MiB, of each part."""
    import torch
    from torch import nn

    from nlalib.data.pixels import image_array
    from nlalib.networks.registry import register_backbone
    from nlalib.networks.representation import Representation
    from nlalib.training import batches as training
    from nlalib.training.config import RunConfig
    from nlalib.training.launch import train

    @register_backbone("tiny")
    class Tiny(nn.Module):
        def __init__(self, num_classes: int):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 8, 8, stride=8), nn.Linear(8, num_classes)

        def forward(self, images):
            feature_map = self.conv(images).relu()
            features = feature_map.mean(dim=(2, 3))
            return Representation(self.fc(features), features, feature_map)

    if variant == KEPT:
        training.read_images = lambda images, positions: images[positions]
    torch.set_num_threads(1)
    config = RunConfig(method="ce", image_size=pixels, batch_size=32, epochs=epochs, device="cpu")
    config = replace(config, augmentation="flip", train_images=number, backbone=network or "tiny")
    start = kilobytes()
    grown(start)
    result = {"images": number, "variant": variant}
    index = index_of(number)
    for name, growth in grown(start).items():
        result[f"index_{name}"] = growth
    started = time.perf_counter()
    images = image_array(index, root=root, size=pixels)
    result["store_seconds"] = time.perf_counter() - started
    result["stored_mib"] = images.nbytes / 2**20
    for name, growth in grown(start).items():
        result[f"store_{name}"] = growth
    folder = train(config, index, images)
    seconds = pd.read_csv(folder / "timing.csv")["seconds"][1:]
    for name, share in (("", 0.5), ("_lower_quartile", 0.25), ("_upper_quartile", 0.75)):
        result[f"epoch_ms_an_image{name}"] = 1000 * seconds.quantile(share) / number
    for name, growth in grown(start).items():
        result[f"train_{name}"] = growth
    result["resident_peak_mib"] = result["train_peak_mib"] + start["VmRSS"] / 1024
    return result


def growth(
    pixels: int, numbers: list[int], epochs: int, network: str | None = None, rounds: int = 1
) -> None:
    """Measure each number of images in a process of its own; the table is written after each."""
    from measuring import RESULTS, record

    rows, title = [], f"growth_{pixels}_pixels" + (f"_{network}" if network else "")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "images"
        root.mkdir()
        generate(root, max(numbers), pixels)
        for turn, number in itertools.product(range(rounds), numbers):
            for variant in variants_of(number, network):
                about = {"number": number, "pixels": pixels, "epochs": epochs}
                about |= {"variant": variant, "network": network}
                command = [sys.executable, __file__, "--child", str(root), json.dumps(about)]
                environment = {**os.environ, "NLA_CACHE": f"{name}/cache", "NLA_RUNS": f"{name}/r"}
                if variant == GIVEN_BACK:
                    environment["MALLOC_MMAP_THRESHOLD_"] = "1000000"
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
                rows.append({"round": turn, **json.loads(done.stdout)})
                shutil.rmtree(f"{name}/r")
                table = with_ratios(rows).assign(pixels=pixels, network=network or "tiny")
                record(title, table)
    draw(table, RESULTS / f"{title}.svg")


def variants_of(number: int, network: str | None) -> tuple[str, ...]:
    if network:
        return (AS_IT_IS,)
    return (AS_IT_IS, GIVEN_BACK) + (KEPT,) * (number < AFFECTNET)


def with_ratios(rows: list[dict]) -> pd.DataFrame:
    """Return the rows with ratios to the run with `BASE` images of the same round and variant."""
    table = pd.DataFrame(rows)
    alike = ["round", "variant"]
    base = table[table["images"] == BASE].set_index(alike)
    for ratio, column in (("time", "epoch_ms_an_image"), ("memory", "resident_peak_mib")):
        of_base = table[alike].join(base[column], on=alike)[column]
        table[f"{ratio}_ratio"] = table[column] / of_base
    return table


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw time an image and memory against the number of images."""
    import matplotlib.pyplot as plt

    colours = {AS_IT_IS: "C0", GIVEN_BACK: "C2", KEPT: "C1"}
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for (_, variant), rows in table.groupby(["round", "variant"], sort=False):
        thousands, look = rows["images"] / 1000, {"marker": "o", "color": colours[variant]}
        middle, low, high = (
            rows[f"epoch_ms_an_image{end}"] for end in ("", "_lower_quartile", "_upper_quartile")
        )
        left.errorbar(thousands, middle, [middle - low, high - middle], capsize=3, **look)
        right.plot(thousands, rows["train_peak_mib"], label=variant, **look)
    # Not of AffectNet's number, beside which all else would be flat.
    stored = table[table["images"] < AFFECTNET].drop_duplicates("images")
    right.plot(stored["images"] / 1000, stored["stored_mib"], "k--", label=STORED)
    left.set(xlabel="images (thousands)", ylabel="ms an image, epochs after the first")
    left.set_ylim(0, None)
    right.set(xlabel="images (thousands)", ylabel="peak growth in training (MiB)")
    handles, labels = right.get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))  # each once, of all rounds
    right.legend(by_label.values(), by_label, frameon=False, fontsize="small")
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pixels", type=int, default=112)
    parser.add_argument("--thousands", type=float, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1, help="of all numbers, one after another")
    parser.add_argument("--network", help="the name of a backbone; a tiny one without it")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        root, about = given.child
        print(json.dumps(one_number(Path(root), **json.loads(about))))
        return
    numbers = [round(1000 * thousand) for thousand in given.thousands]
    growth(given.pixels, numbers, given.epochs, given.network, given.rounds)


if __name__ == "__main__":
    main()
