"""AffectNet's two layouts: which one lies in a folder, and its files.

The release of 2017 has two csv files and photographs in numbered folders; the later one has each
crop's own small `.npy` files.
"""

import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from io import BytesIO
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pandas as pd

from nlalib.data.sets.base import (
    IMAGE_ENDINGS,
    contents,
    encoding_of,
    names_in,
    what_is_missing,
)

# The test set first: an image that is listed in both stays out of training.
CSV_FILES = {"validation.csv": "test", "training.csv": "train"}
SET_FOLDERS = {"val_set": "test", "train_set": "train"}
# Where the csv files lie: as the set ships, or moved up.
LIST_FOLDERS = (".", "Manually_Annotated_file_lists", "Manually_Annotated/file_lists")
IMAGE_FOLDERS = ("Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images")
NAME, POINTS, CODE = "subDirectory_filePath", "facial_landmarks", "expression"
_BOX = ["face_x", "face_y", "face_width", "face_height"]  # which nothing here needs
CSV_COLUMNS = [NAME, *_BOX, POINTS, CODE, "valence", "arousal"]
LAYOUT = """expected either (release of 2017)              or (later release)
  <root>/                                      <root>/
    Manually_Annotated_file_lists/               train_set/images/<id>.jpg
      training.csv, validation.csv               train_set/annotations/<id>_exp.npy, ...
    Manually_Annotated_Images/<number>/*.jpg     val_set/ (the same)"""

_OF_COPY = (
    "a rearranged copy of AffectNet, without the set's own names, splits or landmarks (its "
    "manually labelled images are 283,901 and 3,500); ask the owners for the set itself"
)


def list_folder(root: Path) -> str | None:
    """Return the folder below `root` that holds one of the csv files; None without."""
    for folder in LIST_FOLDERS:
        if any((root / folder / name).is_file() for name in CSV_FILES):
            return folder
    return None


def other_endings(root: Path) -> str:
    """Say of which other kind the later release's files are, if they are."""
    folder = root / "train_set" / "images"
    endings = {os.path.splitext(name)[1].lower() for name in names_in(folder)}
    others = sorted(endings - set(IMAGE_ENDINGS))
    if not others:
        return ""
    return f"; {folder} holds files that end in {', '.join(others[:3])}, of which none is read"


def is_csv_release(root: Path) -> bool:
    """Tell the releases apart; FileNotFoundError where neither is whole at `root`."""
    folder = list_folder(root)
    lists = [(Path(folder) / name).as_posix() for name in CSV_FILES] if folder else []
    for parts in (lists, [*SET_FOLDERS]):
        missing = [part for part in parts if not (root / part).exists()]
        if parts and not missing:
            return parts is lists
        if len(missing) < len(parts):
            raise FileNotFoundError(f"{root} lacks {missing[0]}: unpack that too; {LAYOUT}")
    missing = what_is_missing(root, "AffectNet", _is_root, of_copy=_OF_COPY, layout=LAYOUT)
    raise FileNotFoundError(missing or f"{root} {contents(root)}; {LAYOUT}")


def _is_root(folder: Path) -> bool:
    return bool(list_folder(folder)) or any((folder / part).exists() for part in SET_FOLDERS)


def read_csv(path: Path, columns: list[str]) -> Iterator[pd.DataFrame]:
    """Read `columns` as text, rows under their `image_id`; some copies have no header."""
    encoding = encoding_of(path)
    with path.open(encoding=encoding) as file:
        names = [name.strip().strip('"') for name in file.readline().split(",")]
    has_header = not set(names).isdisjoint(CSV_COLUMNS)
    missing = [name for name in (NAME, *columns) if name not in names]
    if missing and (has_header or len(names) != len(CSV_COLUMNS)):
        raise ValueError(
            f"{path} lacks the columns {missing}; its first line is {','.join(names)[:200]!r}: "
            f"take the file as published, with {', '.join(CSV_COLUMNS)}"
        )
    options = {"names": names if has_header else CSV_COLUMNS, "header": 0 if has_header else None}
    options |= {"usecols": [NAME, *columns], "dtype": "str", "index_col": False}
    options |= {"skipinitialspace": True, "encoding": encoding, "chunksize": 16384}
    # In chunks: with the landmarks as text the file is half a gigabyte.
    for chunk in pd.read_csv(path, **options):
        ids = chunk[NAME].fillna("").str.strip().str.replace("\\", "/").str.lower()
        yield chunk.set_index(pd.Index(ids.str.replace(r"\.[a-z]+$", "", regex=True)))[columns]


def read_npy(files: dict[str, str], decode: Callable) -> dict:
    """Read many small files: in threads, as the time goes into waiting for the disk."""

    def read(file: str):
        try:
            return decode(Path(file).read_bytes())
        except ValueError as error:
            raise ValueError(f"{file} cannot be read, unpack it again: {error}") from error

    with ThreadPool(16) as pool:
        return dict(zip(files, pool.imap(read, files.values(), chunksize=1024), strict=True))


def decode(content: bytes) -> np.ndarray:
    return np.lib.format.read_array(BytesIO(content), allow_pickle=False)


@lru_cache(maxsize=1024)  # With eleven expressions, few files differ.
def decode_code(content: bytes) -> str:
    return str(decode(content).item()).strip()


def list_annotations(root: Path, ending: str) -> dict[str, str]:
    files = {}
    for folder in SET_FOLDERS:
        annotations = root / folder / "annotations"
        names = names_in(annotations, ending)
        if not names:
            raise FileNotFoundError(f"{annotations} holds no *{ending}: unpack it again; {LAYOUT}")
        files |= {f"{folder}/{n[: -len(ending)].lower()}": f"{annotations}/{n}" for n in names}
    return files
