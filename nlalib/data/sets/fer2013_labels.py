"""FER2013's own labels of FERPlus's images, which one person gave each (Goodfellow et al. 2013).

They are read from `fer2013_labels.csv`, a small table beside the folders (columns `name`, as
"fer0000000.png", and `fer2013_label`, a word like "happy" or a code of Kaggle's from 0 to 6), or,
where there is none, from the column `emotion` of Kaggle's table, whose rows correspond to those of
the votes. FER2013 has seven classes: an image of contempt always has another of its labels.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import cohen_kappa_score

from nlalib.data.labels import BASIC_EXPRESSIONS, FER2013_CODES, FER2013_NAMES, class_id
from nlalib.data.sets.base import encoding_of, require_columns
from nlalib.data.sets.fer2013_table import TABLE_FILES, find_table, read_column
from nlalib.data.sets.ferplus_votes import VOTES_FILE, read_table_rows, to_image_id

FER2013_LABELS_FILE = "fer2013_labels.csv"
_COLUMNS = ("name", "fer2013_label")
_CLASS_OF = {
    **{name: class_id(name) for name in BASIC_EXPRESSIONS},
    **{word: class_id(name) for word, name in FER2013_NAMES.items()},
    **{str(code): class_id(name) for code, name in FER2013_CODES.items()},
}
# Cohen's kappa of labels and votes is 0.56 as published, and about 0 for labels of other images.
_LEAST_KAPPA = 0.25


def read_fer2013_labels(root: Path, index: pd.DataFrame) -> np.ndarray:
    """Return FER2013's labels of the images of an index.

    Parameters
    ----------
    root : pathlib.Path
        FERPlus's folder.
    index : pandas.DataFrame
        With `image_id` and the `label` of the votes.

    Returns
    -------
    numpy.ndarray, (N,) int64
        Class ids.

    Raises
    ------
    FileNotFoundError
        If there are no such labels; the message says what is missing and where it goes.
    ValueError
        If they are none of FER2013's, or not those of these images.
    """
    path, labels = _read(root)
    found = labels.reindex(index["image_id"])
    without = found.isna().to_numpy()
    if without.any():
        raise ValueError(
            f"{path} has no label of {without.sum():,} of {len(index):,} images, first "
            f"{index['image_id'].iloc[without.argmax()]}.png: it must name the images as "
            f"{VOTES_FILE} does, all of them"
        )
    found = found.to_numpy(np.int64)
    kappa = cohen_kappa_score(found, index["label"])
    if kappa < _LEAST_KAPPA:
        raise ValueError(
            f"the labels of {path} are the votes' for {(found == index['label']).mean():.1%} of "
            f"{len(index):,} images, little more than chance (kappa {kappa:.2f}; 0.56 as "
            "published): they do not belong to these images; is a file sorted, or shuffled?"
        )
    return found


def labels_of_table(root: Path) -> pd.DataFrame:
    """Return the labels of Kaggle's table at `root` as `fer2013_labels.csv` holds them."""
    rows = read_table_rows(root)
    codes = read_column(root / str(find_table(root)), "emotion", dtype="str")["emotion"]
    table = pd.DataFrame({"name": rows["image_id"] + ".png", "fer2013_label": codes.to_numpy()})
    return table[~table["name"].duplicated(keep="last")]  # the later row's pixels won


def _read(root: Path) -> tuple[Path, pd.Series]:
    """Return the file that holds the labels, and the class ids by `image_id`."""
    path, table = root / FER2013_LABELS_FILE, find_table(root)
    if path.is_file():
        rows = pd.read_csv(path, dtype="str", encoding=encoding_of(path), skipinitialspace=True)
        rows = rows.rename(columns=str.strip)
        require_columns(rows, _COLUMNS, path)
        names, words = to_image_id(rows["name"]), rows["fer2013_label"]
    elif table:
        path, rows = root / table, labels_of_table(root)
        names, words = to_image_id(rows["name"]), rows["fer2013_label"]
    else:
        raise FileNotFoundError(
            f"label_source 'fer2013' needs FER2013's own labels, and {root} holds neither "
            f"{FER2013_LABELS_FILE} (columns {' and '.join(_COLUMNS)}) nor Kaggle's "
            f"{TABLE_FILES[0]}: put either there, beside {VOTES_FILE}"
        )
    words = words.fillna("").str.strip().str.lower()
    unknown = sorted(set(words) - set(_CLASS_OF))
    if unknown:
        raise ValueError(
            f"{path} has labels {unknown[:3]}, which are none of FER2013's; expected words like "
            f"{', '.join(FER2013_NAMES)} or codes from 0 to {max(FER2013_CODES)}"
        )
    labels = pd.Series(words.map(_CLASS_OF).to_numpy(), index=names.to_numpy())
    repeated = labels.index[labels.index.duplicated()]
    if len(repeated):
        raise ValueError(
            f"{path} names {len(repeated):,} images more than once, first {repeated[0]}.png: "
            "take a file with one row an image"
        )
    return path, labels
