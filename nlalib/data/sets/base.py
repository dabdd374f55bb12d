"""What a data set is: one declared object, which all that differs from set to set is asked of.

A set's file in this folder holds its object; `nlalib.data.sets.SETS` lists them by name.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nlalib.data.index import SPLITS, VOTE_COLUMNS
from nlalib.data.label_noise import NOISE_KINDS
from nlalib.data.label_sources import RULE, vote_labels
from nlalib.data.labels import class_id

if TYPE_CHECKING:
    from nlalib.data.choice import DataChoice

# So many files or labels without their counterpart are a quirk to count; more is an error.
TOLERATED_SHARE, TOLERATED_IMAGES = 0.01, 5
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Published:
    """What is published of a set, for the audit to compare with."""

    counts: dict[str, dict[str, int]]  # split to expression to images
    source: str  # of the counts
    images: dict[str, int] | None = None  # by split, where not all images have a label
    others: dict[str, dict[str, int]] = field(default_factory=dict)  # as DataSet.other_counts
    size: tuple[int, int] | None = None  # width and height of every image, pixels
    twins_in_train: dict[str, int] = field(default_factory=dict)  # by split, bit-identical
    dropped: dict[str, int] = field(default_factory=dict)  # by reason


class DataSet:
    """A data set; subclasses declare what is special about theirs, and how it is read.

    Attributes
    ----------
    name, title : str
        In parameters, and for people.
    order : tuple of str
        The expressions in the order of the set's own codes.
    published : Published or None
    label_rules : tuple of str
        Rules that make a label of annotators' votes; "argmax" alone where labels are given.
    has_votes : bool
        Whether the index has annotators' votes.
    class_numbers : tuple of int
    noise_kinds : tuple of str
    label_sources : tuple of str
        Of `nlalib.data.label_sources`; those of votes need `has_votes`.
    takes_label_file : bool
        Whether a list of other labels can be read in place of its own.
    is_made : bool
        Whether its images are made by code: as many as asked for, with the noise asked for.
    odd_reasons : tuple of str
        Reasons for which images are dropped that say that files or lines were lost.
    """

    name: str
    title: str
    order: tuple[str, ...]
    published: Published | None = None
    label_rules: tuple[str, ...] = ("argmax",)
    has_votes = False
    class_numbers: tuple[int, ...] = (7, 8)
    noise_kinds: tuple[str, ...] = NOISE_KINDS
    label_sources: tuple[str, ...] = (RULE,)
    takes_label_file = False
    is_made = False
    odd_reasons: tuple[str, ...] = ()

    def read(self, choice: "DataChoice") -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the index, and what was dropped: columns `split`, `reason`, `images`."""
        raise NotImplementedError

    def read_all(self, root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return all images, also those without a label (-1), and what was dropped."""
        raise NotImplementedError

    def given_labels(self, index: pd.DataFrame, choice: "DataChoice") -> np.ndarray:
        """Return the labels of the choice's source for the images of `read`, (N,) int64."""
        votes = index[VOTE_COLUMNS[: choice.num_classes]].to_numpy()
        labels, names = index["label"].to_numpy(), index["image_id"]
        return vote_labels(votes, labels, names, choice.label_source, choice.data_seed)

    def other_counts(self, root: Path) -> dict[str, dict[str, int]]:
        """Return what else the audit counts: by name and split."""
        return {}

    def to_align(self, root: Path) -> pd.DataFrame:
        """Return every image that a run could use, for `nlalib.prepare.aligned_images`.

        Columns `image_id`, `path`, `split`, and what there is of `output` and landmarks.
        """
        raise NotImplementedError

    def with_landmarks(self, root: Path, images: pd.DataFrame) -> pd.DataFrame:
        """Return the images of `to_align` with landmarks that the set keeps in files of their own.

        They are read only where landmarks are to be given.
        """
        return images

    def label_files(self, root: Path) -> list[Path]:
        """Return the files that stand beside the images and say nothing of their pixels."""
        return []

    def write_labels(self, root: Path, output: Path) -> None:
        """Write what else a folder of aligned images needs to be read like the set."""


def encoding_of(path: Path) -> str:
    """Return the encoding of a text file: UTF-8, or UTF-16 as some spreadsheets write it.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it is empty, or the page of a failed download.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with path.open("rb") as file:
        start = file.read(200)
    if not start.strip():
        raise ValueError(f"{path} is empty: download it, or unpack it, again")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise ValueError(f"{path} is a web page, as a failed download leaves it: download it again")
    return "utf-16" if start.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"


def names_in(folder: Path, endings: str | tuple[str, ...] = "") -> list[str]:
    """Return the names in a folder, in one scan; none where there is no folder.

    Tens of thousands of single looks would take far longer. Hidden ones are none of the set's:
    macOS puts `._` files into archives.
    """
    names = os.listdir(folder) if folder.is_dir() else []
    return [name for name in names if name.lower().endswith(endings) and not name.startswith(".")]


def require_columns(table: pd.DataFrame, columns: Iterable[str], path: Path) -> None:
    """Raise ValueError if the table of a file lacks columns."""
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(f"{path} lacks the columns {missing}; it has {list(table.columns)}")


def by_split(rows: pd.DataFrame, then: str) -> pd.DataFrame:
    """Return the rows in the order of their splits, and of the column `then` in each."""
    ranks = {split: rank for rank, split in enumerate(SPLITS)}
    return rows.sort_values(
        ["split", then],
        key=lambda column: column.map(ranks) if column.name == "split" else column,
        ignore_index=True,
    )


def count_dropped(rows: pd.DataFrame) -> pd.DataFrame:
    """Return how many rows of each `split` have each `reason`, as the column `images`."""
    return by_split(rows.value_counts(["split", "reason"]).reset_index(name="images"), "reason")


def tolerated_missing(images: int) -> int:
    """Return how many of `images` may lack their file or label: 1 %, but at least 5."""
    return max(TOLERATED_IMAGES, int(TOLERATED_SHARE * images))


def class_table(index: pd.DataFrame, counts: Mapping[str, Mapping[str, int]]) -> pd.DataFrame:
    """Return how many images of each split and class were expected, and how many there are.

    Parameters
    ----------
    index : pandas.DataFrame
        As `nlalib.data.index` describes.
    counts : mapping
        Split to expression to number of images.

    Returns
    -------
    pandas.DataFrame
        `split`, `expression`, `expected`, `found`, in the order of `counts`.
    """
    found = index.value_counts(["split", "label"]).to_dict()
    rows = [
        (split, name, count, found.get((split, class_id(name)), 0))
        for split in counts
        for name, count in counts[split].items()
    ]
    return pd.DataFrame(rows, columns=["split", "expression", "expected", "found"])


def contents(folder: Path) -> str:
    """Return in words what a folder holds."""
    if not folder.is_dir():
        return "does not exist"
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    more = f" and {len(names) - 8:,} more" * (len(names) > 8)
    return f"holds {', '.join(names[:8]) or 'nothing'}{more}"


def what_is_missing(
    root: Path, title: str, is_root: Callable[[Path], bool], *, of_copy: str, layout: str
) -> str:
    """Say what stands at `root` instead of a set, or where near it the set is; "" for neither.

    Parameters
    ----------
    root : pathlib.Path
    title : str
        Of the set.
    is_root : callable
        Whether the set lies at a folder.
    of_copy : str
        What to say of a copy that was sorted into one folder a class.
    layout : str
        What is expected.
    """
    if not root.is_dir():
        return f"there is no folder {root}; {layout}"
    below = sorted(path for path in root.iterdir() if path.is_dir())
    # Those above are tried too: somebody may have passed a folder of the set's. RAF-DB's is basic/.
    for near in [*root.absolute().parents[:2], *below, *(path / "basic" for path in below)]:
        if is_root(near):
            return f"{root} is not {title}'s root, {near} is: pass root={str(near)!r}"
    copy = class_folders(root)
    return f"{copy}: {of_copy}; {layout}" if copy else ""


def class_folders(root: Path) -> str:
    """Say where, at and around `root`, a copy lies that was sorted into one folder a class.

    Such copies (`train/angry/*.jpg`, `test/3/*.jpg`, ...) circulate of all three sets. They have
    lost the votes, the landmarks or the names, and were often aligned or resized again. "" if
    there is none. A split's folder is one with six or more folders of images.
    """
    below = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    for copy in [root.parent, root, *below]:
        folders = {path.name: _class_images(path) for path in _folders(copy)}
        images = {name: sum(counts) for name, counts in folders.items() if len(counts) >= 6}
        if len(images) >= 2:
            return (
                f"{copy} has class folders under {'/ and '.join(images)}/ with "
                f"{' and '.join(f'{count:,}' for count in images.values())} images"
            )
    return ""


def _folders(folder: Path) -> list[Path]:
    """Return the first folders in a folder: a class copy has few, and others need no long look."""
    if not (folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)):
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir())[:12]


def _class_images(folder: Path) -> list[int]:
    readable = [path for path in _folders(folder) if os.access(path, os.R_OK)]
    counts = [len(names_in(path, IMAGE_ENDINGS)) for path in readable]
    return [count for count in counts if count]
