"""Both releases on small generated trees."""

import numpy as np
import pandas as pd
import pytest

from nlalib.data.labels import class_id
from nlalib.data.sets.affectnet import (
    POINT_COLUMNS,
    affectnet_points,
    read_affectnet,
)

HEADER = (
    "subDirectory_filePath,face_x,face_y,face_width,face_height,"
    "facial_landmarks,expression,valence,arousal"
)
# The set's own words for its codes, as its documentation lists them.
WORDS = ["neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt"]
# (split, name without ending, code); 7 contempt, 8 none, 9 uncertain, 10 no face.
ROWS = [("train", f"{3 + code}/a{code:02d}", code) for code in range(11)]
ROWS += [("test", f"20/b{code:02d}", code) for code in range(11)]
DROPPED = {(s, r): 1 for s in ("train", "test") for r in ("none", "uncertain", "no face")}
CONTEMPT = {("train", "contempt"): 1, ("test", "contempt"): 1}
SETS = {"train": "train_set", "test": "val_set"}


def points_of(number: int) -> np.ndarray:
    """68 points, x and y, different for each image."""
    return np.round(np.random.default_rng(number).uniform(0, 224, (68, 2)), 2)


def five_points_by_loop(points) -> list[float]:
    wanted = [range(36, 42), range(42, 48), [30], [48], [54]]
    return [sum(points[i][axis] for i in ids) / len(ids) for ids in wanted for axis in (0, 1)]


def box_of(number: int) -> list[int]:
    return [number, number + 1, number + 100, number + 101]


def csv_line(number: int, name: str, code) -> str:
    if code == 10:
        return f"{name}.jpg,NULL,NULL,NULL,NULL,NULL,10,-2,-2"
    points = ";".join(map(str, points_of(number).ravel().tolist()))
    return f"{name}.jpg,{','.join(map(str, box_of(number)))},{points},{code},0.1,-0.2"


def write_csv(root, rows=ROWS, *, header=HEADER, end="\n", images="Manually_Annotated_Images"):
    lines = {"train": [HEADER], "test": [header] if header else []}
    for number, (split, name, code) in enumerate(rows):
        lines[split].append(csv_line(number, name, code))
        file = root / images / f"{name}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    for split, name in (("train", "training.csv"), ("test", "validation.csv")):
        (root / name).write_bytes((end.join(lines[split]) + end).encode())
    return root


def write_sets(root, rows=ROWS, *, as_text=True):
    for folder in SETS.values():
        (root / folder / "images").mkdir(parents=True)
        (root / folder / "annotations").mkdir()
    for number, (split, name, code) in enumerate(rows):
        folder, stem = root / SETS[split], name.partition("/")[2]
        (folder / "images" / f"{stem}.jpg").touch()
        start = str(folder / "annotations" / stem)
        np.save(f"{start}_exp.npy", np.array(str(code)) if as_text else np.array(code))
        np.save(f"{start}_lnd.npy", points_of(number).ravel())
        np.save(f"{start}_val.npy", np.array("0.1"))
        np.save(f"{start}_aro.npy", np.array("-0.2"))
    return root


LAYOUTS = [write_csv, write_sets]


def expected_labels(layout, num_classes=7) -> dict:
    labels = {}
    for split, name, code in ROWS:
        if code < num_classes:
            image_id = f"{SETS[split]}/{name.partition('/')[2]}" if layout is write_sets else name
            labels[image_id] = (split, class_id(WORDS[code]))
    return labels


def labels_of(index: pd.DataFrame) -> dict:
    return {row.image_id: (row.split, row.label) for row in index.itertuples()}


def as_dict(dropped: pd.DataFrame) -> dict:
    assert list(dropped.columns) == ["split", "reason", "images"]
    return {(row.split, row.reason): row.images for row in dropped.itertuples()}


def replace_in(path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_releases_give_labels_splits_and_counts(tmp_path, layout):
    layout(tmp_path)
    for num_classes, contempt in ((7, CONTEMPT), (8, {})):
        index, dropped = read_affectnet(tmp_path, num_classes=num_classes)
        assert labels_of(index) == expected_labels(layout, num_classes)
        assert as_dict(dropped) == DROPPED | contempt
        assert list(index.columns) == ["image_id", "path", "split", "label"]
        assert all((tmp_path / path).is_file() for path in index["path"])
        assert list(index["split"].unique()) == ["train", "test"]
        assert index.groupby("split")["image_id"].is_monotonic_increasing.all()
        assert index["label"].dtype == "int64"


def test_paths_are_below_the_root(tmp_path):
    index, _ = read_affectnet(write_csv(tmp_path / "a"))
    assert index["path"].iloc[-1] == "Manually_Annotated_Images/20/b06.jpg"
    nested = "Manually_Annotated/Manually_Annotated_Images"
    index, _ = read_affectnet(write_csv(tmp_path / "b", images=nested))
    assert index["path"].iloc[-1] == f"{nested}/20/b06.jpg"
    index, _ = read_affectnet(write_sets(tmp_path / "c"))
    assert index["path"].iloc[-1] == "val_set/images/b06.jpg"


@pytest.mark.parametrize("num_classes", [6, 9])
def test_other_numbers_of_classes_are_refused(tmp_path, num_classes):
    with pytest.raises(ValueError, match=f"num_classes is {num_classes}"):
        read_affectnet(write_csv(tmp_path), num_classes=num_classes)


def test_points_of_the_csv_release(tmp_path):
    index, _ = read_affectnet(write_csv(tmp_path))
    index = index.iloc[::-2]
    table = affectnet_points(tmp_path, index)
    assert list(table.columns) == ["image_id", *POINT_COLUMNS]
    assert list(table["image_id"]) == list(index["image_id"])
    number_of = {name: number for number, (_, name, _) in enumerate(ROWS)}
    for row in table.itertuples(index=False):
        number = number_of[row[0]]
        np.testing.assert_allclose(row[1:], five_points_by_loop(points_of(number)))


def test_points_of_the_later_release(tmp_path):
    index, _ = read_affectnet(write_sets(tmp_path))
    table = affectnet_points(tmp_path, index)
    assert list(table["image_id"]) == list(index["image_id"])
    number_of = {n.partition("/")[2]: number for number, (_, n, _) in enumerate(ROWS)}
    for row in table.itertuples(index=False):
        points = points_of(number_of[row[0].partition("/")[2]])
        np.testing.assert_allclose(row[1:], five_points_by_loop(points))


def test_points_that_the_set_does_not_give_are_nan(tmp_path):
    root = write_csv(tmp_path / "csv")
    replace_in(root / "validation.csv", csv_line(11, "20/b00", 0), "20/b00.jpg,,,,,NULL,0,0,0")
    table = affectnet_points(root, read_affectnet(root)[0]).set_index("image_id")
    assert table.loc["20/b00"].isna().all()
    assert table.drop("20/b00").notna().all(axis=None)
    root = write_sets(tmp_path / "sets")
    (root / "val_set" / "annotations" / "b00_lnd.npy").unlink()
    table = affectnet_points(root, read_affectnet(root)[0]).set_index("image_id")
    assert table.loc["val_set/b00", POINT_COLUMNS].isna().all()
    assert table.drop("val_set/b00").notna().all(axis=None)


def test_points_of_no_image_are_no_rows(tmp_path):
    for layout in LAYOUTS:
        index, _ = read_affectnet(layout(tmp_path / layout.__name__))
        table = affectnet_points(tmp_path / layout.__name__, index[:0])
        assert list(table.columns) == ["image_id", *POINT_COLUMNS]
        assert table.empty


def test_other_spellings_of_the_same_csv_files(tmp_path):
    plain, _ = read_affectnet(write_csv(tmp_path / "plain"))
    for name, options in {"windows": {"end": "\r\n"}, "no_header": {"header": ""}}.items():
        root = write_csv(tmp_path / name, **options)
        pd.testing.assert_frame_equal(read_affectnet(root)[0], plain)
        points = affectnet_points(root, plain)
        expected = affectnet_points(tmp_path / "plain", plain)
        pd.testing.assert_frame_equal(points, expected)
    root = write_csv(tmp_path / "spaces", header=HEADER.replace(",", " , "))
    path = root / "validation.csv"
    path.write_text("\ufeff" + path.read_text(), encoding="utf-8")
    replace_in(root / "training.csv", "3/a00.jpg,", "3\\a00.JPG , ")
    replace_in(root / "training.csv", ",1,0.1", ", 1 ,0.1")
    pd.testing.assert_frame_equal(read_affectnet(root)[0], plain)
    np.testing.assert_array_equal(affectnet_points(root, plain), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_upper_case_endings_are_found(tmp_path, layout):
    plain, _ = read_affectnet(layout(tmp_path))
    for path in list(tmp_path.rglob("b0*.jpg")):
        path.rename(path.with_suffix(".JPG"))
    index, _ = read_affectnet(tmp_path)
    assert list(index["image_id"]) == list(plain["image_id"])
    assert index["path"].str.endswith(".JPG").sum() == 7
    assert all((tmp_path / path).is_file() for path in index["path"])


def test_expressions_may_be_kept_as_numbers(tmp_path):
    as_text, _ = read_affectnet(write_sets(tmp_path / "text"))
    as_numbers, _ = read_affectnet(write_sets(tmp_path / "numbers", as_text=False))
    pd.testing.assert_frame_equal(as_numbers, as_text)


def test_machine_labels_are_not_read(tmp_path):
    plain, _ = read_affectnet(write_csv(tmp_path))
    (tmp_path / "automatically_annotated.csv").write_text(f"{HEADER}\n{csv_line(0, '3/a00', 6)}\n")
    pd.testing.assert_frame_equal(read_affectnet(tmp_path)[0], plain)
    for name in ("training.csv", "validation.csv"):
        (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"holds .*automatically_annotated.csv.*; expected"):
        read_affectnet(tmp_path)


def test_an_image_listed_twice_is_counted_and_stays_out_of_training(tmp_path):
    twice = [("train", "20/b01", 3), ("test", "20/b02", 6)]
    index, dropped = read_affectnet(write_csv(tmp_path, [*ROWS, *twice]))
    assert labels_of(index) == expected_labels(write_csv)
    repeated = {("train", "listed before"): 1, ("test", "listed before"): 1}
    assert as_dict(dropped) == DROPPED | CONTEMPT | repeated


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_few_missing_images_are_counted(tmp_path, layout):
    layout(tmp_path)
    # An image without an expression is dropped for that, whether it is there or not.
    for name in ("a01.jpg", "b02.jpg", "b10.jpg"):
        next(tmp_path.rglob(name)).unlink()
    index, dropped = read_affectnet(tmp_path)
    stems = {image_id.partition("/")[2] for image_id in index["image_id"]}
    assert stems == {f"{s}{c:02d}" for s in "ab" for c in range(7)} - {"a01", "b02"}
    missing = {(split, "listed without a file"): 1 for split in ("train", "test")}
    assert as_dict(dropped) == DROPPED | CONTEMPT | missing


def test_a_few_images_without_a_label_are_counted(tmp_path):
    write_sets(tmp_path)
    (tmp_path / "train_set" / "annotations" / "a03_exp.npy").unlink()
    index, dropped = read_affectnet(tmp_path)
    assert "train_set/a03" not in set(index["image_id"])
    assert as_dict(dropped) == DROPPED | CONTEMPT | {("train", "image without a label"): 1}


MANY = [("train", f"1/c{number:03d}", number % 7) for number in range(700)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_more_than_one_in_a_hundred_missing_is_refused(tmp_path, layout):
    layout(tmp_path, [*MANY, *ROWS])
    for number in range(7):
        next(tmp_path.rglob(f"c{number:03d}.jpg")).unlink()
    assert as_dict(read_affectnet(tmp_path)[1])["train", "listed without a file"] == 7
    next(tmp_path.rglob("c007.jpg")).unlink()
    with pytest.raises(
        ValueError, match=r"'train': 8 of 707 .*without a file', first \w+/c000; .*un"
    ):
        read_affectnet(tmp_path)


def test_a_missing_numbered_folder_is_refused(tmp_path):
    folder = write_csv(tmp_path) / "Manually_Annotated_Images" / "20"
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"'test': 7 of 7 .*first 20/b00; .*not wholly unpacked"):
        read_affectnet(tmp_path)


def test_too_many_images_without_a_label_are_refused(tmp_path):
    write_sets(tmp_path)
    for code in range(6):
        (tmp_path / "val_set" / "annotations" / f"b{code:02d}_exp.npy").unlink()
    with pytest.raises(ValueError, match=r"'test': 6 of 7 .*without a label', first val_set/b00"):
        read_affectnet(tmp_path)


def test_a_missing_layout_is_described(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere/at_all; expected either"):
        read_affectnet(tmp_path / "nowhere" / "at_all")
    with pytest.raises(FileNotFoundError, match=r"holds nothing; (.|\n)*validation.csv(.|\n)*val_"):
        read_affectnet(tmp_path)
    (tmp_path / "photos").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds photos/; "):
        read_affectnet(tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_root_some_levels_off_is_named(tmp_path, layout):
    right = layout(tmp_path / "affectnet")
    inside = "Manually_Annotated_Images" if layout is write_csv else "train_set/images"
    for wrong in (tmp_path, right / inside):
        with pytest.raises(FileNotFoundError, match=rf"pass root='{right}'$"):
            read_affectnet(wrong)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_missing_half_is_named(tmp_path, layout):
    layout(tmp_path)
    half = "validation.csv" if layout is write_csv else "val_set"
    (tmp_path / half).rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=rf"lacks {half}: unpack"):
        read_affectnet(tmp_path)


def test_a_missing_folder_of_images_is_named(tmp_path):
    write_csv(tmp_path / "a", images="pictures")
    with pytest.raises(FileNotFoundError, match=r"no images in Manually_Annotated_Im.*unpack them"):
        read_affectnet(tmp_path / "a")
    images = write_sets(tmp_path / "b") / "val_set" / "images"
    images.rename(tmp_path / "b" / "pictures")
    with pytest.raises(ValueError, match=r"'test': 7 of 7 .*without a file'"):
        read_affectnet(tmp_path / "b")


def test_annotations_without_expressions_are_named(tmp_path):
    for path in (write_sets(tmp_path) / "train_set" / "annotations").glob("*_exp.npy"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"train_set/annotations holds no \*_exp.npy"):
        read_affectnet(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            ",expression,",
            ",emotion,",
            r"training.csv lacks the columns \['expression'\]; .*emotion",
        ),
        (HEADER, "", r"training.csv lacks the columns .*first line is ''"),
        (",6,0.1", ",11,0.1", r"1 expressions in .*training.csv .* 0..10, first '11' of 9/a06"),
        (",6,0.1", ",anger,0.1", r"0..10, first 'anger' of 9/a06"),
        (",6,0.1", ",,0.1", r"0..10, first nan of 9/a06"),
        (",6,0.1", ",5.5,0.1", r"0..10, first '5.5' of 9/a06"),
    ],
)
def test_a_broken_csv_file_is_described(tmp_path, old, new, message):
    replace_in(write_csv(tmp_path) / "training.csv", old, new)
    with pytest.raises(ValueError, match=message):
        read_affectnet(tmp_path)


def test_landmarks_that_are_not_68_points_are_refused(tmp_path):
    index, _ = read_affectnet(write_csv(tmp_path / "a"))
    first = ";".join(map(str, points_of(0).ravel().tolist()))
    replace_in(tmp_path / "a" / "training.csv", first, "1.0;2.0")
    with pytest.raises(
        ValueError, match=r"landmarks of 3/a00, '1.0;2.0' .* 2 numbers, expected 68"
    ):
        affectnet_points(tmp_path / "a", index)
    replace_in(tmp_path / "a" / "training.csv", "1.0;2.0", f"{first};x")
    with pytest.raises(ValueError, match="landmarks of 3/a00"):
        affectnet_points(tmp_path / "a", index)
    index, _ = read_affectnet(write_sets(tmp_path / "b"))
    np.save(tmp_path / "b" / "val_set" / "annotations" / "b03_lnd.npy", np.zeros(10))
    with pytest.raises(ValueError, match=r"b03_lnd.npy cannot be read.* 10 numbers, expected 68"):
        affectnet_points(tmp_path / "b", index)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array("11"), r"1 expressions in .* 0..10, first '11' of val_set/b03"),
        (np.array(["1", "2"]), r"b03_exp.npy cannot be read, unpack it again"),
        (np.array({"pickled": 1}), r"b03_exp.npy cannot be read.*allow_pickle=False"),
        (None, r"b03_exp.npy cannot be read.*EOF"),
    ],
)
def test_a_broken_expression_file_is_described(tmp_path, value, message):
    path = write_sets(tmp_path) / "val_set" / "annotations" / "b03_exp.npy"
    if value is None:
        path.write_bytes(b"")
    else:
        np.save(path, value)
    with pytest.raises(ValueError, match=message):
        read_affectnet(tmp_path)
