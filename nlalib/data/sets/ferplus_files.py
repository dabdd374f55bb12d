"""FERPlus's two layouts: which one lies in a folder, and what to do where neither does."""

from pathlib import Path

import pandas as pd

from nlalib.data.sets.base import contents, names_in, what_is_missing
from nlalib.data.sets.fer2013_table import TABLE_FILES, find_table
from nlalib.data.sets.ferplus_votes import FOLDERS, VOTES_FILE

LAYOUT = f"""\
expected either            or
  <root>/                    <root>/
    {VOTES_FILE}             {VOTES_FILE}
    FER2013Train/*.png         {TABLE_FILES[0]}
    FER2013Valid/*.png             (or {TABLE_FILES[1]})
    FER2013Test/*.png"""
_OF_COPY = (
    "a copy of FER2013 whose names do not say which row of FERPlus's votes is whose; take Kaggle's "
    f"{TABLE_FILES[0]} instead"
)


def has_folders(root: Path) -> bool:
    """Return whether the folders of Microsoft's script are there."""
    return all((root / folder).is_dir() for folder in FOLDERS.values())


def has_table(root: Path) -> bool:
    """Return whether Kaggle's table and the votes are there."""
    return find_table(root) is not None and (root / VOTES_FILE).is_file()


def is_root(folder: Path) -> bool:
    """Return whether one of the layouts is there."""
    return has_folders(folder) or has_table(folder)


def why_not(root: Path) -> str:
    """Say what stands at `root` instead of FERPlus, and where FERPlus is if it lies nearby."""
    table = find_table(root)
    if missing := what_is_missing(root, "FERPlus", is_root, of_copy=_OF_COPY, layout=LAYOUT):
        return missing
    if (root / "train.csv").is_file() and table is None:
        return (
            f"{root} holds train.csv, the challenge's training part without the others, and no "
            f"{TABLE_FILES[0]}: take that, or {TABLE_FILES[1]}; {LAYOUT}"
        )
    if table:
        return (
            f"{root} holds {table} and no {VOTES_FILE}, which holds the votes: take it from "
            "github.com/microsoft/FERPlus"
        )
    return f"{root} {contents(root)}; {LAYOUT}"


def list_images(root: Path) -> pd.DataFrame:
    """List the PNGs of the folders."""
    rows = []
    for split, folder in FOLDERS.items():
        names = names_in(root / folder, ".png")
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
