"""AffectNet: faces from the web, each labelled by one person, read into an index.

Two releases are read: that of 2017 has photographs, with face boxes and landmarks in two csv
files; the later one has crops of 224 x 224 pixels, each with its own small `.npy` files.

**The split "test" is AffectNet's validation set**, on which papers test: 500 images a class, so
3,500 with seven classes. There is no other validation split.

`automatically_annotated.csv` is never read: its labels are a machine's.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from io import BytesIO
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from nlalib.data.index import LANDMARK_COLUMNS, check_index
from nlalib.data.labels import AFFECTNET_CODES, class_id, expressions
from nlalib.data.sets.base import (
    BOX_COLUMNS,
    TOLERATED_SHARE,
    find_class_folders,
    tolerated_missing,
)

# The test set first: an image that is listed in both stays out of training.
CSV_FILES = {"validation.csv": "test", "training.csv": "train"}
SET_FOLDERS = {"val_set": "test", "train_set": "train"}
IMAGE_FOLDERS = ("Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images")
NAME, POINTS, CODE = "subDirectory_filePath", "facial_landmarks", "expression"
CSV_COLUMNS = [NAME, *BOX_COLUMNS, POINTS, CODE, "valence", "arousal"]
POINT_COLUMNS = [f"{column}_pixels" for column in LANDMARK_COLUMNS]
MEANINGS = AFFECTNET_CODES | {8: "none", 9: "uncertain", 10: "no face"}
# Images by class in the order of the codes, as users of the set count its csv files; the seven of
# the training set sum to the NLA paper's 283,901. We do not hold the set.
_TRAIN_COUNTS = (74874, 134415, 25459, 14090, 6378, 3803, 24882, 3750)
COUNTS = {
    "train": dict(zip(AFFECTNET_CODES.values(), _TRAIN_COUNTS, strict=True)),
    "test": dict.fromkeys(AFFECTNET_CODES.values(), 500),
}
REPEATED, NO_FILE, NO_LABEL = "listed before", "listed without a file", "image without a label"
LAYOUT = """expected either (release of 2017)              or (later release)
  <root>/                                      <root>/
    training.csv, validation.csv                 train_set/images/<id>.jpg
    Manually_Annotated_Images/<number>/*.jpg     train_set/annotations/<id>_exp.npy, ...
                                                 val_set/ (the same)"""


def read_affectnet(
    root: str | os.PathLike, *, num_classes: int = 7
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read AffectNet into an index; the split "test" is AffectNet's validation set.

    Parameters
    ----------
    root : path
        The folder with one of the two layouts; the csv files are used where both are.
    num_classes : int
        7, or 8 with contempt.

    Returns
    -------
    index : pandas.DataFrame
        As `nlalib.data.index` describes, sorted by split and name. It has no landmarks: the csv
        files give them in pixels of photographs of unknown size. See `affectnet_boxes_and_points`.
    dropped : pandas.DataFrame
        What is not in the index: columns `split`, `reason` ("contempt", "none", "uncertain",
        "no face", `REPEATED`, `NO_FILE`, `NO_LABEL`), `images`. Images that no csv file lists are
        not looked for.

    Raises
    ------
    FileNotFoundError
        If neither layout is there, or a part of one is missing.
    ValueError
        If a file cannot be what it should be, or over 1 % of a split lack their image or label.
    """
    kept = [name for name in AFFECTNET_CODES.values() if name in expressions(num_classes)]
    root = Path(root)
    rows = _list_csv_rows(root) if _is_csv_release(root) else _list_sets(root)
    meaning = rows["code"].map(MEANINGS)
    rows["reason"] = np.select(
        [rows["image_id"].duplicated(), meaning.isna(), ~meaning.isin(kept), rows["path"].isna()],
        [REPEATED, NO_LABEL, meaning.to_numpy(object), NO_FILE],
        default="",
    )
    rows["label"] = meaning.map({name: class_id(name) for name in kept})
    wanted = rows[rows["reason"].isin(["", NO_FILE, NO_LABEL])]["split"].value_counts()
    for (split, reason), found in rows.groupby(["split", "reason"])["image_id"]:
        if reason in (NO_FILE, NO_LABEL) and len(found) > tolerated_missing(wanted[split]):
            raise ValueError(
                f"{root}, split {split!r}: {len(found)} of {wanted[split]} images are {reason!r}, "
                f"first {found.iloc[0]}; expected at most {TOLERATED_SHARE:.0%}: the archive is "
                "not wholly unpacked, unpack it again"
            )
    order = {"ascending": [False, True], "ignore_index": True}  # "train" before "test"
    dropped = rows[rows["reason"] != ""].value_counts(["split", "reason"])
    dropped = dropped.reset_index(name="images").sort_values(["split", "reason"], **order)
    index = rows.loc[rows["reason"] == "", ["image_id", "path", "split", "label"]]
    index = index.sort_values(["split", "image_id"], **order).astype({"label": "int64"})
    return check_index(index, num_classes), dropped


def affectnet_boxes_and_points(root: str | os.PathLike, index: pd.DataFrame) -> pd.DataFrame:
    """Return the face box and five landmarks of each image of `read_affectnet`'s index.

    Of the set's 68 points, counted from 0: the means of 36-41 and 42-47 (eyes), 30 (nose), 48 and
    54 (mouth). Whether their pixels count from a corner or a centre is not documented.

    Returns
    -------
    pandas.DataFrame
        In the index's order: `image_id`, then `BOX_COLUMNS` (all of the image in the later
        release, whose images are crops) and `POINT_COLUMNS`, float64, pixels of the image file,
        left and right as the viewer sees them; NaN where the set gives none.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_affectnet`, or if the index is of another root, or landmarks are not 68 points.
    """
    root = Path(root)
    read = _read_csv_points if _is_csv_release(root) else _read_set_points
    found = read(root, set(index["image_id"]))
    unknown = index.loc[~index["image_id"].isin(found.index), "image_id"]
    if len(unknown):
        raise ValueError(
            f"{len(unknown)} of {len(index)} images are not listed in {root}, first "
            f"{unknown.iloc[0]!r}: read the index from the same root"
        )
    return found.loc[index["image_id"]].rename_axis("image_id").reset_index()


def _is_csv_release(root: Path) -> bool:
    """Tell the releases apart; FileNotFoundError where neither is whole at `root`."""
    for parts in (CSV_FILES, SET_FOLDERS):
        missing = [part for part in parts if not (root / part).exists()]
        if 0 < len(missing) < len(parts):
            raise FileNotFoundError(f"{root} lacks {missing[0]}: unpack that too; {LAYOUT}")
        if not missing:
            return parts is CSV_FILES
    # The folders above are tried too: somebody may have passed .../train_set/images.
    inside = sorted(root.iterdir()) if root.is_dir() else []
    for candidate in [*root.parents[:2], *inside]:
        if any((candidate / part).exists() for part in CSV_FILES | SET_FOLDERS):
            raise FileNotFoundError(
                f"{root} is not AffectNet's root, {candidate} is: pass root={str(candidate)!r}"
            )
    if copy := find_class_folders(root):
        raise FileNotFoundError(
            f"{copy[0]} has class folders under {'/ and '.join(copy[1])}/ with "
            f"{' and '.join(f'{count:,}' for count in copy[1].values())} images: a rearranged copy "
            "of AffectNet, without the set's own names, splits or landmarks (its manually labelled "
            f"images are 283,901 and 3,500); ask the owners for the set itself; {LAYOUT}"
        )
    found = f"holds {', '.join(path.name for path in inside[:8]) or 'nothing'}"
    found = found if root.is_dir() else "does not exist"
    raise FileNotFoundError(f"{root} {found}; {LAYOUT}")


def _names_in(folder: Path, ending: str = "") -> list[str]:
    """Return the names in a folder, in one scan; none where there is no folder."""
    names = os.listdir(folder) if folder.is_dir() else []
    return [name for name in names if name.lower().endswith(ending)]


def _check_codes(codes: pd.Series, source: Path) -> pd.Series:
    wrong = codes[~pd.to_numeric(codes, errors="coerce").isin(list(MEANINGS))]
    if len(wrong):
        raise ValueError(
            f"{len(wrong)} expressions in {source} are not in 0..10, first {wrong.iloc[0]!r} of "
            f"{wrong.index[0]}: take AffectNet's own files, not ones with other codes"
        )
    return pd.to_numeric(codes).astype("int64")


def _parse_points(text: str, image_id: str) -> np.ndarray:
    try:
        return _check_points(np.fromstring(text.strip("; "), sep=";"))
    except ValueError as error:
        raise ValueError(f"landmarks of {image_id}, {text[:20]!r} ..: {error}") from error


def _check_points(values: np.ndarray) -> np.ndarray:
    if values.size != 136:
        raise ValueError(f"{values.size} numbers, expected 68 points x, y: unpack the file again")
    return values.astype(np.float64).ravel()


def _five_points(values: np.ndarray | list) -> np.ndarray:
    """Return (N, 10), the coordinates of five points, from (N, 136), those of 68."""
    points = np.reshape(values, (-1, 68, 2))
    eyes = points[:, 36:42].mean(axis=1), points[:, 42:48].mean(axis=1)
    return np.concatenate([*eyes, points[:, 30], points[:, 48], points[:, 54]], axis=1)


def _read_csv(path: Path, columns: list[str]) -> Iterator[pd.DataFrame]:
    """Read `columns` as text, rows under their `image_id`; some copies have no header."""
    with path.open(encoding="utf-8-sig") as file:
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
    options |= {"skipinitialspace": True, "encoding": "utf-8-sig", "chunksize": 16384}
    # In chunks: with the landmarks as text the file is half a gigabyte.
    for chunk in pd.read_csv(path, **options):
        ids = chunk[NAME].fillna("").str.strip().str.replace("\\", "/").str.lower()
        yield chunk.set_index(pd.Index(ids.str.replace(r"\.[a-z]+$", "", regex=True)))[columns]


def _list_csv_rows(root: Path) -> pd.DataFrame:
    folder = next((name for name in IMAGE_FOLDERS if (root / name).is_dir()), None)
    if folder is None:
        raise FileNotFoundError(
            f"{root} has csv files but no images; unpack them to {' or '.join(IMAGE_FOLDERS)}"
        )
    tables = []
    for file, split in CSV_FILES.items():
        codes = _check_codes(pd.concat(_read_csv(root / file, [CODE]))[CODE], root / file)
        tables.append(pd.DataFrame({"image_id": codes.index, "code": codes.array, "split": split}))
    rows = pd.concat(tables, ignore_index=True)
    # One scan a folder, as 420 thousand single looks take far longer.
    paths = {
        f"{number}/{os.path.splitext(name)[0]}".lower(): f"{folder}/{number}/{name}"
        for number in rows["image_id"].str.partition("/")[0].unique()
        for name in _names_in(root / folder / number)
    }
    return rows.assign(path=rows["image_id"].map(paths))


def _read_csv_points(root: Path, wanted: set[str]) -> pd.DataFrame:
    tables, none = [], np.full(136, np.nan)
    for file in CSV_FILES:
        for chunk in _read_csv(root / file, [*BOX_COLUMNS, POINTS]):
            # Not `isin`, which hashes all of `wanted` anew for each chunk.
            chunk = chunk[[image_id in wanted for image_id in chunk.index]]
            points = [
                _parse_points(text, image_id) if isinstance(text, str) else none
                for image_id, text in chunk[POINTS].items()
            ]
            table = chunk[BOX_COLUMNS].apply(pd.to_numeric, errors="coerce").astype("float64")
            table[POINT_COLUMNS] = _five_points(points)
            tables.append(table)
    found = pd.concat(tables)
    return found[~found.index.duplicated()]


def _read_npy(files: dict[str, str], decode: Callable) -> dict:
    """Read many small files: in threads, as the time goes into waiting for the disk."""

    def read(block: list[str]) -> list:
        values = []
        for file in block:
            try:
                values.append(decode(Path(file).read_bytes()))
            except ValueError as error:
                raise ValueError(f"{file} cannot be read, unpack it again: {error}") from error
        return values

    paths, size = list(files.values()), 1024
    blocks = [paths[start : start + size] for start in range(0, len(paths), size)]
    with ThreadPoolExecutor(16) as pool:
        return dict(zip(files, chain.from_iterable(pool.map(read, blocks)), strict=True))


def _decode(content: bytes) -> np.ndarray:
    return np.lib.format.read_array(BytesIO(content), allow_pickle=False)


@lru_cache(maxsize=1024)  # With eleven expressions, few files differ.
def _decode_code(content: bytes) -> str:
    return str(_decode(content).item()).strip()


def _list_annotations(root: Path, ending: str) -> dict[str, str]:
    files = {}
    for folder in SET_FOLDERS:
        annotations = root / folder / "annotations"
        names = _names_in(annotations, ending)
        if not names:
            raise FileNotFoundError(f"{annotations} holds no *{ending}: unpack it again; {LAYOUT}")
        files |= {f"{folder}/{n[: -len(ending)].lower()}": f"{annotations}/{n}" for n in names}
    return files


def _list_sets(root: Path) -> pd.DataFrame:
    codes = pd.Series(_read_npy(_list_annotations(root, "_exp.npy"), _decode_code))
    paths = {
        f"{folder}/{name[:-4].lower()}": f"{folder}/images/{name}"
        for folder in SET_FOLDERS
        for name in _names_in(root / folder / "images", ".jpg")
    }
    rows = pd.DataFrame({"path": pd.Series(paths, dtype="str"), "code": _check_codes(codes, root)})
    rows = rows.rename_axis("image_id").reset_index()
    return rows.assign(split=rows["image_id"].str.partition("/")[0].map(SET_FOLDERS))


def _read_set_points(root: Path, wanted: set[str]) -> pd.DataFrame:
    listed = wanted & _list_annotations(root, "_exp.npy").keys()
    files = {i: file for i, file in _list_annotations(root, "_lnd.npy").items() if i in listed}
    points = _read_npy(files, lambda content: _five_points(_check_points(_decode(content)))[0])
    found = pd.DataFrame.from_dict(points, orient="index", columns=POINT_COLUMNS)
    boxes = pd.DataFrame([[0.0, 0.0, 224.0, 224.0]], index=sorted(listed), columns=BOX_COLUMNS)
    return boxes.join(found)
