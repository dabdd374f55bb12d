"""Sets as people have them: read, or refused with the cause and a step that works."""

import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from made_sets import (
    COUNTS,
    OF_FOLDER,
    write_affectnet,
    write_affectnet_2017,
    write_ferplus,
    write_rafdb,
)
from nlalib.data.choice import DataChoice
from nlalib.data.pixels import image_array
from nlalib.data.sets import SETS
from nlalib.data.sets.rafdb import LABEL_FILE
from nlalib.data.splits import load_dataset
from nlalib.prepare.align_faces import align_set

WRITERS = {
    "ferplus": write_ferplus,
    "rafdb": write_rafdb,
    "affectnet": write_affectnet,
    "affectnet 2017": write_affectnet_2017,
}


def choice(kind: str, root, **changes) -> DataChoice:
    every = {"train_images": 0, "test_images": 0, "held_out": 0.4}
    return DataChoice(**{**every, "dataset": kind.split()[0], "data_root": str(root), **changes})


def index_of(kind: str, root) -> pd.DataFrame:
    index, _ = SETS[kind.split()[0]].read(choice(kind, root))
    return index.sort_values("image_id", ignore_index=True)


def to_ship(root):
    """Put AffectNet of 2017 in order as its archives unpack."""
    (root / "Manually_Annotated_file_lists").mkdir()
    for name in ("training.csv", "validation.csv"):
        (root / name).rename(root / "Manually_Annotated_file_lists" / name)
    return root


def test_affectnet_of_2017_is_read_as_it_ships(tmp_path):
    flat = index_of("affectnet 2017", write_affectnet_2017(tmp_path / "flat"))
    root = to_ship(write_affectnet_2017(tmp_path / "as it ships"))
    pd.testing.assert_frame_equal(index_of("affectnet 2017", root), flat)
    lists, images = root / "Manually_Annotated_file_lists", root / "Manually_Annotated_Images"
    for wrong in (lists, images, tmp_path / "as it ships" / "Manually_Annotated_Images" / "1"):
        with pytest.raises(FileNotFoundError) as told:
            index_of("affectnet 2017", wrong)
        named = str(told.value).split("pass root='")[1].split("'")[0]
        pd.testing.assert_frame_equal(index_of("affectnet 2017", named), flat)
    aligned = tmp_path / "aligned"
    align_set("affectnet", root, aligned, size=16)
    assert len(index_of("affectnet 2017", aligned)) == len(flat)
    (lists / "validation.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks Manually_.*/validation\.csv: unpack"):
        index_of("affectnet 2017", root)


def to_kaggle(root, name="fer2013.csv", header="emotion,pixels,Usage"):
    """Turn FERPlus's folders into Kaggle's table."""
    lines = [header]
    for line in (root / "fer2013new.csv").read_text().splitlines()[1:]:
        usage, image, *_ = line.split(",")
        pixels = " ".join(map(str, np.asarray(Image.open(next(root.rglob(image)))).ravel()))
        cells = {"emotion": "0", "pixels": pixels, "Usage": usage}
        lines.append(",".join(cells[column.strip()] for column in header.split(",")))
    for folder in OF_FOLDER.values():
        shutil.rmtree(root / folder)
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize("name", ["icml_face_data.csv", "fer2013/fer2013.csv"])
def test_kaggles_other_names_of_the_table_are_read(tmp_path, name, monkeypatch):
    monkeypatch.setenv("NLA_CACHE", str(tmp_path / "cache"))
    folders = index_of("ferplus", write_ferplus(tmp_path / "folders"))
    root = to_kaggle(write_ferplus(tmp_path / "table"), name, "emotion, Usage, pixels")
    index = index_of("ferplus", root)
    pd.testing.assert_frame_equal(index.drop(columns="path"), folders.drop(columns="path"))
    images = [
        image_array(of, root=at, size=48)
        for of, at in ((index, root), (folders, tmp_path / "folders"))
    ]
    assert np.array_equal(*images)


def test_the_training_part_alone_is_no_table(tmp_path):
    root = to_kaggle(write_ferplus(tmp_path), "train.csv")
    with pytest.raises(FileNotFoundError, match=r"holds train\.csv, the challenge's training part"):
        index_of("ferplus", root)


@pytest.mark.parametrize("kind", WRITERS)
def test_what_macos_puts_into_archives_is_left_alone(tmp_path, kind):
    root = WRITERS[kind](tmp_path)
    clean = index_of(kind, root)
    for path in [path for path in root.rglob("*") if path.is_file()]:
        (path.parent / f"._{path.name}").write_bytes(b"\0\5\26\7" + bytes(80))
    pd.testing.assert_frame_equal(index_of(kind, root), clean)


@pytest.mark.parametrize("kind", ["rafdb", "affectnet", "affectnet 2017"])
def test_a_release_of_png_files_is_read(tmp_path, kind):
    root = WRITERS[kind](tmp_path)
    clean = index_of(kind, root)
    for path in list(root.rglob("*.jpg")):
        path.rename(path.with_suffix(".png"))
    found = index_of(kind, root)
    assert found["path"].str.endswith(".png").all()
    pd.testing.assert_frame_equal(found.drop(columns="path"), clean.drop(columns="path"))


def test_another_kind_of_file_is_named(tmp_path):
    root = write_affectnet(tmp_path)
    for path in list(root.rglob("*.jpg")):
        path.rename(path.with_suffix(".webp"))
    with pytest.raises(ValueError, match=r"train_set/images holds files that end in \.webp"):
        index_of("affectnet", root)


LISTS = {
    "ferplus": "fer2013new.csv",
    "rafdb": LABEL_FILE,
    "affectnet 2017": "training.csv",
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_in_utf_16_are_read(tmp_path, kind):
    root = WRITERS[kind](tmp_path)
    clean, path = index_of(kind, root), root / LISTS[kind]
    path.write_text(path.read_text(), encoding="utf-16")
    pd.testing.assert_frame_equal(index_of(kind, root), clean)


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize(
    ("content", "cause"),
    [("", "is empty"), ("\n \n", "is empty"), ("<!DOCTYPE html><html></html>", "is a web page")],
)
def test_lists_that_are_none_are_named_with_the_cause(tmp_path, kind, content, cause):
    root = WRITERS[kind](tmp_path)
    (root / LISTS[kind]).write_text(content)
    with pytest.raises(ValueError, match=rf"{LISTS[kind]} {cause}.*download"):
        index_of(kind, root)


def test_a_missing_list_of_noisy_labels_is_named(tmp_path):
    root = write_rafdb(tmp_path / "set")
    with pytest.raises(FileNotFoundError, match=r"no label list .*noisy\.txt"):
        SETS["rafdb"].read(choice("rafdb", root, label_file=str(tmp_path / "noisy.txt")))


@pytest.mark.parametrize("kind", ["ferplus", "rafdb", "affectnet 2017"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_set_without_one_of_its_parts_is_told(tmp_path, kind, split):
    if kind == "affectnet 2017":
        root = WRITERS[kind](tmp_path)
        path = root / {"train": "training.csv", "test": "validation.csv"}[split]
        path.write_text(path.read_text().splitlines()[0] + "\n")
    else:
        counts = {name: of for name, of in COUNTS.items() if name != split}
        root = WRITERS[kind](
            tmp_path, {**counts, "validation": {"fear": 1}} if kind == "ferplus" else counts
        )
        if kind == "ferplus":
            Image.new("L", (48, 48)).save(root / OF_FOLDER[split] / "fer9999999.png")
    with pytest.raises(ValueError, match=rf"has no image of the split '{split}'"):
        load_dataset(choice(kind, root))


def with_votes(root, change):
    """Write the votes anew, each row of ten as `change` makes it."""
    path = root / "fer2013new.csv"
    header, *lines = path.read_text().splitlines()
    changed = []
    for line in lines:
        usage, name, *votes = line.split(",")
        changed.append(",".join([usage, name, *map(str, change([int(vote) for vote in votes]))]))
    path.write_text("\n".join([header, *changed]) + "\n")
    return root


def test_votes_as_shares_are_no_counts(tmp_path):
    root = with_votes(write_ferplus(tmp_path), lambda votes: [vote / 10 + 0.05 for vote in votes])
    with pytest.raises(ValueError, match=r"row 0 of .*new\.csv has votes that are no counts"):
        index_of("ferplus", root)


def test_votes_all_for_unknown_are_told_by_reason(tmp_path):
    root = with_votes(write_ferplus(tmp_path), lambda votes: [0] * 8 + [sum(votes), 0])
    with pytest.raises(ValueError, match=r"no image .* rule 'argmax': \{'unknown': \d+\}"):
        index_of("ferplus", root)


def test_paths_with_spaces_and_other_letters(tmp_path, monkeypatch):
    monkeypatch.setenv("NLA_CACHE", str(tmp_path / "decodé images"))
    for kind, write in WRITERS.items():
        index, _ = load_dataset(choice(kind, write(tmp_path / "déjà vu" / kind)))
        images = image_array(index, root=tmp_path / "déjà vu" / kind, size=16)
        assert images.shape == (len(index), 16, 16, 3)
