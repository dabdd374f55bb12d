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

from nlalib.data.sets import SETS
from nlalib.files import CLOSED, write_atomically
from nlalib.names import named
from nlalib.paths import display_path, resolve
from nlalib.prepare.aligned_images import FAILED, LANDMARK_SOURCES, REPORT_FILE, align_images


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
        One of `nlalib.data.sets.SETS`.
    root, output_folder, size, landmarks, report
        As for `nlalib.prepare.aligned_images.align_images`.

    Raises
    ------
    FileNotFoundError, ValueError, RuntimeError
        As the set's reader and `align_images`.
    """
    data_set = named(SETS, dataset, "data set")
    images = data_set.to_align(Path(root))
    if landmarks == "given":
        images = data_set.with_landmarks(Path(root), images)
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
    parser.add_argument("dataset", choices=SETS)
    parser.add_argument("--root", help="the set's folder; data/<dataset> without it")
    parser.add_argument("--output", required=True, help="a new folder, or one to continue")
    parser.add_argument("--size", type=int, default=224, help="side of the aligned images, pixels")
    parser.add_argument("--landmarks", choices=LANDMARK_SOURCES, default="given")
    given = parser.parse_args(arguments)
    root, output = resolve(given.root or f"data/{given.dataset}"), resolve(given.output)
    options = {"size": given.size, "landmarks": given.landmarks, "report": print}
    table = align_set(given.dataset, root, output, **options)
    print(count_outcomes(table).to_string(index=False))
    print(f"each image's line is in {display_path(output / REPORT_FILE)}")
    failed = table[table["outcome"] == FAILED]
    if len(failed):
        print(
            f"error: {len(failed):,} of {len(table):,} images could not be read, first "
            f"{failed['path'].iloc[0]} ({failed['reason'].iloc[0]}); "
            + ("" if (failed["reason"] == CLOSED).all() else "unpack the set again and ")
            + "start the command again",
            file=sys.stderr,
        )
    return int(len(failed) > 0)


def copy_labels(dataset: str, root: str | os.PathLike, output_folder: str | os.PathLike) -> None:
    """Give a set's aligned folder its label files, so that its reader reads that as well."""
    root, output = Path(root), Path(output_folder)
    for source in SETS[dataset].label_files(root):
        target = output / source.relative_to(root)
        if not target.is_file() or target.stat().st_mtime_ns != source.stat().st_mtime_ns:
            write_atomically(target, lambda file, source=source: shutil.copy2(source, file))
    SETS[dataset].write_labels(root, output)
