"""What a run trains on, by its content: other images or labels under the same names are told apart.

A run's name says which set it is of, and not which folder: a moved set is the same. So its folder
keeps digests of the decoded images and of the labels, and they are compared before the run is
taken up again, or taken as done.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd

from nlalib.data.index import VOTE_COLUMNS
from nlalib.data.pixels import images_digest
from nlalib.files import write_json

CONTENT_FILE = "content.json"


def content_of(index: pd.DataFrame, images: np.ndarray) -> dict[str, str]:
    """Return digests of what is trained on: `images`, and `labels` with parts, names and votes.

    Parameters
    ----------
    index : pandas.DataFrame
        With the column `part`, from `nlalib.data.splits.load_dataset`.
    images : numpy.ndarray, (len(index), size, size, 3) uint8
    """
    labels = hashlib.sha256("\n".join(index["image_id"] + " " + index["part"]).encode())
    numbers = ["label", *(VOTE_COLUMNS if VOTE_COLUMNS[0] in index else [])]
    labels.update(np.ascontiguousarray(index[numbers].to_numpy("<i8")))
    return {"images": images_digest(images), "labels": labels.hexdigest()}


def record_content(folder: Path, index: pd.DataFrame, images: np.ndarray) -> None:
    """Write what a run trains on into its folder, unless it stands there."""
    if not (folder / CONTENT_FILE).exists():
        write_json(folder / CONTENT_FILE, content_of(index, images))


def compare_content(folder: Path, index: pd.DataFrame, images: np.ndarray) -> None:
    """Raise ValueError if a run's folder records other images or labels than these.

    A folder without a record, of a run from before there was one, is taken as it is.
    """
    if (folder / CONTENT_FILE).is_file():
        require_content(folder, content_of(index, images))


def require_content(folder: Path, found: dict[str, str]) -> None:
    """Raise ValueError if a run's folder, which has a record, tells of other content than `found`.

    Parameters
    ----------
    folder : pathlib.Path
    found : dict of str
        Of `content_of`.
    """
    recorded = json.loads((folder / CONTENT_FILE).read_text())
    differing = [what for what in found if recorded.get(what) != found[what]]
    if differing:
        told = " and ".join(
            f"{what} {str(recorded.get(what))[:12]} (now {found[what][:12]})" for what in differing
        )
        raise ValueError(
            f"{folder} is of a run on other data under the same names: it recorded {told}. Put "
            "the data back, or name another folder for the runs on these by NLA_RUNS, or move "
            "the folder away to train anew"
        )
