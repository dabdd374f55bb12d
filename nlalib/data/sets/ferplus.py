"""FERPlus: ten annotators' votes on the images of FER2013, read into an index.

Two layouts are read, and both give the same images and labels:

- the folders that Microsoft's script writes: `FER2013Train/`, `FER2013Valid/`,
  `FER2013Test/`, each with PNGs and a `label.csv`, and `fer2013new.csv` beside them;
- Kaggle's `fer2013.csv` (pixels as numbers) with `fer2013new.csv`, as downloaded.

In the folders images and votes are joined **on the name**: the number in a name is not the
row's position. Kaggle's file has no names, and there the rows correspond by position.

Known of the published files: 173 rows have no image name (all of them "not a face"), and four
names occur twice. Microsoft's script writes the rows in order, so the later row's pixels
overwrote the earlier one's, and the later row's votes belong to the file: **the later row wins**.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from nlalib.data.index import VOTE_COLUMNS, check_index
from nlalib.data.labels import FERPLUS_COLUMNS
from nlalib.data.sets.base import find_class_folders, tolerated_missing
from nlalib.data.votes import label_from_votes

FOLDERS = {"train": "FER2013Train", "validation": "FER2013Valid", "test": "FER2013Test"}
USAGES = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}
VOTES_FILE, LABEL_FILE, KAGGLE_FILE = "fer2013new.csv", "label.csv", "fer2013.csv"
VOTE_SOURCES = (VOTES_FILE.removesuffix(".csv"), LABEL_FILE.removesuffix(".csv"))
IMAGE_SIDE = 48
# Rows of the votes file and images of the folders, as published.
ROWS = {"train": 28709, "validation": 3589, "test": 3589}
IMAGES = {"train": 28558, "validation": 3579, "test": 3573}
# Images whose largest of ten counts is this class's, in the order of FERPlus's files; counted here
# from the published votes, whose paper gives no such table.
_ARGMAX = {
    "train": (10308, 7528, 3562, 3514, 2466, 191, 652, 165),
    "validation": (1335, 899, 456, 412, 319, 34, 74, 24),
    "test": (1261, 928, 444, 444, 325, 23, 93, 27),
}
COUNTS = {
    split: dict(zip(list(FERPLUS_COLUMNS.values())[:8], counts, strict=True))
    for split, counts in _ARGMAX.items()
}

LAYOUT = f"""\
expected either            or
  <root>/                    <root>/
    {VOTES_FILE}             {VOTES_FILE}
    FER2013Train/*.png         {KAGGLE_FILE}
    FER2013Valid/*.png
    FER2013Test/*.png"""

_RENAMED = {column: f"votes_{name}" for column, name in FERPLUS_COLUMNS.items()}


def read_ferplus(
    root: str | os.PathLike,
    *,
    rule: str = "majority",
    num_classes: int = 7,
    votes: str = "fer2013new",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read FERPlus into an index.

    Parameters
    ----------
    root : path
        The folder with one of the two layouts above; the folders are used where both are.
    rule : str
        One of `nlalib.data.votes.LABEL_RULES`.
    num_classes : int
        7, or 8 with contempt.
    votes : str
        "fer2013new" (the published votes) or "label" (the `label.csv` of each folder, which
        differ for about 1,600 images).

    Returns
    -------
    index : pandas.DataFrame
        The images that the rule labels, as `nlalib.data.index` describes, with votes; sorted by
        split and name.
    dropped : pandas.DataFrame
        What is not in the index: columns `split`, `reason`, `images`. The reasons are those of
        `nlalib.data.votes.DROP_REASONS`, and "row without an image name", "earlier row of a
        repeated name", "votes without an image", "image without votes".

    Raises
    ------
    FileNotFoundError
        If neither layout is there; the message says what was looked for and found.
    ValueError
        If a file cannot be what it should be, or names and votes do not fit together.
    """
    joined, dropped = read_ferplus_votes(root, votes=votes)
    labelled = label_from_votes(joined, rule, num_classes)
    is_kept = labelled["reason"] == ""
    by_rule = pd.DataFrame({"split": joined["split"], "reason": labelled["reason"]})[~is_kept]
    index = joined.assign(label=labelled["label"])[is_kept].reset_index(drop=True)
    index = index[["image_id", "path", "split", "label", *VOTE_COLUMNS]]
    rows = dropped.loc[dropped.index.repeat(dropped["images"]), ["split", "reason"]]
    return check_index(index, num_classes), _count([rows, by_rule])


def read_ferplus_votes(
    root: str | os.PathLike, *, votes: str = "fer2013new"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read all images that have votes, before any rule makes a label of the votes.

    Parameters and errors are those of `read_ferplus`.

    Returns
    -------
    images : pandas.DataFrame
        `image_id`, `path`, `split` and the votes, sorted by split and name.
    dropped : pandas.DataFrame
        As that of `read_ferplus`, without the reasons of a rule.
    """
    root = Path(root)
    if votes not in VOTE_SOURCES:
        raise ValueError(f"unknown votes {votes!r}; choose one of {', '.join(VOTE_SOURCES)}")
    if _has_folders(root):
        images = _list_images(root)
        rows = _read_votes_file(root) if votes == VOTE_SOURCES[0] else _read_label_files(root)
        joined, dropped = _join_on_name(images, rows)
    elif _has_kaggle_files(root):
        if votes != VOTE_SOURCES[0]:
            raise ValueError(
                f"votes={votes!r} needs the folders {', '.join(FOLDERS.values())}; {root} holds "
                f"{KAGGLE_FILE}, which goes with votes={VOTE_SOURCES[0]!r}"
            )
        joined, dropped = _join_on_position(root)
    else:
        raise FileNotFoundError(_what_is_missing(root))
    split_rank = joined["split"].map({split: rank for rank, split in enumerate(FOLDERS)})
    joined = joined.assign(rank=split_rank).sort_values(["rank", "image_id"], ignore_index=True)
    return joined[["image_id", "path", "split", *VOTE_COLUMNS]], _count(dropped)


def count_votes_rows(root: str | os.PathLike) -> dict[str, int]:
    """Return how many rows `fer2013new.csv` has for each split, with or without an image."""
    return _read_votes_file(Path(root))["split"].value_counts().to_dict()


def load_kaggle_images(
    csv_path: str | os.PathLike, rows: Sequence[int] | np.ndarray | None = None
) -> np.ndarray:
    """Read the pixels of Kaggle's `fer2013.csv`.

    Parameters
    ----------
    csv_path : path
    rows : sequence of int, optional
        (M,), positions of the wanted rows, counted from 0, in any order; all without it. The
        whole file is read in any case: ask for many rows at once.

    Returns
    -------
    numpy.ndarray
        (N or M, 48, 48), uint8.

    Raises
    ------
    ValueError
        If a row has not 2,304 numbers in 0..255, or a wanted row does not exist.
    """
    wanted = None if rows is None else {int(row) for row in rows}
    images, start = {}, 0
    # In chunks: the numbers as text take several times the room of the images.
    for chunk in _read_kaggle_column(csv_path, "pixels", chunksize=4096):
        for row, text in enumerate(chunk["pixels"].fillna(""), start):
            if wanted is None or row in wanted:
                images[row] = _parse_pixels(text, row, csv_path)
        start += len(chunk)
    rows = range(start) if rows is None else rows
    missing = sorted(set(map(int, rows)) - set(images))
    if missing:
        raise ValueError(f"{csv_path} has {start} rows, counted from 0; there is no {missing[:5]}")
    flat = np.array([images[int(row)] for row in rows], dtype=np.uint8)
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


def _has_folders(root: Path) -> bool:
    return all((root / folder).is_dir() for folder in FOLDERS.values())


def _has_kaggle_files(root: Path) -> bool:
    return (root / KAGGLE_FILE).is_file() and (root / VOTES_FILE).is_file()


def _what_is_missing(root: Path) -> str:
    """Say what stands at `root` instead of FERPlus, and where FERPlus is if it lies nearby."""
    if not root.is_dir():
        return f"there is no folder {root}; {LAYOUT}"
    # The folder's own parent is tried too: somebody may have passed .../FER2013Train.
    nearby = [root.parent, *sorted(path for path in root.iterdir() if path.is_dir())]
    for candidate in nearby:
        if _has_folders(candidate) or _has_kaggle_files(candidate):
            return f"{root} is not FERPlus's root, {candidate} is: pass root={str(candidate)!r}"
    if copy := find_class_folders(root):
        return (
            f"{copy[0]} has class folders under {'/ and '.join(copy[1])}/ with "
            f"{' and '.join(f'{count:,}' for count in copy[1].values())} images: a copy of FER2013 "
            "whose names do not say which row of FERPlus's votes is whose; take Kaggle's "
            f"{KAGGLE_FILE} instead; {LAYOUT}"
        )
    found = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
    shown = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
    return f"{root} holds {shown or 'nothing'}; {LAYOUT}"


def _list_images(root: Path) -> pd.DataFrame:
    """List the PNGs: one scan a folder, as 36 thousand single looks take far longer."""
    rows = []
    for split, folder in FOLDERS.items():
        with os.scandir(root / folder) as entries:
            names = [entry.name for entry in entries if entry.name.lower().endswith(".png")]
        if not names:
            raise FileNotFoundError(f"{root / folder} holds no PNG; {LAYOUT}")
        rows += [(name[:-4].lower(), f"{folder}/{name}", split) for name in names]
    images = pd.DataFrame(rows, columns=["image_id", "path", "split"])
    repeated = images[images["image_id"].duplicated(keep=False)].sort_values("image_id")
    if len(repeated):
        raise ValueError(
            f"{repeated['image_id'].nunique()} image names occur in more than one place, first "
            f"{' and '.join(repeated['path'].iloc[:2])}: unpack the set again into an empty folder"
        )
    return images


def _read_votes_file(root: Path) -> pd.DataFrame:
    """Read `fer2013new.csv`: `image_id` (empty where the row has no name), `split`, votes."""
    path = root / VOTES_FILE
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}, which holds the votes; {LAYOUT}")
    table = pd.read_csv(path, skipinitialspace=True)
    table.columns = table.columns.str.strip()
    _check_columns(table, ["Usage", "Image name", *FERPLUS_COLUMNS], path)
    table["image_id"] = _to_image_id(table["Image name"])
    table["split"] = _to_split(table["Usage"], path)
    return _with_votes(table, path)


def _read_label_files(root: Path) -> pd.DataFrame:
    """Read the `label.csv` of the three folders into the form of `_read_votes_file`."""
    columns = ["Image name", "box", *FERPLUS_COLUMNS]
    tables = []
    for split, folder in FOLDERS.items():
        path = root / folder / LABEL_FILE
        if not path.is_file():
            raise FileNotFoundError(f"there is no {path}, which votes='label' reads")
        table = pd.read_csv(path, header=None, skipinitialspace=True)
        if table.shape[1] != len(columns):
            raise ValueError(
                f"{path} has {table.shape[1]} columns; expected {len(columns)}: name, box and "
                f"ten counts, without a header"
            )
        table.columns = columns
        table["image_id"] = _to_image_id(table["Image name"])
        tables.append(_with_votes(table.assign(split=split), path))
    return pd.concat(tables, ignore_index=True)


def _check_columns(table: pd.DataFrame, columns: list[str], path: Path) -> None:
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(f"{path} lacks the columns {missing}; it has {list(table.columns)}")


def _to_image_id(names: pd.Series) -> pd.Series:
    names = names.fillna("").astype("str").str.strip().str.lower()
    return names.str.removesuffix(".png")


def _to_split(usage: pd.Series, path: Path) -> pd.Series:
    usage = usage.astype("str").str.strip()
    unknown = sorted(set(usage) - set(USAGES))
    if unknown:
        raise ValueError(f"{path} has the Usage {unknown}; expected one of {list(USAGES)}")
    return usage.map(USAGES)


def _with_votes(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Give the vote columns the index's names and check that they are counts."""
    table = table.rename(columns=_RENAMED)
    is_count = table[VOTE_COLUMNS].apply(pd.to_numeric, errors="coerce").ge(0).all(axis=1)
    if not is_count.all():
        row = int(np.flatnonzero(~is_count)[0])
        raise ValueError(f"row {row} of {path} has votes that are no counts of annotators")
    return table[["image_id", "split", *VOTE_COLUMNS]].astype(dict.fromkeys(VOTE_COLUMNS, "int64"))


def _reasons(rows: pd.DataFrame, reason: str) -> pd.DataFrame:
    return rows[["split"]].assign(reason=reason)


def _count(dropped: list[pd.DataFrame]) -> pd.DataFrame:
    counts = pd.concat(dropped).value_counts(["split", "reason"]).reset_index(name="images")
    counts["rank"] = counts["split"].map({split: rank for rank, split in enumerate(FOLDERS)})
    return counts.sort_values(["rank", "reason"]).drop(columns="rank").reset_index(drop=True)


def _join_on_name(
    images: pd.DataFrame, rows: pd.DataFrame
) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    is_named = rows["image_id"] != ""
    is_earlier = is_named & rows["image_id"].duplicated(keep="last")
    usable = rows[is_named & ~is_earlier]
    joined = images.merge(
        usable, on="image_id", how="outer", suffixes=("", "_of_row"), indicator=True
    )
    no_votes = joined[joined["_merge"] == "left_only"]
    no_image = joined[joined["_merge"] == "right_only"]
    no_image = no_image.assign(split=no_image["split_of_row"])
    for kind, found in (("images have no votes", no_votes), ("votes have no image", no_image)):
        if len(found) > tolerated_missing(len(images)):
            raise ValueError(
                f"{len(found)} {kind}, first {found['image_id'].iloc[0]!r} ({len(images)} images, "
                f"{len(usable)} named rows of votes): names must look like 'fer0000000.png' in "
                f"both; is the copy complete, and are images and votes of the same release?"
            )
    joined = joined[joined["_merge"] == "both"].reset_index(drop=True)
    elsewhere = joined[joined["split"] != joined["split_of_row"]]
    if len(elsewhere):
        first = elsewhere.iloc[0]
        raise ValueError(
            f"{len(elsewhere)} images lie in another split than their votes say, first "
            f"{first['path']}, which the votes put into {first['split_of_row']!r}: training and "
            f"test would mix; unpack the set again"
        )
    dropped = [
        _reasons(rows[~is_named], "row without an image name"),
        _reasons(rows[is_earlier], "earlier row of a repeated name"),
        _reasons(no_votes, "image without votes"),
        _reasons(no_image, "votes without an image"),
    ]
    return joined.astype(dict.fromkeys(VOTE_COLUMNS, "int64")), dropped


def _read_kaggle_column(csv_path: str | os.PathLike, column: str, **options):
    # The challenge's own release has a blank before the names in the header.
    header = pd.read_csv(csv_path, nrows=0).columns
    matching = [name for name in header if name.strip() == column]
    if not matching:
        raise ValueError(f"{csv_path} lacks the column {column!r}; it has {list(header)}")
    table = pd.read_csv(csv_path, usecols=matching, **options)
    if isinstance(table, pd.DataFrame):
        return table.rename(columns=str.strip)
    return (chunk.rename(columns=str.strip) for chunk in table)


def _join_on_position(root: Path) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    rows = _read_votes_file(root)
    path = root / KAGGLE_FILE
    usage = _to_split(_read_kaggle_column(path, "Usage")["Usage"], path)
    if len(usage) != len(rows):
        raise ValueError(
            f"{path} has {len(usage)} rows and {VOTES_FILE} {len(rows)}: they correspond by "
            f"position, so both must be complete (35,887 rows as published)"
        )
    differing = np.flatnonzero(usage.to_numpy() != rows["split"].to_numpy())
    if len(differing):
        raise ValueError(
            f"the Usage of {path} and {VOTES_FILE} differs in {len(differing)} rows, first row "
            f"{differing[0]}: one of them is sorted or shuffled; take both as published"
        )
    numbers = np.arange(len(rows))
    is_named = rows["image_id"] != ""
    is_earlier = is_named & rows["image_id"].duplicated(keep="last")
    names = [f"row{number:05d}" for number in numbers]
    rows["image_id"] = rows["image_id"].where(is_named, pd.Series(names))
    rows["path"] = [f"{KAGGLE_FILE}#{number}" for number in numbers]
    # Dropped here too, so that both layouts give the same images under the same names.
    dropped = [_reasons(rows[is_earlier], "earlier row of a repeated name")]
    return rows[~is_earlier].reset_index(drop=True), dropped
