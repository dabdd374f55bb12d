"""FERPlus's two layouts: which one lies in a folder, and what to do where neither does."""

import os
from pathlib import Path

import pandas as pd

from nlalib.data.sets.base import class_folders, contents, is_hidden
from nlalib.data.sets.fer2013_table import TABLE_FILES, find_table
from nlalib.data.sets.ferplus_votes import FOLDERS, VOTES_FILE

LAYOUT = f"""\
expected either            or
  <root>/                    <root>/
    {VOTES_FILE}             {VOTES_FILE}
    FER2013Train/*.png         {TABLE_FILES[0]}
    FER2013Valid/*.png             (or {TABLE_FILES[1]})
    FER2013Test/*.png"""


def has_folders(root: Path) -> bool:
    """Return whether the folders of Microsoft's script are there."""
    return all((root / folder).is_dir() for folder in FOLDERS.values())


def has_table(root: Path) -> bool:
    """Return whether Kaggle's table and the votes are there."""
    return find_table(root) is not None and (root / VOTES_FILE).is_file()


def what_is_missing(root: Path) -> str:
    """Say what stands at `root` instead of FERPlus, and where FERPlus is if it lies nearby."""
    if not root.is_dir():
        return f"there is no folder {root}; {LAYOUT}"
    # The folder's own parent is tried too: somebody may have passed .../FER2013Train.
    nearby = [root.parent, *sorted(path for path in root.iterdir() if path.is_dir())]
    for candidate in nearby:
        if has_folders(candidate) or has_table(candidate):
            return f"{root} is not FERPlus's root, {candidate} is: pass root={str(candidate)!r}"
    if copy := class_folders(root):
        return (
            f"{copy}: a copy of FER2013 whose names do not say which row of FERPlus's votes is "
            f"whose; take Kaggle's {TABLE_FILES[0]} instead; {LAYOUT}"
        )
    if (root / "train.csv").is_file() and find_table(root) is None:
        return (
            f"{root} holds train.csv, the challenge's training part without the others, and no "
            f"{TABLE_FILES[0]}: take that, or {TABLE_FILES[1]}; {LAYOUT}"
        )
    if find_table(root) and not (root / VOTES_FILE).is_file():
        return (
            f"{root} holds {find_table(root)} and no {VOTES_FILE}, which holds the votes: take it "
            "from github.com/microsoft/FERPlus"
        )
    return f"{root} {contents(root)}; {LAYOUT}"


def list_images(root: Path) -> pd.DataFrame:
    """List the PNGs: one scan a folder, as 36 thousand single looks take far longer."""
    rows = []
    for split, folder in FOLDERS.items():
        with os.scandir(root / folder) as entries:
            names = [entry.name for entry in entries]
        names = [name for name in names if name.lower().endswith(".png") and not is_hidden(name)]
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
