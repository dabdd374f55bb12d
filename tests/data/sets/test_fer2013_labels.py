"""FER2013's own labels of FERPlus's images: both files, and what is wrong with them."""

import numpy as np
import pandas as pd
import pytest

from nlalib.data.labels import EXPRESSIONS, FER2013_CODES, FER2013_NAMES, FERPLUS_COLUMNS
from nlalib.data.sets import SETS
from nlalib.data.sets.fer2013_labels import read_fer2013_labels
from nlalib.data.sets.ferplus import read_ferplus
from nlalib.data.sets.ferplus_votes import FOLDERS, USAGES
from nlalib.data.splits import load_dataset
from nlalib.paths import ROOT
from nlalib.training.config import RunConfig

REAL_ROOT = ROOT / "data" / "ferplus"
CODE_OF = {name: code for code, name in FER2013_CODES.items()}
WORD_OF = {name: word for word, name in FER2013_NAMES.items()}
COLUMNS = [name for name in FERPLUS_COLUMNS.values() if name in CODE_OF]


def write_set(root, layout: str = "folders", images: int = 70):
    """A FERPlus of clear votes, a fifth of whose images FER2013 labels as the next class.

    One row has no name, and of the two rows of one name the later is the image.
    """
    rows, labels = [], []
    for number in range(images + 1):
        usage = ("Training", "Training", "Training", "PublicTest", "PrivateTest")[number // 7 % 5]
        expression = COLUMNS[number % 7]
        name = f"fer{min(number, images - 1):07d}.png"
        votes = {c: 8 * (e == expression) for c, e in FERPLUS_COLUMNS.items()}
        rows.append({"Usage": usage, "Image name": name, **votes})
        labels.append(COLUMNS[(number + (number % 5 == 0)) % 7])
    rows[-1]["Usage"] = rows[-2]["Usage"]
    rows[2]["Image name"] = ""
    root.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(root / "fer2013new.csv", index=False)
    frame = pd.DataFrame(
        {"name": [r["Image name"] for r in rows], "usage": [r["Usage"] for r in rows]}
    )
    frame["fer2013_label"] = [WORD_OF.get(name, name) for name in labels]
    if layout == "folders":
        for row in rows:
            folder = root / FOLDERS[USAGES[row["Usage"]]]
            folder.mkdir(exist_ok=True)
            if row["Image name"]:
                (folder / row["Image name"]).write_bytes(b"no reader of an index looks inside")
        kept = frame[(frame["name"] != "") & ~frame["name"].duplicated(keep="last")]
        kept.sample(frac=1, random_state=0).to_csv(root / "fer2013_labels.csv", index=False)
    else:
        table = pd.DataFrame({"emotion": [CODE_OF[n] for n in labels], "pixels": "0"})
        table.assign(Usage=frame["usage"]).to_csv(root / "fer2013.csv", index=False)
    return root, {
        r["Image name"].removesuffix(".png"): n for r, n in zip(rows, labels, strict=True)
    }


@pytest.mark.parametrize("layout", ["folders", "table"])
def test_labels_are_read_by_name_or_by_position(tmp_path, layout):
    root, expected = write_set(tmp_path, layout)
    index, _ = read_ferplus(root)
    found = read_fer2013_labels(root, index)
    named = index["image_id"].isin(expected).to_numpy()
    assert named.sum() == 69
    assert [EXPRESSIONS[label] for label in found[named]] == [
        expected[name] for name in index["image_id"][named]
    ]
    assert len(index) - named.sum() == (layout == "table")  # the row without a name


def test_labels_of_kaggles_table_go_with_aligned_images(tmp_path):
    root, _ = write_set(tmp_path / "set", "table")
    SETS["ferplus"].write_labels(root, tmp_path / "aligned")
    index, _ = read_ferplus(root)
    found = read_fer2013_labels(tmp_path / "aligned", index)
    assert np.array_equal(found, read_fer2013_labels(root, index))
    folders, _ = write_set(tmp_path / "folders")  # whose file is copied
    SETS["ferplus"].write_labels(folders, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_codes_are_read_like_words_and_a_table_beside_folders_serves(tmp_path):
    root, _ = write_set(tmp_path / "folders")
    index, _ = read_ferplus(root)
    expected = read_fer2013_labels(root, index)
    path = root / "fer2013_labels.csv"
    rows = pd.read_csv(path)
    words = rows["fer2013_label"].replace(FER2013_NAMES)
    rows.assign(fer2013_label=words.map(CODE_OF)).to_csv(path, index=False)
    assert np.array_equal(read_fer2013_labels(root, index), expected)
    path.unlink()
    table = write_set(tmp_path / "table", "table")[0] / "fer2013.csv"
    (root / "fer2013.csv").write_bytes(table.read_bytes())
    assert np.array_equal(read_fer2013_labels(root, index), expected)


def test_missing_labels_say_which_file_and_where(tmp_path):
    root, _ = write_set(tmp_path)
    index, _ = read_ferplus(root)
    (root / "fer2013_labels.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither fer2013_labels.csv .* beside fer2013new"):
        read_fer2013_labels(root, index)


def broken(rows: pd.DataFrame, how: str) -> pd.DataFrame:
    words = rows["fer2013_label"].to_numpy()
    return {
        "shuffled": rows.assign(fer2013_label=np.random.default_rng(0).permutation(words)),
        "renamed": rows.assign(name="image" + rows["name"]),
        "short": rows.iloc[:-4],
        "other words": rows.assign(fer2013_label="joy"),
        "twice": pd.concat([rows, rows.iloc[:2]]),
        "other columns": rows.rename(columns={"fer2013_label": "label"}),
    }[how]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("shuffled", r"are the votes' for \d+\.\d% of 69 images, .* do not belong to these images"),
        ("renamed", r"no label of 69 of 69 images, first fer\d+.png: it must name the images as"),
        ("short", r"no label of 4 of 69 images"),
        ("other words", r"labels \['joy'\], which are none of FER2013's; expected words like ang"),
        ("twice", r"names 2 images more than once, first fer\d+.png"),
        ("other columns", r"lacks the columns \['fer2013_label'\]"),
    ],
)
def test_labels_of_other_images_are_refused(tmp_path, how, message):
    root, _ = write_set(tmp_path)
    index, _ = read_ferplus(root)
    path = root / "fer2013_labels.csv"
    broken(pd.read_csv(path), how).to_csv(path, index=False)
    with pytest.raises(ValueError, match=message):
        read_fer2013_labels(root, index)


@pytest.mark.skipif(
    not (REAL_ROOT / "fer2013_labels.csv").is_file(), reason="FER2013's labels are not at hand"
)
def test_published_labels_agree_as_published():
    run = {"dataset": "ferplus", "train_images": 0, "test_images": 0, "num_classes": 8}
    index, _ = load_dataset(RunConfig(**run, label_source="fer2013").data)
    train = index[index["part"] != "test"]
    assert (~train["is_flipped"]).mean() == pytest.approx(0.63, abs=0.01)
    assert set(train["label"]) == set(range(7))  # of eight: FER2013 knows no contempt
    assert not index.loc[index["part"] == "test", "is_flipped"].any()
