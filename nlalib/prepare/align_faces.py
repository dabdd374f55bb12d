"""Whole data sets, aligned into a folder that takes the set's place: `python -m nlalib align`.

The aligned folder has the set's tree and label files, so a run reads it with `data_root` and the
set's own reader. RAF-DB's original photographs go to `Image/aligned/`, where its reader looks.
Landmark files are left out: they are those of the images as they were. Faces drawn by code have
no reader of folders; their aligned folder is for looking at.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from nlalib.data.choice import DATASETS
from nlalib.data.sets import affectnet, ferplus, rafdb
from nlalib.data.sets.rendered import rendered_index
from nlalib.files import write_atomically
from nlalib.paths import display_path, resolve
from nlalib.prepare.aligned_images import FAILED, LANDMARK_SOURCES, REPORT_FILE, align_images

RENDERED_FACES = 200


def align_set(
    dataset: str,
    root: str | os.PathLike,
    output_folder: str | os.PathLike,
    *,
    size: int = 224,
    landmarks: str = "given",
    report: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """Align all images of a data set into a folder that its reader reads; return the report.

    Parameters
    ----------
    dataset : str
        One of `nlalib.training.config.DATASETS`.
    root, output_folder, size, landmarks, report
        As for `nlalib.prepare.aligned_images.align_images`.

    Raises
    ------
    FileNotFoundError, ValueError, RuntimeError
        As the set's reader and `align_images`.
    """
    images = set_images(dataset, root)
    table = align_images(images, root, output_folder, size, landmarks, report)
    copy_labels(dataset, root, output_folder)
    return table


def count_outcomes(table: pd.DataFrame) -> pd.DataFrame:
    """Count the images of a report: columns `outcome`, `reason`, `images`."""
    return table.value_counts(["outcome", "reason"]).reset_index(name="images")


def main(arguments: list[str]) -> int:
    """Run `python -m nlalib align`; return its exit status: 1 if an image could not be read."""
    parser = argparse.ArgumentParser(
        prog="python -m nlalib align", description="Align all faces of a data set into a folder."
    )
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("--root", help="the set's folder; data/<dataset> without it")
    parser.add_argument("--output", required=True, help="a new folder, or one to continue")
    parser.add_argument("--size", type=int, default=224, help="side of the aligned images, pixels")
    parser.add_argument("--landmarks", choices=LANDMARK_SOURCES, default="given")
    given = parser.parse_args(arguments)
    root, output = resolve(given.root or f"data/{given.dataset}"), resolve(given.output)
    options = {"size": given.size, "landmarks": given.landmarks, "report": print}
    try:
        table = align_set(given.dataset, root, output, **options)
    except (FileNotFoundError, ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(count_outcomes(table).to_string(index=False))
    print(f"each image's line is in {display_path(output / REPORT_FILE)}")
    failed = table[table["outcome"] == FAILED]
    if len(failed):
        print(
            f"error: {len(failed):,} of {len(table):,} images could not be read, first "
            f"{failed['path'].iloc[0]} ({failed['reason'].iloc[0]}); unpack the set again and "
            "start the command again",
            file=sys.stderr,
        )
    return int(len(failed) > 0)


def set_images(dataset: str, root: str | os.PathLike) -> pd.DataFrame:
    """Return every image of a set that a run could use, whatever label rule it takes.

    Parameters
    ----------
    dataset : str
        One of `nlalib.training.config.DATASETS`.
    root : path
        The data set's folder.

    Returns
    -------
    pandas.DataFrame
        For `align_images`: `image_id`, `path`, `split`, and what the set has of `output` and
        landmarks. RAF-DB's original photographs where they are there, else its aligned faces.
        AffectNet's eight classes, and FERPlus' images whatever their votes.

    Raises
    ------
    FileNotFoundError, ValueError
        As the set's reader, or for an unknown set.
    """
    root = Path(root)
    if dataset == "rendered":
        return rendered_index(train=RENDERED_FACES, test=0, seed=0)
    if dataset == "ferplus":
        # The rule that keeps most; with files, those that it drops are listed all the same.
        index, _ = ferplus.read_ferplus(root, rule="argmax", num_classes=8)
        listed = [
            (path.stem.lower(), f"{folder}/{path.name}", split)
            for split, folder in ferplus.FOLDERS.items()
            for path in sorted((root / folder).glob("*"))
            if path.suffix.lower() == ".png"
        ]
        images = pd.DataFrame(listed, columns=["image_id", "path", "split"])
        return images if len(images) else index
    if dataset == "rafdb":
        has_originals = (root / "Image" / "original").is_dir()
        index, _ = rafdb.read_rafdb(root, aligned=not has_originals)
        return index.assign(output="Image/aligned/" + index["image_id"] + "_aligned.jpg")
    if dataset == "affectnet":
        index, _ = affectnet.read_affectnet(root, num_classes=8)
        return index.merge(affectnet.affectnet_boxes_and_points(root, index), on="image_id")
    raise ValueError(f"unknown data set {dataset!r}; known are rendered, ferplus, rafdb, affectnet")


def copy_labels(dataset: str, root: str | os.PathLike, output_folder: str | os.PathLike) -> None:
    """Copy a set's label files into its aligned folder, so that its reader reads that as well."""
    root, output = Path(root), Path(output_folder)
    patterns = {
        "ferplus": (ferplus.VOTES_FILE, f"FER2013*/{ferplus.LABEL_FILE}"),
        "rafdb": ("EmoLabel/*.txt",),
        "affectnet": ("*_set/annotations/*_exp.npy",),
    }
    for pattern in patterns.get(dataset, ()):
        for source in root.glob(pattern):
            target = output / source.relative_to(root)
            if not target.is_file() or target.stat().st_mtime_ns != source.stat().st_mtime_ns:
                write_atomically(target, lambda file, source=source: shutil.copy2(source, file))
    if dataset == "affectnet":
        for name in affectnet.CSV_FILES:
            if (root / name).is_file():
                write_atomically(
                    output / name, lambda file, name=name: _copy_codes(root / name, file)
                )


def _copy_codes(path: Path, file: Path) -> None:
    """Copy a csv's names and expressions; its boxes and points are those of the photographs."""
    with path.open(encoding="utf-8-sig") as lines:
        names = [name.strip().strip('"') for name in lines.readline().split(",")]
    has_header = affectnet.NAME in names
    names = names if has_header else affectnet.CSV_COLUMNS
    wanted = [names.index(name) for name in (affectnet.NAME, affectnet.CODE)]
    table = pd.read_csv(
        path, header=None, skiprows=int(has_header), usecols=wanted, dtype="str", index_col=False
    )
    table.columns = [affectnet.NAME, affectnet.CODE]
    table.to_csv(file, index=False)
