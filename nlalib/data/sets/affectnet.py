"""AffectNet: faces from the web, each labelled by one person, read into an index.

Two releases are read: that of 2017 has photographs, with face boxes and landmarks in two csv
files; the later one has crops of 224 x 224 pixels, each with its own small `.npy` files.

**The split "test" is AffectNet's validation set**, on which papers test: 500 images a class, so
3,500 with seven classes. There is no other validation split.

`automatically_annotated.csv` is never read: its labels are a machine's.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nlalib.data.index import POINT_COLUMNS, check_index
from nlalib.data.labels import AFFECTNET_CODES, BASIC_EXPRESSIONS, class_id, expressions
from nlalib.data.sets.affectnet_files import (
    CODE,
    CSV_FILES,
    IMAGE_FOLDERS,
    LAYOUT,
    NAME,
    POINTS,
    SET_FOLDERS,
    decode,
    decode_code,
    is_csv_release,
    list_annotations,
    list_folder,
    other_endings,
    read_csv,
    read_npy,
)
from nlalib.data.sets.base import (
    IMAGE_ENDINGS,
    TOLERATED_SHARE,
    DataSet,
    Published,
    by_split,
    count_dropped,
    names_in,
    tolerated_missing,
)
from nlalib.files import write_csv

if TYPE_CHECKING:
    from nlalib.data.choice import DataChoice

MEANINGS = AFFECTNET_CODES | {8: "none", 9: "uncertain", 10: "no face"}
# Images by class in the order of the codes, as users of the set count its csv files; the seven of
# the training set sum to the NLA paper's 283,901. We do not hold the set.
_TRAIN_COUNTS = (74874, 134415, 25459, 14090, 6378, 3803, 24882, 3750)
COUNTS = {
    "train": dict(zip(AFFECTNET_CODES.values(), _TRAIN_COUNTS, strict=True)),
    "test": dict.fromkeys(AFFECTNET_CODES.values(), 500),
}
REPEATED, NO_FILE, NO_LABEL = "listed before", "listed without a file", "image without a label"


class AffectNet(DataSet):
    """AffectNet's manually annotated images."""

    name, title = "affectnet", "AffectNet"
    order = tuple(AFFECTNET_CODES.values())[:7]
    published = Published(
        {split: {name: of[name] for name in BASIC_EXPRESSIONS} for split, of in COUNTS.items()},
        "users' counts of the csv files, seven classes",
    )
    odd_reasons = (NO_LABEL, REPEATED)

    def read(self, choice: "DataChoice") -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the index of seven or eight classes."""
        return read_affectnet(choice.root, num_classes=choice.num_classes)

    def read_all(self, root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the images of seven classes."""
        return read_affectnet(root)

    def to_align(self, root: Path) -> pd.DataFrame:
        """Return the images of eight classes."""
        return read_affectnet(root, num_classes=8)[0]

    def with_landmarks(self, root: Path, images: pd.DataFrame) -> pd.DataFrame:
        """Return the images with the points of the csv files, or of `*_lnd.npy`."""
        return images.merge(affectnet_points(root, images), on="image_id")

    def label_files(self, root: Path) -> list[Path]:
        """Return the expressions of the later release."""
        return sorted(root.glob("*_set/annotations/*_exp.npy"))

    def write_labels(self, root: Path, output: Path) -> None:
        """Copy the csv files' names and expressions; their points are of the photographs."""
        folder = list_folder(root)
        for path in [] if folder is None else [root / folder / name for name in CSV_FILES]:
            codes = pd.concat(read_csv(path, [CODE]))
            codes = codes.rename_axis(NAME).reset_index()
            write_csv(output / path.relative_to(root), codes)


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
        files give them in pixels of photographs of unknown size. See `affectnet_points`.
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
    rows = _list_csv_rows(root) if is_csv_release(root) else _list_sets(root)
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
                f"not wholly unpacked, unpack it again{other_endings(root)}"
            )
    dropped = count_dropped(rows[rows["reason"] != ""])
    index = rows.loc[rows["reason"] == "", ["image_id", "path", "split", "label"]]
    index = by_split(index, "image_id").astype({"label": "int64"})
    return check_index(index, num_classes), dropped


def affectnet_points(root: str | os.PathLike, index: pd.DataFrame) -> pd.DataFrame:
    """Return five landmarks of each image of `read_affectnet`'s index.

    Of the set's 68 points, counted from 0: the means of 36-41 and 42-47 (eyes), 30 (nose), 48 and
    54 (mouth). Whether their pixels count from a corner or a centre is not documented.

    Returns
    -------
    pandas.DataFrame
        In the index's order: `image_id`, then `POINT_COLUMNS`, float64, pixels of the image file,
        left and right as the viewer sees them; NaN where the set gives none.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_affectnet`, or if landmarks are not 68 points.
    """
    root = Path(root)
    read = _read_csv_points if is_csv_release(root) else _read_set_points
    found = read(root, set(index["image_id"]))
    return found.reindex(index["image_id"]).rename_axis("image_id").reset_index()


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


def _list_csv_rows(root: Path) -> pd.DataFrame:
    folder = next((name for name in IMAGE_FOLDERS if (root / name).is_dir()), None)
    if folder is None:
        above = [path for path in root.parents[:2] if (path / IMAGE_FOLDERS[0]).is_dir()]
        remedy = f"pass root={str(above[0])!r}" if above else "unpack them"
        raise FileNotFoundError(
            f"{root} has csv files but no images in {' or '.join(IMAGE_FOLDERS)}: {remedy}; "
            f"{LAYOUT}"
        )
    tables = []
    for file, split in CSV_FILES.items():
        path = root / list_folder(root) / file
        codes = _check_codes(pd.concat(read_csv(path, [CODE]))[CODE], path)
        tables.append(pd.DataFrame({"image_id": codes.index, "code": codes.array, "split": split}))
    rows = pd.concat(tables, ignore_index=True)
    # One scan a folder, as 420 thousand single looks take far longer.
    paths = {
        f"{number}/{os.path.splitext(name)[0]}".lower(): f"{folder}/{number}/{name}"
        for number in rows["image_id"].str.partition("/")[0].unique()
        for name in names_in(root / folder / number)
    }
    return rows.assign(path=rows["image_id"].map(paths))


def _read_csv_points(root: Path, wanted: set[str]) -> pd.DataFrame:
    tables, none = [], np.full(136, np.nan)
    for file in CSV_FILES:
        for chunk in read_csv(root / list_folder(root) / file, [POINTS]):
            # Not `isin`, which hashes all of `wanted` anew for each chunk.
            chunk = chunk[[image_id in wanted for image_id in chunk.index]]
            points = [
                _parse_points(text, image_id) if isinstance(text, str) else none
                for image_id, text in chunk[POINTS].items()
            ]
            tables.append(pd.DataFrame(_five_points(points), chunk.index, POINT_COLUMNS))
    found = pd.concat(tables)
    return found[~found.index.duplicated()]


def _list_sets(root: Path) -> pd.DataFrame:
    codes = pd.Series(read_npy(list_annotations(root, "_exp.npy"), decode_code))
    paths = {
        f"{folder}/{os.path.splitext(name)[0]}".lower(): f"{folder}/images/{name}"
        for folder in SET_FOLDERS
        for name in names_in(root / folder / "images", IMAGE_ENDINGS)
    }
    rows = pd.DataFrame({"path": pd.Series(paths, dtype="str"), "code": _check_codes(codes, root)})
    rows = rows.rename_axis("image_id").reset_index()
    return rows.assign(split=rows["image_id"].str.partition("/")[0].map(SET_FOLDERS))


def _read_set_points(root: Path, wanted: set[str]) -> pd.DataFrame:
    files = {i: file for i, file in list_annotations(root, "_lnd.npy").items() if i in wanted}
    points = read_npy(files, lambda content: _five_points(_check_points(decode(content)))[0])
    return pd.DataFrame.from_dict(points, orient="index", columns=POINT_COLUMNS, dtype="float64")
