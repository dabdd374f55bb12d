"""RAF-DB's basic set (one of seven expressions an image), read into an index.

The set itself is read (Li, Deng, Du 2017), not its copies. One file holds the labels (the set
spells it "patition"), the names say the split. The set's landmarks are pixels of the original
images, so aligned ones have none; left and right are taken as the viewer sees them, as published
code that aligns by them does.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nlalib.data.image_files import image_size
from nlalib.data.index import LANDMARK_COLUMNS, check_index
from nlalib.data.labels import RAFDB_CODES, RAFDB_TEST_COUNTS, RAFDB_TRAIN_COUNTS, class_id
from nlalib.data.sets.base import (
    IMAGE_ENDINGS,
    DataSet,
    Published,
    by_split,
    contents,
    count_dropped,
    encoding_of,
    names_in,
    tolerated_missing,
    what_is_missing,
)
from nlalib.paths import resolve

if TYPE_CHECKING:
    from nlalib.data.choice import DataChoice

LABEL_FILE = "EmoLabel/list_patition_label.txt"
ANNOTATIONS, ANNOTATION_END = "Annotation/manual", "_manu_attri.txt"
COUNTS = {"train": RAFDB_TRAIN_COUNTS, "test": RAFDB_TEST_COUNTS}
_LINE = re.compile(
    r"(?:.*[/\\])?((?:train|test)_\d+)(?:_aligned)?\.(?:jpe?g|png)\s+(\d+)", re.IGNORECASE
)
NO_FILE, NO_LABEL = "listed without a file", "file without a label"
NO_LANDMARKS = "kept, but without an annotation file: no image gets landmarks"
LAYOUT = f"""\
expected, as the set's folder basic/ has it,
  <root>/
    {LABEL_FILE}
    Image/aligned/train_00001_aligned.jpg ...
    Image/original/train_00001.jpg ...                   (read with aligned=False)
    {ANNOTATIONS}/train_00001{ANNOTATION_END} ...  (optional)"""

_OF_COPY = (
    "another set than RAF-DB's 12,271 and 3,068 (such copies are re-aligned, some with 12,175); "
    "ask the owners for the set itself"
)


class RAFDB(DataSet):
    """RAF-DB's basic set."""

    name, title = "rafdb", "RAF-DB"
    order = tuple(RAFDB_CODES.values())
    published = Published(COUNTS, "Li, Deng and Du 2017", size=(100, 100))
    class_numbers = (7,)
    takes_label_file = True
    odd_reasons = (NO_FILE, NO_LABEL)

    def read(self, choice: "DataChoice") -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the index; with a list of other labels, also what they were."""
        if not choice.label_file:
            return read_rafdb(choice.root)
        index, dropped = read_rafdb(choice.root, label_list=resolve(choice.label_file))
        true_label = index["image_id"].map(_official_labels(choice.root)).to_numpy(np.int64)
        flipped = index["label"].to_numpy() != true_label
        return index.assign(true_label=true_label, is_flipped=flipped), dropped

    def read_all(self, root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the aligned images."""
        return read_rafdb(root)

    def to_align(self, root: Path) -> pd.DataFrame:
        """Return the original photographs where they are there, else the aligned faces."""
        index, _ = read_rafdb(root, aligned=not (root / "Image" / "original").is_dir())
        return index.assign(output="Image/aligned/" + index["image_id"] + "_aligned.jpg")

    def label_files(self, root: Path) -> list[Path]:
        """Return the lists of labels."""
        return sorted(root.glob("EmoLabel/*.txt"))


def read_rafdb(
    root: str | os.PathLike, *, aligned: bool = True, label_list: str | os.PathLike | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read RAF-DB's basic set into an index.

    Parameters
    ----------
    root : path
        The folder `basic/`, laid out as `LAYOUT` says.
    aligned : bool
        Whether to read the set's own aligned faces or the original photographs.
    label_list : path, optional
        A list of noisy or fewer training labels, see `read_label_list`.

    Returns
    -------
    index : pandas.DataFrame
        As `nlalib.data.index` describes, sorted by split and name; original images with landmarks,
        unless one of their annotation files is missing.
    dropped : pandas.DataFrame
        Columns `split`, `reason`, `images`. With the reason `NO_LANDMARKS`, they are in the index.

    Raises
    ------
    FileNotFoundError, ValueError
        If a part is missing, or is not of the set's form.
    """
    root, kind = Path(root), "aligned" if aligned else "original"
    _check_root(root)
    official = labels = _official_labels(root)
    if label_list is not None:
        labels = read_label_list(label_list, official)
        differing = {name for name, _ in official.items() ^ labels.items() if name[:4] == "test"}
        if differing:
            raise ValueError(
                f"{len(differing):,} test labels of {label_list} are not those of {LABEL_FILE}, "
                f"first {min(differing)}.jpg: no result on noisy test labels is comparable; take "
                "the test lines from the set's own file"
            )
    files = _list_images(root, kind)
    listed = pd.DataFrame(labels.items(), columns=["image_id", "label"])
    joined = listed.merge(files, on="image_id", how="outer", indicator=True)
    joined["split"] = joined["image_id"].str.extract("^(train|test)_")[0].fillna("unknown")
    no_file, no_label = (joined[joined["_merge"] == f"{side}_only"] for side in ("left", "right"))
    if len(no_file) > tolerated_missing(len(labels)):
        raise FileNotFoundError(
            f"{len(no_file):,} of {len(labels):,} listed images are not in {root / 'Image' / kind},"
            f" first {no_file['image_id'].iloc[0]}.jpg: unpack the whole of {kind}.zip again"
        )
    unlisted = files.loc[~files["image_id"].isin(official.keys()), "path"]
    if len(unlisted) > tolerated_missing(len(files)):
        raise ValueError(
            f"{len(unlisted):,} of {len(files):,} images are not in {root / LABEL_FILE}, first "
            f"{unlisted.iloc[0]}: the list is cut short; expected 12,271 + 3,068 lines"
        )
    index = joined.loc[joined["_merge"] == "both", ["image_id", "path", "split", "label"]]
    index = by_split(index.astype({"label": "int64"}), "image_id")
    reasons = [no_file.assign(reason=NO_FILE), no_label.assign(reason=NO_LABEL)]
    if not aligned:
        annotated = names_in(root / ANNOTATIONS, ANNOTATION_END)
        is_annotated = (index["image_id"] + ANNOTATION_END).isin(annotated)
        reasons.append(index[~is_annotated].assign(reason=NO_LANDMARKS))
        if is_annotated.all():
            names = zip(index["image_id"], index["path"], strict=True)
            index[LANDMARK_COLUMNS] = [_read_landmarks(root, *name) for name in names]
    return check_index(index, 7), count_dropped(pd.concat(reasons))


def _check_root(root: Path) -> None:
    if _is_root(root):
        return
    missing = what_is_missing(root, "RAF-DB", _is_root, of_copy=_OF_COPY, layout=LAYOUT)
    holds = f"{root} {contents(root)}; EmoLabel/ {contents(root / 'EmoLabel')}"
    raise FileNotFoundError(
        missing or f"there is no label file {root / LABEL_FILE}; {holds}; {LAYOUT}"
    )


def _is_root(folder: Path) -> bool:
    return (folder / LABEL_FILE).is_file()


def _list_images(root: Path, kind: str) -> pd.DataFrame:
    folder = root / "Image" / kind
    names = names_in(folder, IMAGE_ENDINGS)
    if not names:
        holds = f"it {contents(folder)}, Image/ {contents(folder.parent)}"
        raise FileNotFoundError(
            f"no JPEG or PNG in {folder}: {holds}; unpack {kind}.zip to Image/{kind}/ itself; "
            f"{LAYOUT}"
        )
    ids = [name.rpartition(".")[0].lower().removesuffix("_aligned") for name in names]
    return pd.DataFrame({"image_id": ids, "path": [f"Image/{kind}/{name}" for name in names]})


def read_label_list(path: str | os.PathLike, official: dict[str, int]) -> dict[str, int]:
    """Return the class ids of a list of noisy labels, by image id.

    A line an image, in any of the forms that are passed around: the set's own, with or without test
    lines (EAC's lists have none; then the test labels are the official ones), with a directory
    before the name or "_aligned" at its end, and with the codes 0..6 in place of 1..7 (SCN's).

    Parameters
    ----------
    path : path
    official : dict of str to int
        The set's own class ids. They tell whether codes from 0 are RAF-DB's less one, or another
        set's order: shifted, most training labels must be the official ones.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it is of another form.
    """
    path = Path(path)
    codes = _read_codes(path)
    if 0 in codes.values() and max(codes.values()) < max(RAFDB_CODES):
        shifted = {name: code + 1 for name, code in codes.items()}
        known = [name for name in shifted if name in official]
        right = sum(class_id(RAFDB_CODES[shifted[name]]) == official[name] for name in known)
        if 2 * right > len(known):
            codes = shifted
    labels = _labels_of(codes, path)
    if not any(name.startswith("test_") for name in labels):
        labels |= {name: label for name, label in official.items() if name.startswith("test_")}
    return labels


def _official_labels(root: Path) -> dict[str, int]:
    path = root / LABEL_FILE
    return _labels_of(_read_codes(path), path)


def _read_codes(path: Path) -> dict[str, int]:
    """Return the codes of a label list, as they stand there, by image id."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no label list {path}; name a file like {LABEL_FILE}")
    lines = path.read_text(encoding=encoding_of(path), errors="replace").splitlines()
    labels = {}
    for number, line in enumerate(map(str.strip, lines), start=1):
        form = _LINE.fullmatch(line)
        if line and (form is None or form[1].lower() in labels):
            what = "has a third column" if len(line.split()) > 2 else "is of another form"
            raise ValueError(
                f"line {number} of {path} {'repeats a name' if form else what}: {line[:60]!r}; "
                "expected a line an image, name and code alone, 'train_00001.jpg 5': take out "
                "what is not the label"
            )
        labels |= {form[1].lower(): int(form[2])} if line else {}
    return labels


def _labels_of(codes: dict[str, int], path: Path) -> dict[str, int]:
    """Return class ids in place of RAF-DB's codes."""
    unknown = sorted(set(codes.values()) - set(RAFDB_CODES))
    if unknown:
        raise ValueError(
            f"{path} has codes {unknown[:5]}; RAF-DB's are 1..7, {', '.join(COUNTS['train'])}. "
            "0..6 is another set's order or a shifted copy, more than 7 the compound set: take the "
            "basic set's own list"
        )
    return {name: class_id(RAFDB_CODES[code]) for name, code in codes.items()}


def _read_landmarks(root: Path, image_id: str, image_path: str) -> np.ndarray:
    path = root / ANNOTATIONS / f"{image_id}{ANNOTATION_END}"
    lines = path.read_text(errors="replace").splitlines()[:5]
    try:
        points = np.array([line.split() for line in lines], dtype=np.float64).reshape(5, 2)
    except ValueError as error:
        raise ValueError(f"{path} starts with {lines}; expected five lines 'x y'") from error
    return (points / image_size(root / image_path)).ravel()
