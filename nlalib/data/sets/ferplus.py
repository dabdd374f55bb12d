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
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nlalib.data.index import VOTE_COLUMNS, check_index
from nlalib.data.label_sources import FER2013, LABEL_SOURCES
from nlalib.data.labels import FERPLUS_COLUMNS
from nlalib.data.sets.base import (
    DataSet,
    Published,
    by_split,
    count_dropped,
    tolerated_missing,
)
from nlalib.data.sets.fer2013_labels import (
    FER2013_LABELS_FILE,
    labels_of_table,
    read_fer2013_labels,
)
from nlalib.data.sets.fer2013_table import IMAGE_SIDE, find_table
from nlalib.data.sets.ferplus_files import has_folders, has_table, list_images, why_not
from nlalib.data.sets.ferplus_votes import (
    FOLDERS,
    LABEL_FILE,
    VOTES_FILE,
    read_label_files,
    read_table_rows,
    read_votes_file,
)
from nlalib.data.votes import LABEL_RULES, label_from_votes
from nlalib.files import write_csv
from nlalib.names import named

if TYPE_CHECKING:
    from nlalib.data.choice import DataChoice

# By the name of the file.
_READERS_OF_VOTES = {"fer2013new": read_votes_file, "label": read_label_files}
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
NAMELESS = "row without an image name"
EARLIER = "earlier row of a repeated name"
NO_VOTES, NO_IMAGE = "image without votes", "votes without an image"


class FERPlus(DataSet):
    """FERPlus."""

    name, title = "ferplus", "FERPlus"
    order = tuple(COUNTS["train"])
    published = Published(
        COUNTS,
        "votes of microsoft/FERPlus, largest count",
        images=IMAGES,
        others={"rows of votes": ROWS},
        size=(IMAGE_SIDE, IMAGE_SIDE),
        twins_in_train={"validation": 279, "test": 288},
        dropped={NAMELESS: 173, EARLIER: 4},
    )
    has_votes = True
    label_rules = tuple(LABEL_RULES)
    label_sources = LABEL_SOURCES
    odd_reasons = (NO_VOTES, NO_IMAGE)

    def read(self, choice: "DataChoice") -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the images that the label rule labels."""
        return read_ferplus(choice.root, rule=choice.label_rule, num_classes=choice.num_classes)

    def given_labels(self, index: pd.DataFrame, choice: "DataChoice") -> np.ndarray:
        """Return the labels of the choice's source, those of FER2013 read from its file."""
        if choice.label_source == FER2013:
            return read_fer2013_labels(choice.root, index)
        return super().given_labels(index, choice)

    def read_all(self, root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return all images that have votes, labelled by the largest count of eight classes."""
        images, dropped = read_ferplus_votes(root)
        # Kaggle's table has pixels for rows without a name too; as published they are no images.
        is_nameless = images["image_id"].str.fullmatch(r"row\d+")
        nameless = images.loc[is_nameless, "split"].value_counts().rename("images").reset_index()
        dropped = pd.concat([dropped, nameless.assign(reason=NAMELESS)])
        images = images[~is_nameless].reset_index(drop=True)
        return images.assign(label=label_from_votes(images, "argmax", 8)["label"]), dropped

    def other_counts(self, root: Path) -> dict[str, dict[str, int]]:
        """Return how many rows `fer2013new.csv` has, with or without an image."""
        return {"rows of votes": read_votes_file(root)["split"].value_counts().to_dict()}

    def to_align(self, root: Path) -> pd.DataFrame:
        """Return the images whatever their votes."""
        # The rule that keeps most; with files, those that it drops are listed all the same.
        index, _ = read_ferplus(root, rule="argmax", num_classes=8)
        if has_folders(root):
            return list_images(root)
        return index.assign(output=index["split"].map(FOLDERS) + "/" + index["image_id"] + ".png")

    def label_files(self, root: Path) -> list[Path]:
        """Return the files of votes, and of FER2013's labels where there is one."""
        others = [*sorted(root.glob(f"FER2013*/{LABEL_FILE}")), *root.glob(FER2013_LABELS_FILE)]
        return [root / VOTES_FILE, *others]

    def write_labels(self, root: Path, output: Path) -> None:
        """Write FER2013's labels of Kaggle's table, which the aligned images are no rows of."""
        if find_table(root) and not (root / FER2013_LABELS_FILE).is_file():
            write_csv(output / FER2013_LABELS_FILE, labels_of_table(root))


def read_ferplus(
    root: str | os.PathLike,
    *,
    rule: str = "majority",
    num_classes: int = 7,
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
    joined, dropped = read_ferplus_votes(root)
    labelled = label_from_votes(joined, rule, num_classes)
    is_kept = labelled["reason"] == ""
    by_rule = pd.DataFrame({"split": joined["split"], "reason": labelled["reason"]})[~is_kept]
    if not is_kept.any():
        raise ValueError(
            f"no image in {root} has a label under the rule {rule!r}: "
            f"{labelled['reason'].value_counts().to_dict()}; are the votes FERPlus's own?"
        )
    index = joined.assign(label=labelled["label"])[is_kept].reset_index(drop=True)
    index = index[["image_id", "path", "split", "label", *VOTE_COLUMNS]]
    dropped = by_split(pd.concat([dropped, count_dropped(by_rule)]), "reason")
    return check_index(index, num_classes), dropped


def read_ferplus_votes(
    root: str | os.PathLike, *, votes: str = "fer2013new"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read all images that have votes, before any rule makes a label of the votes.

    Parameters
    ----------
    root : path
    votes : str
        "fer2013new" (the published votes) or "label" (the `label.csv` of each folder, which
        differ for about 1,600 images).

    Returns
    -------
    images : pandas.DataFrame
        `image_id`, `path`, `split` and the votes, sorted by split and name.
    dropped : pandas.DataFrame
        As that of `read_ferplus`, without the reasons of a rule.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_ferplus`; and for votes that the layout has not.
    """
    root, read = Path(root), named(_READERS_OF_VOTES, votes, "votes")
    if has_folders(root):
        joined, dropped = _join_on_name(list_images(root), read(root))
    elif has_table(root):
        if read is not read_votes_file:
            raise ValueError(
                f"votes={votes!r} needs the folders {', '.join(FOLDERS.values())}; {root} holds "
                f"{find_table(root)}, which goes with votes='fer2013new'"
            )
        joined, dropped = _join_on_position(root)
    else:
        raise FileNotFoundError(why_not(root))
    joined = by_split(joined, "image_id")
    return joined[["image_id", "path", "split", *VOTE_COLUMNS]], count_dropped(dropped)


def _join_on_name(images: pd.DataFrame, rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
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
    joined = joined[joined["_merge"] == "both"]
    elsewhere = joined[joined["split"] != joined["split_of_row"]]
    if len(elsewhere):
        first = elsewhere.iloc[0]
        raise ValueError(
            f"{len(elsewhere)} images lie in another split than their votes say, first "
            f"{first['path']}, which the votes put into {first['split_of_row']!r}: training and "
            f"test would mix; unpack the set again"
        )
    dropped = {
        NAMELESS: rows[~is_named],
        EARLIER: rows[is_earlier],
        NO_VOTES: no_votes,
        NO_IMAGE: no_image,
    }
    reasons = [of_reason.assign(reason=reason) for reason, of_reason in dropped.items()]
    return joined.astype(dict.fromkeys(VOTE_COLUMNS, "int64")), pd.concat(reasons)


def _join_on_position(root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = read_table_rows(root)
    is_earlier = rows["image_id"].duplicated(keep="last")
    # Dropped here too, so that both layouts give the same images under the same names.
    return rows[~is_earlier], rows[is_earlier].assign(reason=EARLIER)
