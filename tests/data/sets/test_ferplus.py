"""Both layouts on small generated trees; the real set's counts where it is at hand."""

import cv2
import numpy as np
import pandas as pd
import pytest

from nlalib.data.index import VOTE_COLUMNS
from nlalib.data.labels import FERPLUS_COLUMNS, class_id
from nlalib.data.sets.fer2013_table import load_kaggle_images
from nlalib.data.sets.ferplus import read_ferplus, read_ferplus_votes
from nlalib.paths import ROOT

REAL_ROOT = ROOT / "data" / "ferplus"
FOLDER_OF = {
    "Training": "FER2013Train",
    "PublicTest": "FER2013Valid",
    "PrivateTest": "FER2013Test",
}
VOTE_HEADER = list(FERPLUS_COLUMNS)


def votes_for(**counts: int) -> list[int]:
    return [counts.get(name, 0) for name in VOTE_HEADER]


# As published, one row is nameless, one name occurs twice (with other votes), and the number in
# a name is not the row's position.
ROWS = [
    ("Training", "fer0000004.png", votes_for(anger=10)),
    ("Training", "fer0000001.png", votes_for(happiness=9, neutral=1)),
    ("Training", "", votes_for(NF=10)),
    ("Training", "fer0000015.png", votes_for(fear=6, surprise=4)),
    ("Training", "fer0000007.png", votes_for(neutral=5, sadness=5)),
    ("PublicTest", "fer0000010.png", votes_for(contempt=8, neutral=2)),
    ("PublicTest", "fer0000011.png", votes_for(disgust=10)),
    ("PrivateTest", "fer0000020.png", votes_for(neutral=10)),
    ("PrivateTest", "fer0000021.png", votes_for(unknown=7, neutral=3)),
    ("PrivateTest", "fer0000020.png", votes_for(sadness=10)),
]
LABELS = {
    "fer0000001": ("train", "happiness"),
    "fer0000004": ("train", "anger"),
    "fer0000015": ("train", "fear"),
    "fer0000011": ("validation", "disgust"),
    "fer0000020": ("test", "sadness"),  # the later row
}


HEADER = ",".join(["Usage", "Image name", *VOTE_HEADER])


def votes_csv(rows=ROWS, header=HEADER, end="\n") -> str:
    lines = [header] + [f"{usage},{name},{','.join(map(str, v))}" for usage, name, v in rows]
    return end.join(lines) + end


def write_folders(root, rows=ROWS, **options):
    root.mkdir(parents=True, exist_ok=True)
    for folder in FOLDER_OF.values():
        (root / folder).mkdir()
    labels = {folder: {} for folder in FOLDER_OF.values()}
    for usage, name, votes in rows:
        if name:
            folder = FOLDER_OF[usage]
            cv2.imwrite(str(root / folder / name), np.zeros((48, 48), np.uint8))
            labels[folder][name] = f'{name},"(0, 0, 48, 48)",{",".join(map(str, votes))}\n'
    for folder, lines in labels.items():
        (root / folder / "label.csv").write_text("".join(lines.values()))
    (root / "fer2013new.csv").write_bytes(votes_csv(rows, **options).encode())
    return root


def pixels_of(row: int) -> np.ndarray:
    return ((np.arange(48 * 48) * (row + 1)) % 256).astype(np.uint8).reshape(48, 48)


def write_kaggle(root, rows=ROWS, header="emotion,pixels,Usage"):
    root.mkdir(parents=True, exist_ok=True)
    lines = [header]
    for row, (usage, _, _) in enumerate(rows):
        lines.append(f"0,{' '.join(map(str, pixels_of(row).ravel()))},{usage}")
    (root / "fer2013.csv").write_text("\n".join(lines) + "\n")
    (root / "fer2013new.csv").write_text(votes_csv(rows))
    return root


def labels_of(index: pd.DataFrame) -> dict:
    return {row.image_id: (row.split, row.label) for row in index.itertuples()}


def expected_labels() -> dict:
    return {name: (split, class_id(label)) for name, (split, label) in LABELS.items()}


def as_dict(dropped: pd.DataFrame) -> dict:
    assert list(dropped.columns) == ["split", "reason", "images"]
    return {(row.split, row.reason): row.images for row in dropped.itertuples()}


DROPPED_BY_RULE = {
    ("train", "tie"): 1,
    ("validation", "contempt"): 1,
    ("test", "unknown"): 1,
    ("test", "earlier row of a repeated name"): 1,
}


def test_folders_are_joined_on_the_name(tmp_path):
    index, dropped = read_ferplus(write_folders(tmp_path))
    assert labels_of(index) == expected_labels()
    assert list(index["image_id"]) == list(LABELS)
    assert list(index.columns) == ["image_id", "path", "split", "label", *VOTE_COLUMNS]
    assert all((tmp_path / path).is_file() for path in index["path"])
    first = index.set_index("image_id").loc["fer0000001"]
    assert first["path"] == "FER2013Train/fer0000001.png"
    assert (first["votes_happiness"], first["votes_neutral"]) == (9, 1)
    assert first[VOTE_COLUMNS].sum() == 10
    assert as_dict(dropped) == DROPPED_BY_RULE | {("train", "row without an image name"): 1}


def test_every_row_and_file_is_kept_or_counted(tmp_path):
    write_folders(tmp_path)
    for rule in ("majority", "argmax", "more_than_half", "ferplus_paper"):
        for num_classes in (7, 8):
            index, dropped = read_ferplus(tmp_path, rule=rule, num_classes=num_classes)
            assert len(index) + dropped["images"].sum() == len(ROWS)


def test_rule_and_classes_reach_the_labels(tmp_path):
    write_folders(tmp_path)
    index, _ = read_ferplus(tmp_path, num_classes=8)
    assert labels_of(index)["fer0000010"] == ("validation", class_id("contempt"))
    index, dropped = read_ferplus(tmp_path, rule="argmax")
    assert labels_of(index)["fer0000007"] == ("train", class_id("neutral"))
    assert ("train", "tie") not in as_dict(dropped)


VOTES = ("fer2013new", "label")


def test_label_files_are_the_other_source_of_votes(tmp_path):
    write_folders(tmp_path)
    path = tmp_path / "FER2013Train" / "label.csv"
    path.write_text(path.read_text().replace("0,0,0,0,10,0,0,0,0,0", "0,0,10,0,0,0,0,0,0,0"))
    (plain, _), (other, dropped) = (read_ferplus_votes(tmp_path, votes=v) for v in VOTES)
    assert list(other["image_id"]) == list(plain["image_id"])
    changed = other[(other[VOTE_COLUMNS] != plain[VOTE_COLUMNS]).any(axis=1)]
    assert changed["image_id"].tolist() == ["fer0000004"]
    assert changed["votes_surprise"].item() == 10
    assert not dropped["reason"].str.contains("row").any()


def test_other_spellings_of_the_same_files(tmp_path):
    plain, _ = read_ferplus(write_folders(tmp_path / "plain"))
    header = " Usage , Image name," + ", ".join(VOTE_HEADER)
    windows, _ = read_ferplus(write_folders(tmp_path / "windows", header=header, end="\r\n"))
    pd.testing.assert_frame_equal(windows, plain)
    upper = write_folders(tmp_path / "upper")
    old = upper / "FER2013Train" / "fer0000001.png"
    old.rename(old.with_suffix(".PNG"))
    index, _ = read_ferplus(upper)
    assert list(index["image_id"]) == list(plain["image_id"])
    assert index["path"][0] == "FER2013Train/fer0000001.PNG"
    rows = upper / "fer2013new.csv"
    rows.write_text(rows.read_text().replace("fer0000004.png", "FER0000004.PNG"))
    assert list(read_ferplus(upper)[0]["image_id"]) == list(plain["image_id"])


def test_a_missing_file_and_a_missing_row_are_counted(tmp_path):
    write_folders(tmp_path)
    (tmp_path / "FER2013Train" / "fer0000004.png").unlink()
    cv2.imwrite(str(tmp_path / "FER2013Test" / "fer0000099.png"), np.zeros((48, 48), np.uint8))
    index, dropped = read_ferplus(tmp_path)
    assert set(labels_of(index)) == set(LABELS) - {"fer0000004"}
    assert as_dict(dropped) == DROPPED_BY_RULE | {
        ("train", "row without an image name"): 1,
        ("train", "votes without an image"): 1,
        ("test", "image without votes"): 1,
    }


def test_names_that_do_not_match_are_refused(tmp_path):
    write_folders(tmp_path)
    for path in tmp_path.glob("FER2013*/*.png"):
        path.rename(path.with_name(path.name.replace("fer", "image_")))
    with pytest.raises(
        ValueError, match=r"8 images have no votes, first 'image_0000001'.*complete"
    ):
        read_ferplus(tmp_path)


def test_an_image_in_another_split_is_refused(tmp_path):
    write_folders(tmp_path)
    test_image = tmp_path / "FER2013Test" / "fer0000020.png"
    test_image.rename(tmp_path / "FER2013Train" / test_image.name)
    with pytest.raises(ValueError, match=r"FER2013Train/fer0000020.png, .* 'test'.*would mix"):
        read_ferplus(tmp_path)


def test_an_image_in_two_folders_is_refused(tmp_path):
    write_folders(tmp_path)
    copy = tmp_path / "FER2013Train" / "fer0000020.png"
    copy.write_bytes((tmp_path / "FER2013Test" / copy.name).read_bytes())
    with pytest.raises(ValueError, match=r"1 image names .*FER2013T\w+/fer0000020.png and FER"):
        read_ferplus(tmp_path)


@pytest.mark.parametrize("layout", [write_folders, write_kaggle])
def test_a_root_one_level_off_is_named(tmp_path, layout):
    right = layout(tmp_path / "ferplus")
    if layout is write_folders:
        with pytest.raises(FileNotFoundError, match=rf"pass root='{right}'"):
            read_ferplus(right / "FER2013Test")
    with pytest.raises(FileNotFoundError, match=rf"pass root='{right}'"):
        read_ferplus(tmp_path)


def test_a_missing_layout_is_described(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere(.|\n)*FER2013Valid/\*.png"):
        read_ferplus(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"holds nothing; expected"):
        read_ferplus(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "fer2013.csv").touch()
    with pytest.raises(FileNotFoundError, match=r"holds fer2013.csv and no fer2013new.csv"):
        read_ferplus(tmp_path)


def test_missing_and_empty_parts_are_named(tmp_path):
    root = write_folders(tmp_path / "a")
    (root / "fer2013new.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no .*fer2013new.csv"):
        read_ferplus(root)
    (root / "FER2013Valid" / "label.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no .*FER2013Valid.label.csv"):
        read_ferplus_votes(root, votes="label")
    root = write_folders(tmp_path / "b")
    for path in (root / "FER2013Valid").glob("*.png"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"FER2013Valid holds no PNG"):
        read_ferplus(root)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("disgust", "digust", r"lacks the columns \['disgust'\]"),
        ("PublicTest", "Public", r"Usage \['Public'\]; expected one of \['Training'"),
        ("Training,fer0000015.png,0,0,4", "Training,fer0000015.png,0,0,x", "row 3 .*no counts"),
        ("Training,fer0000015.png,0,0,4", "Training,fer0000015.png,0,0,-4", "row 3 .*no counts"),
        ("Training,fer0000015.png,0,0,4", "Training,fer0000015.png,0,0,", "row 3 .*no counts"),
    ],
)
def test_a_broken_votes_file_is_described(tmp_path, old, new, message):
    write_folders(tmp_path)
    text = (tmp_path / "fer2013new.csv").read_text()
    assert old in text
    (tmp_path / "fer2013new.csv").write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=message):
        read_ferplus(tmp_path)


def test_label_file_of_another_form_is_refused(tmp_path):
    write_folders(tmp_path)
    (tmp_path / "FER2013Test" / "label.csv").write_text("fer0000020.png,5\n")
    with pytest.raises(ValueError, match=r"FER2013Test.label.csv has 2 columns; expected 12"):
        read_ferplus_votes(tmp_path, votes="label")


def test_wrong_options_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'both'.*fer2013new, label"):
        read_ferplus_votes(write_folders(tmp_path / "a"), votes="both")
    with pytest.raises(ValueError, match="unknown label rule 'mode'"):
        read_ferplus(tmp_path / "a", rule="mode")
    with pytest.raises(ValueError, match=r"votes='label' needs the folders FER2013Train"):
        read_ferplus_votes(write_kaggle(tmp_path / "b"), votes="label")


def test_both_layouts_give_the_same_index(tmp_path):
    folders, dropped_folders = read_ferplus(write_folders(tmp_path / "folders"), rule="argmax")
    kaggle, dropped = read_ferplus(write_kaggle(tmp_path / "kaggle"), rule="argmax")
    columns = ["image_id", "split", "label", *VOTE_COLUMNS]
    pd.testing.assert_frame_equal(kaggle[columns], folders[columns])
    position = {name.removesuffix(".png"): row for row, (_, name, _) in enumerate(ROWS)}
    assert list(kaggle["path"]) == [f"fer2013.csv#{position[i]}" for i in kaggle["image_id"]]
    # The nameless row has pixels here, and is dropped for what its votes say.
    moved = {
        ("train", "not a face" if r == "row without an image name" else r)
        if s == "train"
        else (s, r): n
        for (s, r), n in as_dict(dropped_folders).items()
    }
    assert as_dict(dropped) == moved


def test_kaggle_row_without_a_name_is_known_by_its_position(tmp_path):
    rows = [*ROWS, ("Training", "", votes_for(surprise=10))]
    index, _ = read_ferplus(write_kaggle(tmp_path, rows))
    row = index.set_index("image_id").loc["row00010"]
    assert (row["path"], row["label"]) == ("fer2013.csv#10", class_id("surprise"))


def test_kaggle_files_that_do_not_correspond_are_refused(tmp_path):
    root = write_kaggle(tmp_path)
    (root / "fer2013new.csv").write_text(votes_csv(ROWS[:-1]))
    with pytest.raises(ValueError, match=r"10 rows and fer2013new.csv 9"):
        read_ferplus(root)
    (root / "fer2013new.csv").write_text(votes_csv(ROWS[::-1]))
    with pytest.raises(ValueError, match=r"differs in 10 rows, first row 0"):
        read_ferplus(root)


@pytest.mark.parametrize("header", ["emotion,pixels,Usage", "emotion, pixels, Usage"])
def test_kaggle_pixels(tmp_path, header):
    path = write_kaggle(tmp_path, header=header) / "fer2013.csv"
    images = load_kaggle_images(path, range(len(ROWS)))
    assert images.shape == (len(ROWS), 48, 48)
    assert images.dtype == np.uint8
    for row, image in enumerate(images):
        np.testing.assert_array_equal(image, pixels_of(row))
    chosen = load_kaggle_images(path, np.array([7, 0, 7]))
    np.testing.assert_array_equal(chosen, images[[7, 0, 7]])
    assert load_kaggle_images(path, np.array([], dtype=int)).shape == (0, 48, 48)
    assert len(read_ferplus(tmp_path)[0]) == len(LABELS)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        ("1 2 3", "row 1 of .* starts with '1 2 3' and has 3 .*expected 2304"),
        (" ".join(["256"] * 2304), r"row 1 .*0\.\.255"),
        (" ".join(["-1"] * 2304), r"row 1 .*0\.\.255"),
        (" ".join(["1"] * 2300 + ["x"] * 4), "row 1 of"),
        ("", "row 1 of"),
    ],
)
def test_broken_kaggle_pixels_are_refused(tmp_path, pixels, message):
    path = write_kaggle(tmp_path, ROWS[:1]) / "fer2013.csv"
    path.write_text(path.read_text() + f"0,{pixels},Training\n")
    with pytest.raises(ValueError, match=message):
        load_kaggle_images(path, [0, 1])


def test_kaggle_requests_out_of_range_are_refused(tmp_path):
    path = write_kaggle(tmp_path, ROWS[:2]) / "fer2013.csv"
    with pytest.raises(ValueError, match=r"has 2 rows, .* there is no \[-1, 2\]"):
        load_kaggle_images(path, [0, 2, -1])
    with pytest.raises(ValueError, match="lacks the column 'pixels'"):
        load_kaggle_images(tmp_path / "fer2013new.csv", [0])


@pytest.mark.skipif(not REAL_ROOT.is_dir(), reason="FERPlus is not in data/ferplus")
@pytest.mark.parametrize(
    ("rule", "train", "validation", "test"),
    [
        ("majority", 26775, 3372, 3349),
        ("argmax", 28221, 3529, 3518),
        ("more_than_half", 21731, 2854, 2720),
        ("ferplus_paper", 24938, 3186, 3136),
    ],
)
def test_counts_of_the_published_set(rule, train, validation, test):
    index, dropped = read_ferplus(REAL_ROOT, rule=rule)
    found = index["split"].value_counts()
    assert (found["train"], found["validation"], found["test"]) == (train, validation, test)
    by_reason = dropped.groupby("reason")["images"].sum()
    assert by_reason["row without an image name"] == 173
    assert by_reason["earlier row of a repeated name"] == 4
    assert len(index) + by_reason.sum() == 35_887
