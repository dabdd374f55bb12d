"""FERPlus's votes: `fer2013new.csv` as published, and the `label.csv` of each folder."""

from pathlib import Path

import numpy as np
import pandas as pd

from nlalib.data.index import VOTE_COLUMNS
from nlalib.data.labels import FERPLUS_COLUMNS
from nlalib.data.sets.base import encoding_of, require_columns
from nlalib.data.sets.fer2013_table import find_table, read_column

FOLDERS = {"train": "FER2013Train", "validation": "FER2013Valid", "test": "FER2013Test"}
USAGES = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}
VOTES_FILE, LABEL_FILE = "fer2013new.csv", "label.csv"
_RENAMED = {column: f"votes_{name}" for column, name in FERPLUS_COLUMNS.items()}


def read_votes_file(root: Path) -> pd.DataFrame:
    """Read `fer2013new.csv`: `image_id` (empty where the row has no name), `split`, votes."""
    path = root / VOTES_FILE
    table = pd.read_csv(path, skipinitialspace=True, encoding=encoding_of(path))
    table.columns = table.columns.str.strip()
    require_columns(table, ["Usage", "Image name", *FERPLUS_COLUMNS], path)
    table["image_id"] = to_image_id(table["Image name"])
    table["split"] = to_split(table["Usage"], path)
    return _with_votes(table, path)


def read_label_files(root: Path) -> pd.DataFrame:
    """Read the `label.csv` of the three folders into the form of `read_votes_file`."""
    columns = ["Image name", "box", *FERPLUS_COLUMNS]
    tables = []
    for split, folder in FOLDERS.items():
        path = root / folder / LABEL_FILE
        if not path.is_file():
            raise FileNotFoundError(f"there is no {path}, which votes='label' reads")
        table = pd.read_csv(path, header=None, skipinitialspace=True, encoding=encoding_of(path))
        if table.shape[1] != len(columns):
            raise ValueError(
                f"{path} has {table.shape[1]} columns; expected {len(columns)}: name, box and "
                f"ten counts, without a header"
            )
        table.columns = columns
        table["image_id"] = to_image_id(table["Image name"])
        tables.append(_with_votes(table.assign(split=split), path))
    return pd.concat(tables, ignore_index=True)


def read_table_rows(root: Path) -> pd.DataFrame:
    """Read `fer2013new.csv` beside Kaggle's table, whose rows correspond by position.

    As `read_votes_file`, but rows without a name are called after their position, `row00012`, and
    `path` names the table's row. Of a repeated name the later row stays, as in the folders.

    Raises
    ------
    ValueError
        If the two files do not correspond.
    """
    rows = read_votes_file(root)
    table = find_table(root)
    path = root / table
    usage = to_split(read_column(path, "Usage")["Usage"], path)
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
    names = [f"row{number:05d}" for number in numbers]
    rows["image_id"] = rows["image_id"].where(is_named, pd.Series(names))
    rows["path"] = [f"{table}#{number}" for number in numbers]
    return rows


def to_image_id(names: pd.Series) -> pd.Series:
    """Return the names of image files as an index has them: in small letters, without .png."""
    names = names.fillna("").astype("str").str.strip().str.lower()
    return names.str.removesuffix(".png")


def to_split(usage: pd.Series, path: Path) -> pd.Series:
    """Return the split of each row from its Usage; ValueError for a Usage that is none."""
    usage = usage.astype("str").str.strip()
    unknown = sorted(set(usage) - set(USAGES))
    if unknown:
        raise ValueError(f"{path} has the Usage {unknown}; expected one of {list(USAGES)}")
    return usage.map(USAGES)


def _with_votes(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Give the vote columns the index's names and check that they are counts."""
    table = table.rename(columns=_RENAMED)
    votes = table[VOTE_COLUMNS].apply(pd.to_numeric, errors="coerce")
    is_count = (votes.ge(0) & (votes % 1 == 0)).all(axis=1)
    if not is_count.all():
        row = int(np.flatnonzero(~is_count)[0])
        raise ValueError(
            f"row {row} of {path} has votes that are no counts of annotators, "
            f"{table[VOTE_COLUMNS].iloc[row].tolist()}: rules count votes, so take the file as "
            "published, not one of shares"
        )
    return table[["image_id", "split", *VOTE_COLUMNS]].astype(dict.fromkeys(VOTE_COLUMNS, "int64"))
