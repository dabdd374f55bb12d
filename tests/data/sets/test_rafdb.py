"""RAF-DB's layout as small generated trees, and each way in which a download is usually wrong."""

import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from nlalib.data.index import LANDMARK_COLUMNS, LANDMARKS
from nlalib.data.labels import class_id
from nlalib.data.sets.base import class_table
from nlalib.data.sets.rafdb import (
    COUNTS,
    LABEL_FILE,
    NO_FILE,
    NO_LABEL,
    NO_LANDMARKS,
    read_rafdb,
)

# As in the published list: codes, not class ids, and the splits' numbers are of other lengths.
CODES = {
    "train_00001": (5, "sadness"),
    "train_00002": (1, "surprise"),
    "train_00003": (7, "neutral"),
    "train_00004": (4, "happiness"),
    "test_0001": (2, "fear"),
    "test_0002": (6, "anger"),
    "test_0003": (3, "disgust"),
}
PUBLISHED = {
    "train": {
        "surprise": 1290,
        "fear": 281,
        "disgust": 717,
        "happiness": 4772,
        "sadness": 1982,
        "anger": 705,
        "neutral": 2524,
    },
    "test": {
        "surprise": 329,
        "fear": 74,
        "disgust": 160,
        "happiness": 1185,
        "sadness": 478,
        "anger": 162,
        "neutral": 680,
    },
}
# Each original image has another size, and neither side is the other's.
WIDTHS = {name: 40 + 10 * number for number, name in enumerate(CODES)}
HEIGHT = 80


def pixels_of(name: str) -> np.ndarray:
    """Return the five points of an image, (5, 2), pixels; another x for each image and point."""
    x = np.array([0.25, 0.75, 0.5, 0.3, 0.7]) * WIDTHS[name]
    return np.stack([x, np.array([20.0, 24.0, 40.0, 60.0, 62.0])], axis=1)


def label_lines(codes=CODES) -> list[str]:
    return [f"{name}.jpg {code}" for name, (code, _) in codes.items()]


def write_labels(root, lines, end="\n"):
    path = root / LABEL_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((end.join(lines) + end).encode())
    return path


def write_set(root):
    write_labels(root, label_lines())
    for folder in ("Image/aligned", "Image/original", "Annotation/manual"):
        (root / folder).mkdir(parents=True)
    for number, name in enumerate(CODES):
        face = np.full((100, 100, 3), 30 * number, np.uint8)
        Image.fromarray(face).save(root / f"Image/aligned/{name}_aligned.jpg")
        photograph = np.zeros((HEIGHT, WIDTHS[name], 3), np.uint8)
        Image.fromarray(photograph).save(root / f"Image/original/{name}.jpg")
        points = [f"{x}\t{y}" for x, y in pixels_of(name)]
        path = root / f"Annotation/manual/{name}_manu_attri.txt"
        path.write_text("\n".join([*points, "0", "1", "2"]) + "\n")
    return root


def write_many(root, names, kind="aligned"):
    """Write empty files, which stand in for images: no aligned image is opened."""
    folder = root / "Image" / kind
    folder.mkdir(parents=True)
    end = "_aligned.jpg" if kind == "aligned" else ".jpg"
    for name in names:
        os.close(os.open(folder / f"{name}{end}", os.O_CREAT))
    return folder


def published_codes() -> dict[str, int]:
    codes = {}
    for split, digits in (("train", 5), ("test", 4)):
        counts = PUBLISHED[split].values()
        labels = [code for code, count in enumerate(counts, start=1) for _ in range(count)]
        codes |= {f"{split}_{n:0{digits}d}": code for n, code in enumerate(labels, start=1)}
    return codes


def labels_of(index: pd.DataFrame) -> dict:
    return {row.image_id: (row.split, row.label) for row in index.itertuples()}


def as_dict(dropped: pd.DataFrame) -> dict:
    assert list(dropped.columns) == ["split", "reason", "images"]
    return {(row.split, row.reason): row.images for row in dropped.itertuples()}


EXPECTED = {name: (name.split("_")[0], class_id(label)) for name, (_, label) in CODES.items()}


def test_aligned_images_carry_the_labels_of_the_list(tmp_path):
    index, dropped = read_rafdb(write_set(tmp_path))
    assert labels_of(index) == EXPECTED
    assert list(index.columns) == ["image_id", "path", "split", "label"]
    assert index["label"].dtype == np.int64
    # Training images first, each split by name, whatever the order of list and folder.
    assert list(index["image_id"]) == list(CODES)
    assert list(index["path"]) == [f"Image/aligned/{name}_aligned.jpg" for name in CODES]
    assert all((tmp_path / path).is_file() for path in index["path"])
    assert as_dict(dropped) == {}


def test_original_images_have_landmarks_as_fractions_of_their_own_size(tmp_path):
    index, dropped = read_rafdb(str(write_set(tmp_path)), aligned=False)
    assert labels_of(index) == EXPECTED
    assert list(index["path"]) == [f"Image/original/{name}.jpg" for name in CODES]
    assert as_dict(dropped) == {}
    for row in index.to_dict("records"):
        for point, (x, y) in zip(LANDMARKS, pixels_of(row["image_id"]), strict=True):
            assert row[f"{point}_x"] == pytest.approx(x / WIDTHS[row["image_id"]])
            assert row[f"{point}_y"] == pytest.approx(y / HEIGHT)
    assert (index["left_eye_x"] < index["right_eye_x"]).all()


def test_without_one_annotation_there_are_no_landmarks_and_it_is_counted(tmp_path):
    root = write_set(tmp_path)
    (root / "Annotation/manual/train_00003_manu_attri.txt").unlink()
    index, dropped = read_rafdb(root, aligned=False)
    assert not set(LANDMARK_COLUMNS) & set(index.columns)
    assert labels_of(index) == EXPECTED
    assert as_dict(dropped) == {("train", NO_LANDMARKS): 1}
    assert as_dict(read_rafdb(root)[1]) == {}
    for path in (root / "Annotation/manual").iterdir():
        path.unlink()
    (root / "Annotation/manual").rmdir()
    dropped = read_rafdb(root, aligned=False)[1]
    assert as_dict(dropped) == {("train", NO_LANDMARKS): 4, ("test", NO_LANDMARKS): 3}
    assert list(dropped["split"]) == ["train", "test"]


@pytest.mark.parametrize("text", ["", "1 2\n3 4\n5 6\n7 8\n0\n", "1 2 3\n" * 5, "x y\n" * 5])
def test_an_annotation_of_another_form_is_refused(tmp_path, text):
    path = write_set(tmp_path) / "Annotation/manual/test_0002_manu_attri.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"test_0002_manu_attri.txt .*five lines 'x y'"):
        read_rafdb(tmp_path, aligned=False)


def test_other_spellings_of_the_same_files(tmp_path):
    plain, _ = read_rafdb(write_set(tmp_path))
    lines = ["\ufeff" + label_lines()[0], "", *(f"{line}  " for line in label_lines()[1:]), " "]
    write_labels(tmp_path, [line.replace("test_0001.jpg", "Test_0001.JPG ") for line in lines])
    pd.testing.assert_frame_equal(read_rafdb(tmp_path)[0], plain)
    write_labels(tmp_path, label_lines(), end="\r\n")
    pd.testing.assert_frame_equal(read_rafdb(tmp_path)[0], plain)
    folder = tmp_path / "Image/aligned"
    (folder / "train_00001_aligned.jpg").rename(folder / "train_00001_aligned.JPG")
    (folder / "._train_00001_aligned.jpg").touch()
    (folder / "Thumbs.db").touch()
    index, dropped = read_rafdb(tmp_path)
    assert labels_of(index) == EXPECTED
    assert index["path"][0] == "Image/aligned/train_00001_aligned.JPG"
    assert as_dict(dropped) == {}


def test_an_image_in_two_files_is_refused(tmp_path):
    (write_set(tmp_path) / "Image/aligned/train_00001_aligned.JPG").touch()
    if len(os.listdir(tmp_path / "Image/aligned")) == len(CODES):
        pytest.skip("this file system does not tell .jpg from .JPG")
    with pytest.raises(ValueError, match=r"image_id .* more than once, first 'train_00001'"):
        read_rafdb(tmp_path)


def count_differences(index, counts):
    return class_table(index, counts).query("expected != found")


def test_published_size_and_counts(tmp_path):
    codes = published_codes()
    assert len(codes) == 12_271 + 3_068
    write_labels(tmp_path, [f"{name}.jpg {code}" for name, code in codes.items()])
    write_many(tmp_path, codes)
    index, dropped = read_rafdb(tmp_path)
    assert index["split"].value_counts().to_dict() == {"train": 12_271, "test": 3_068}
    assert dropped.empty
    assert list(dropped.columns) == ["split", "reason", "images"]
    differences = count_differences(index, COUNTS)
    assert differences.empty
    assert list(differences.columns) == ["split", "expression", "expected", "found"]
    # One image of a class less, and one that changes its class.
    first_fear = index.index[index["label"] == class_id("fear")][0]
    index.loc[first_fear, "label"] = class_id("anger")
    lacking = index.drop(index.index[(index["split"] == "test") & (index["label"] == 6)][0])
    assert [tuple(row) for row in count_differences(lacking, COUNTS).to_numpy()] == [
        ("train", "fear", 281, 280),
        ("train", "anger", 705, 706),
        ("test", "neutral", 680, 679),
    ]


def test_counts_of_a_small_index_show_empty_classes(tmp_path):
    differences = count_differences(read_rafdb(write_set(tmp_path))[0], COUNTS)
    found = differences.set_index(["split", "expression"])["found"]
    assert len(found) == 14
    assert (found["train", "fear"], found["test", "fear"]) == (0, 1)


def test_up_to_one_percent_is_counted_and_more_is_refused(tmp_path):
    names = [f"train_{n:05d}" for n in range(1, 701)]
    write_labels(tmp_path, [f"{name}.jpg 4" for name in names])
    folder = write_many(tmp_path, names)
    for name in names[:7]:
        (folder / f"{name}_aligned.jpg").unlink()
    for name in ("train_00999_aligned.jpg", "notes.jpg"):
        (folder / name).touch()
    index, dropped = read_rafdb(tmp_path)
    assert list(index["image_id"]) == names[7:]
    counts = {("train", NO_FILE): 7, ("train", NO_LABEL): 1, ("unknown", NO_LABEL): 1}
    assert as_dict(dropped) == counts
    (folder / f"{names[10]}_aligned.jpg").unlink()
    message = r"8 of 700 listed images are not in .*Image.aligned, first train_00001.jpg: unpack"
    with pytest.raises(FileNotFoundError, match=message):
        read_rafdb(tmp_path)


def test_a_list_cut_short_is_refused(tmp_path):
    write_labels(write_set(tmp_path), label_lines()[:1])
    with pytest.raises(ValueError, match=r"6 of 7 images are not in .*first Image/aligned/t"):
        read_rafdb(tmp_path)
    # Of few images, five are a quirk that is counted.
    write_labels(tmp_path, label_lines()[:2])
    assert as_dict(read_rafdb(tmp_path)[1]) == {("train", NO_LABEL): 2, ("test", NO_LABEL): 3}


def test_noisy_labels_of_training_images_replace_those_of_the_set(tmp_path):
    write_set(tmp_path)
    noisy = tmp_path / "list_10_1.txt"
    noisy.write_text("\n".join(label_lines(CODES | {"train_00002": (3, "")})))
    index, dropped = read_rafdb(tmp_path, label_list=noisy)
    assert labels_of(index) == EXPECTED | {"train_00002": ("train", class_id("disgust"))}
    assert as_dict(dropped) == {}
    fewer = [line for line in label_lines() if not line.startswith("train_00004")]
    noisy.write_text("\n".join(fewer))
    index, dropped = read_rafdb(tmp_path, label_list=str(noisy))
    assert set(labels_of(index)) == set(CODES) - {"train_00004"}
    assert as_dict(dropped) == {("train", NO_LABEL): 1}


@pytest.mark.parametrize(
    "lines",
    [
        label_lines(CODES | {"test_0002": (1, "")}),
        [line for line in label_lines() if not line.startswith("test_0002")],
    ],
)
def test_noisy_or_missing_test_labels_are_refused(tmp_path, lines):
    noisy = write_set(tmp_path) / "list_10_1.txt"
    noisy.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"1 test labels of .*10_1.txt .*first test_0002.jpg"):
        read_rafdb(tmp_path, label_list=noisy)


@pytest.mark.parametrize(
    "form",
    [
        "{name}.jpg {code}",  # EAC's: training lines alone
        "/data/raf/train/{name}_aligned.jpg {code}",
        "C:\\raf\\{name}_aligned.jpg {code}",
    ],
)
@pytest.mark.parametrize("first_code", [0, 1])
def test_noise_lists_as_they_are_passed_around(tmp_path, form, first_code):
    write_set(tmp_path)
    noisy = CODES | {"train_00001": (1, "surprise")}
    lines = [
        form.format(name=name, code=code - 1 + first_code)
        for name, (code, _) in noisy.items()
        if name.startswith("train")
    ]
    path = tmp_path / "noise01.txt"
    path.write_text("\n".join(lines))
    index, dropped = read_rafdb(tmp_path, label_list=path)
    assert labels_of(index) == EXPECTED | {"train_00001": ("train", class_id("surprise"))}
    assert as_dict(dropped) == {}


def test_codes_from_zero_in_another_order_are_refused(tmp_path):
    """Shifted by one, most of them name another expression than the set does."""
    write_set(tmp_path)
    other = {"train_00001": 2, "train_00002": 5, "train_00003": 0, "train_00004": 1}
    path = tmp_path / "other_order.txt"
    path.write_text("\n".join(f"{name}.jpg {code}" for name, code in other.items()))
    with pytest.raises(ValueError, match=r"has codes \[0\]; .*another set's order"):
        read_rafdb(tmp_path, label_list=path)


def test_a_missing_label_list_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no label list .*absent.txt"):
        read_rafdb(write_set(tmp_path), label_list=tmp_path / "absent.txt")


def test_nothing_there_is_described(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere; expected(.|\n)*EmoLabel/"):
        read_rafdb(tmp_path / "nowhere")
    message = r"no label file .*holds nothing; EmoLabel/ does not exist; expected(.|\n)*Image/al"
    with pytest.raises(FileNotFoundError, match=message):
        read_rafdb(tmp_path)


@pytest.mark.parametrize("wrong", ["", "..", "Image", "Image/aligned", "EmoLabel"])
def test_a_root_one_or_two_levels_off_is_named(tmp_path, wrong):
    right = write_set(tmp_path / "RAF-DB" / "basic")
    root = tmp_path if wrong == ".." else right / wrong if wrong else right.parent
    with pytest.raises(FileNotFoundError, match=rf"pass root='{right}'"):
        read_rafdb(root)


def test_a_missing_label_file_is_named_with_what_lies_in_its_place(tmp_path):
    path = write_set(tmp_path) / LABEL_FILE
    path.rename(path.with_name("list_partition_label.txt"))
    message = (
        r"no label file .*list_patition_label.txt; .*EmoLabel/ holds list_partition_label.txt; exp"
    )
    with pytest.raises(FileNotFoundError, match=message):
        read_rafdb(tmp_path)


def test_images_still_in_the_zip_or_a_folder_too_deep_are_named(tmp_path):
    folder = write_set(tmp_path) / "Image/aligned"
    folder.rename(tmp_path / "inner")
    (tmp_path / "Image/aligned.zip").touch()
    message = r"in .*: it does not exist, Image/ holds aligned.zip, original/; unpack aligned.zip"
    with pytest.raises(FileNotFoundError, match=message):
        read_rafdb(tmp_path)
    folder.mkdir()
    (tmp_path / "inner").rename(folder / "aligned")
    message = r"no JPEG or PNG in .*: it holds aligned/, Image/ holds al"
    with pytest.raises(FileNotFoundError, match=message):
        read_rafdb(tmp_path)
    assert len(read_rafdb(tmp_path, aligned=False)[0]) == len(CODES)


@pytest.mark.parametrize("below", ["", "DATASET"])
def test_a_rearranged_copy_is_another_set(tmp_path, below):
    for split, images in (("train", 3), ("test", 1)):
        for code in range(1, 8):
            folder = tmp_path / below / split / str(code)
            folder.mkdir(parents=True)
            for number in range(images):
                (folder / f"{split}_{code}{number}_aligned.jpg").touch()
    (tmp_path / "train_labels.csv").touch()
    message = r"class folders under test/ and train/ with 7 and 21 images: another set than RAF-DB"
    for root in (tmp_path, tmp_path / below / "train"):
        with pytest.raises(FileNotFoundError, match=message):
            read_rafdb(root)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train_00002.jpg 1 0.93", r"line 2 of .* has a third column: 'train_00002.jpg 1 0.93'"),
        ("train_00002.jpg", "line 2 of .* is of another form: .*expected .*'train_00001.jpg 5'"),
        ("train_00002.jpg,1", "line 2 of .* is of another form"),
        ("train_00002.jpg happy", "line 2 of .* is of another form"),
        ("image_00002.jpg 1", "line 2 of .* is of another form"),
        ("train_00001.jpg 1", "line 2 of .* repeats a name: 'train_00001.jpg 1'"),
        ("train_00002.jpg 0", r"has codes \[0\]; .* 1..7, surprise, .*neutral. 0..6 is another"),
        ("train_00002.jpg 11", r"has codes \[11\]; .*the compound set"),
    ],
)
def test_a_label_file_of_another_form_is_described(tmp_path, line, message):
    lines = label_lines()
    write_labels(write_set(tmp_path), [lines[0], line, *lines[2:]])
    with pytest.raises(ValueError, match=message):
        read_rafdb(tmp_path)


def test_an_empty_label_file_is_refused(tmp_path):
    write_labels(write_set(tmp_path), ["", " "])
    with pytest.raises(ValueError, match=r"list_patition_label.txt is empty: download it"):
        read_rafdb(tmp_path)


def test_each_folder_is_scanned_once_and_no_image_is_looked_at(tmp_path, monkeypatch):
    write_set(tmp_path)
    scanned, listdir = [], os.listdir

    def counting_listdir(path):
        scanned.append(os.path.basename(path))
        return listdir(path)

    def refuse(*_):
        raise AssertionError("an aligned image was opened")

    monkeypatch.setattr(os, "listdir", counting_listdir)
    monkeypatch.setattr(Image, "open", refuse)
    assert len(read_rafdb(tmp_path)[0]) == len(CODES)
    assert scanned == ["aligned"]
