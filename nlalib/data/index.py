"""The index: a data frame with one row an image, the same columns for every data set.

Readers make it, everything downstream (statistics, corruption, training, tables) works on it.

=====================  ========  ====================================================
column                 dtype     meaning
=====================  ========  ====================================================
image_id               str       unique in the index
path                   str       below the data set's root;
                                 `rendered:<seed>:<number>:<expression>` for a rendered
                                 face; `<file>.csv#<row>` for an image kept as numbers
                                 in a table
split                  str       "train", "validation" or "test", as the set ships them
label                  int64     class id in the order of `nlalib.data.labels`
votes_<name>           int64     optional, all or none: annotators' votes, one column
                                 for each of `VOTE_NAMES`
<point>_x, <point>_y   float64   optional, all or none: landmarks as fractions of the
                                 image's width and height; left and right as the viewer
                                 sees them; one pair for each of `LANDMARKS`
true_<expression>      float64   optional, all or none (rendered faces only): the true
                                 mixture of the seven basic expressions, sums to 1
true_label             int64     optional: class id of the largest share of the mixture; of a set
                                 of photographs with wrong labels, that of the rule
is_flipped             bool      optional: the label is not the rule's: replaced by a wrong one, or
                                 given by people
=====================  ========  ====================================================
"""

import pandas as pd

from nlalib.data.labels import BASIC_EXPRESSIONS, EXPRESSIONS

SPLITS = ("train", "validation", "test")
VOTE_NAMES = (*EXPRESSIONS, "unknown", "not_a_face")
VOTE_COLUMNS = [f"votes_{name}" for name in VOTE_NAMES]
LANDMARKS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
LANDMARK_COLUMNS = [f"{point}_{axis}" for point in LANDMARKS for axis in "xy"]
# Landmarks in pixels of the image file, for alignment; no part of the index.
POINT_COLUMNS = [f"{column}_pixels" for column in LANDMARK_COLUMNS]
TRUE_COLUMNS = [f"true_{name}" for name in BASIC_EXPRESSIONS]

REQUIRED = ["image_id", "path", "split", "label"]
OPTIONAL_GROUPS = {"votes": VOTE_COLUMNS, "landmarks": LANDMARK_COLUMNS, "truth": TRUE_COLUMNS}


def check_index(index: pd.DataFrame, num_classes: int) -> pd.DataFrame:
    """Return `index` unchanged if it obeys the schema above; every reader ends with this call.

    Raises
    ------
    ValueError
        Names the column or the first offending rows, and what was expected.
    """
    missing = [column for column in REQUIRED if column not in index]
    if missing:
        raise ValueError(f"index lacks the columns {missing}; it has {list(index.columns)}")
    for group, columns in OPTIONAL_GROUPS.items():
        present = [column for column in columns if column in index]
        if present and len(present) < len(columns):
            lacking = sorted(set(columns) - set(present))
            raise ValueError(f"index has some of the {group} columns but lacks {lacking}")
    if index.empty:
        raise ValueError("index has no rows: the reader kept no image")
    duplicated = index.loc[index["image_id"].duplicated(), "image_id"]
    if len(duplicated):
        raise ValueError(
            f"{len(duplicated)} image_id values occur more than once, first {duplicated.iloc[0]!r}"
        )
    unknown_splits = sorted(set(index["split"]) - set(SPLITS))
    if unknown_splits:
        raise ValueError(f"unknown split {unknown_splits}; expected one of {SPLITS}")
    for column in ["label", *(["true_label"] if "true_label" in index else [])]:
        outside = index.loc[~index[column].between(0, num_classes - 1), ["image_id", column]]
        if len(outside):
            first = outside.iloc[0]
            raise ValueError(
                f"{len(outside)} values of {column!r} lie outside 0..{num_classes - 1}, first "
                f"{first[column]} of {first['image_id']!r}: is the set read with its own codes?"
            )
    if "votes_unknown" in index and (index[VOTE_COLUMNS] < 0).any(axis=None):
        raise ValueError("index has negative votes; votes are counts of annotators")
    return index


def vote_counts(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the columns `VOTE_COLUMNS`; ValueError where some are missing."""
    missing = [column for column in VOTE_COLUMNS if column not in rows]
    if missing:
        raise ValueError(f"the votes lack the columns {missing}: has this set annotators' votes?")
    return rows[VOTE_COLUMNS]


def has_truth(index: pd.DataFrame) -> bool:
    """Return whether the truth behind the labels is known (rendered faces)."""
    return set(TRUE_COLUMNS) <= set(index.columns)
