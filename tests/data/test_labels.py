"""The maps from each set's own codes to the one class order, written down once more."""

from nlalib.data import labels


def test_class_order():
    names = "surprise fear disgust happiness sadness anger neutral contempt"
    assert " ".join(labels.EXPRESSIONS) == names


def test_codes_of_each_set():
    """From the sets' own descriptions; a swapped pair costs accuracy without an error."""
    rafdb = "surprise fear disgust happiness sadness anger neutral"
    fer2013 = "anger disgust fear happiness sadness surprise neutral"
    affectnet = "neutral happiness sadness surprise fear disgust anger contempt"
    assert dict(enumerate(rafdb.split(), start=1)) == labels.RAFDB_CODES
    assert dict(enumerate(fer2013.split())) == labels.FER2013_CODES
    assert dict(enumerate(affectnet.split())) == labels.AFFECTNET_CODES


def test_columns_of_ferplus_in_the_order_of_its_files():
    order = "neutral happiness surprise sadness anger disgust fear contempt unknown NF"
    assert " ".join(labels.FERPLUS_COLUMNS) == order
    for column, name in labels.FERPLUS_COLUMNS.items():
        assert name == {"NF": "not_a_face"}.get(column, column)


def test_counts_of_rafdb_are_those_of_its_paper():
    assert sum(labels.RAFDB_TRAIN_COUNTS.values()) == 12271
    assert sum(labels.RAFDB_TEST_COUNTS.values()) == 3068
    assert labels.RAFDB_TRAIN_COUNTS["happiness"] == 4772
    assert labels.RAFDB_TEST_COUNTS["fear"] == 74
