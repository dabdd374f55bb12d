"""The one class order of the project, and the maps from each data set's own codes to it.

Nothing else in the project knows a class id: two FER data sets rarely share an order, and a
swapped order costs accuracy without an error message.

The order is RAF-DB's (codes 1..7), with contempt, which RAF-DB does not have, last.
"""

EXPRESSIONS = (
    "surprise",
    "fear",
    "disgust",
    "happiness",
    "sadness",
    "anger",
    "neutral",
    "contempt",
)
BASIC_EXPRESSIONS = EXPRESSIONS[:7]

# RAF-DB, EmoLabel/list_patition_label.txt.
RAFDB_CODES = dict(zip(range(1, 8), BASIC_EXPRESSIONS, strict=True))
# RAF-DB, images for each class in the order of the codes (Li et al. 2017; the set's own list).
RAFDB_TRAIN_COUNTS = dict(
    zip(BASIC_EXPRESSIONS, (1290, 281, 717, 4772, 1982, 705, 2524), strict=True)
)
RAFDB_TEST_COUNTS = dict(zip(BASIC_EXPRESSIONS, (329, 74, 160, 1185, 478, 162, 680), strict=True))

# FERPlus, columns of fer2013new.csv and of label.csv, in the files' order.
_FERPLUS_ORDER = "neutral happiness surprise sadness anger disgust fear contempt unknown"
FERPLUS_COLUMNS = {name: name for name in _FERPLUS_ORDER.split()} | {"NF": "not_a_face"}
# FER2013, column `emotion` of fer2013.csv, from 0.
_FER2013_ORDER = "anger disgust fear happiness sadness surprise neutral"
FER2013_CODES = dict(enumerate(_FER2013_ORDER.split()))
# The same as words, in tables made of it, beside the expressions' own names.
FER2013_NAMES = {"angry": "anger", "happy": "happiness", "sad": "sadness"}
# AffectNet, from 0; 8 (none), 9 (uncertain) and 10 (no face) are no expressions.
_AFFECTNET_ORDER = "neutral happiness sadness surprise fear disgust anger contempt"
AFFECTNET_CODES = dict(enumerate(_AFFECTNET_ORDER.split()))


def expressions(num_classes: int) -> tuple[str, ...]:
    """Return the names of the first `num_classes` classes.

    Parameters
    ----------
    num_classes : int
        7 (the basic expressions) or 8 (with contempt).

    Raises
    ------
    ValueError
        For any other number.
    """
    if num_classes not in (7, 8):
        raise ValueError(
            f"num_classes is {num_classes}; FER sets have 7 classes, or 8 with contempt"
        )
    return EXPRESSIONS[:num_classes]


def probability_columns(num_classes: int) -> list[str]:
    """Return what tables call the predicted probabilities of the classes, `p_<expression>`."""
    return [f"p_{name}" for name in expressions(num_classes)]


def class_id(expression: str) -> int:
    """Return the project's class id of an expression's name.

    Raises
    ------
    KeyError
        If the name is not one of `EXPRESSIONS`.
    """
    if expression not in EXPRESSIONS:
        raise KeyError(f"unknown expression {expression!r}; known are {', '.join(EXPRESSIONS)}")
    return EXPRESSIONS.index(expression)
