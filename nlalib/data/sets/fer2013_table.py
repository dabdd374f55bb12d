"""FER2013 as Kaggle has it: a table with a row an image, whose pixels stand there as numbers.

The image of row 5 of `fer2013.csv` has the path `fer2013.csv#5`.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from nlalib.data.sets.base import encoding_of

IMAGE_SIDE = 48
TABLE_MARK = ".csv#"
TABLE_FILES = ("fer2013.csv", "icml_face_data.csv", "fer2013/fer2013.csv")


def find_table(root: Path) -> str | None:
    """Return the table's path below `root`, under the names that Kaggle gives it; None without."""
    return next((name for name in TABLE_FILES if (root / name).is_file()), None)


def split_path(path: str) -> tuple[str, int]:
    """Return the table and the row that the path of an image in a table names."""
    table, _, row = path.rpartition("#")
    return table, int(row)


def load_kaggle_images(csv_path: str | os.PathLike, rows: Sequence[int]) -> np.ndarray:
    """Read the pixels of rows of Kaggle's `fer2013.csv`.

    Parameters
    ----------
    csv_path : path
    rows : sequence of int
        (M,), positions of the wanted rows, counted from 0, in any order. The whole file is read in
        any case: ask for many rows at once.

    Returns
    -------
    numpy.ndarray
        (M, 48, 48), uint8.

    Raises
    ------
    ValueError
        If a row has not 2,304 numbers in 0..255, or a wanted row does not exist.
    """
    wanted, images, start = set(rows), {}, 0
    # In chunks: the numbers as text take several times the room of the images.
    for chunk in read_column(csv_path, "pixels", chunksize=4096):
        for row, text in enumerate(chunk["pixels"].fillna(""), start):
            if row in wanted:
                images[row] = _parse_pixels(text, row, csv_path)
        start += len(chunk)
    missing = sorted(wanted - set(images))
    if missing:
        raise ValueError(f"{csv_path} has {start} rows, counted from 0; there is no {missing[:5]}")
    flat = np.array([images[row] for row in rows], dtype=np.uint8)
    return flat.reshape(-1, IMAGE_SIDE, IMAGE_SIDE)


def _parse_pixels(text: str, row: int, csv_path: str | os.PathLike) -> np.ndarray:
    try:
        values = np.fromstring(text, dtype=np.int64, sep=" ")
    except ValueError:  # Something that is no number.
        values = np.empty(0, dtype=np.int64)
    if values.size != IMAGE_SIDE**2 or values.min() < 0 or values.max() > 255:
        raise ValueError(
            f"row {row} of {csv_path} starts with {text[:20]!r} and has {values.size} readable "
            f"pixels; expected {IMAGE_SIDE**2} numbers in 0..255: is the download complete?"
        )
    return values.astype(np.uint8)


def read_column(csv_path: str | os.PathLike, column: str, **options):
    """Return one column of the table, or chunks of it."""
    # The challenge's own release has a blank before the names in the header.
    how = {"encoding": encoding_of(Path(csv_path)), "skipinitialspace": True}
    header = list(pd.read_csv(csv_path, nrows=0, **how))
    if column not in header:
        raise ValueError(f"{csv_path} lacks the column {column!r}; it has {header}")
    return pd.read_csv(csv_path, usecols=[column], **how, **options)
