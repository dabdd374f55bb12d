"""What the readers of the three sets share: what they tolerate, and what they recognise."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from nlalib.data.labels import class_id

# So many files or labels without their counterpart are a quirk to count; more is an error.
TOLERATED_SHARE, TOLERATED_IMAGES = 0.01, 5
# In a folder of images that `nlalib.prepare.aligned_images` made: how they were aligned.
SETTINGS_FILE = "alignment.json"
# The box of a face, pixels of the image file: left, top, width, height.
BOX_COLUMNS = ["face_x", "face_y", "face_width", "face_height"]
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")


def tolerated_missing(images: int) -> int:
    """Return how many of `images` may lack their file or label: 1 %, but at least 5."""
    return max(TOLERATED_IMAGES, int(TOLERATED_SHARE * images))


def count_differences(index: pd.DataFrame, counts: Mapping[str, Mapping[str, int]]) -> pd.DataFrame:
    """Return where the images of a split and class are not as many as expected.

    Parameters
    ----------
    index : pandas.DataFrame
        As `nlalib.data.index` describes.
    counts : mapping
        Split to expression to number of images.

    Returns
    -------
    pandas.DataFrame
        `split`, `expression`, `expected`, `found`; no rows if all agree. Noisy labels differ, as
        they should.
    """
    table = class_table(index, counts)
    return table[table["expected"] != table["found"]].reset_index(drop=True)


def class_table(index: pd.DataFrame, counts: Mapping[str, Mapping[str, int]]) -> pd.DataFrame:
    """Return expected and found images of every split and class, as `count_differences` does."""
    found = index.value_counts(["split", "label"]).to_dict()
    table = pd.DataFrame(
        [(split, name, count) for split in counts for name, count in counts[split].items()],
        columns=["split", "expression", "expected"],
    )
    keys = zip(table["split"], table["expression"].map(class_id), strict=True)
    table["found"] = [found.get(key, 0) for key in keys]
    return table


def find_class_folders(root: Path) -> tuple[Path, dict[str, int]] | None:
    """Look at and around `root` for a copy that was sorted into one folder a class.

    Such copies (`train/angry/*.jpg`, `test/3/*.jpg`, ...) circulate of all three sets. They have
    lost the votes, the landmarks or the names, and were often aligned or resized again.

    Returns
    -------
    tuple or None
        The folder, and the number of images in each split's folder; None if there is no such
        copy. A split's folder is one with six or more folders of images.
    """
    below = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    for copy in [root.parent, root, *below]:
        folders = {path.name: _class_images(path) for path in _folders(copy)}
        images = {name: sum(counts) for name, counts in folders.items() if len(counts) >= 6}
        if len(images) >= 2:
            return copy, images
    return None


def _folders(folder: Path) -> list[Path]:
    """Return the first folders in a folder: a class copy has few, and others need no long look."""
    if not (folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)):
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir())[:12]


def _class_images(folder: Path) -> list[int]:
    readable = [path for path in _folders(folder) if os.access(path, os.R_OK)]
    counts = [sum(_is_image(name) for name in os.listdir(path)) for path in readable]
    return [count for count in counts if count]


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_ENDINGS) and not name.startswith(".")


def alignment_settings(folder: str | os.PathLike) -> dict | None:
    """Return how the images of a folder were aligned; None for a set as it ships.

    It changes what a run computes, so it belongs to what a run is known by.
    """
    path = Path(folder) / SETTINGS_FILE
    return json.loads(path.read_text()) if path.is_file() else None
