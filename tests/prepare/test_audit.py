"""The audit on small trees in the official layouts, sound and spoilt in each usual way."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from made_sets import (
    COUNTS,
    OF_FOLDER,
    TEST,
    TRAIN,
    file_of,
    picture,
    write_affectnet,
    write_affectnet_2017,
    write_ferplus,
    write_rafdb,
)
from nlalib.data.decoding import ImageReader, UndecodableImage
from nlalib.data.index import SPLITS
from nlalib.data.labels import BASIC_EXPRESSIONS
from nlalib.data.sets import SETS
from nlalib.data.sets.affectnet import COUNTS as AFFECTNET_COUNTS
from nlalib.data.sets.affectnet import AffectNet
from nlalib.data.sets.base import Published
from nlalib.data.sets.ferplus import COUNTS as FERPLUS_COUNTS
from nlalib.data.sets.ferplus import IMAGES, ROWS
from nlalib.data.sets.rafdb import COUNTS as RAFDB_COUNTS
from nlalib.data.sets.rafdb import LABEL_FILE, RAFDB
from nlalib.files import CLOSED
from nlalib.prepare.audit import audit_dataset, format_audit, main
from nlalib.prepare.deviations import CLASS_ORDERS, count_deviations

WRITERS = {
    "rafdb": [write_rafdb],
    "affectnet": [write_affectnet, write_affectnet_2017],
    "ferplus": [write_ferplus],
}
LAYOUTS = [(name, write) for name, writers in WRITERS.items() for write in writers]


@pytest.fixture(autouse=True)
def _small_sets(monkeypatch):
    """Let the small trees be what was published."""
    counts = {**COUNTS, "validation": TEST}
    rows = {split: sum(of.values()) for split, of in counts.items()}
    small = {
        "rafdb": Published(COUNTS, "small", size=(16, 16)),
        "affectnet": Published(COUNTS, "small"),
        "ferplus": Published(counts, "small", size=(48, 48), others={"rows of votes": rows}),
    }
    for name, published in small.items():
        monkeypatch.setattr(SETS[name], "published", published)


def test_published_counts_are_the_papers():
    def totals(counts):
        return {split: sum(of.values()) for split, of in counts.items()}

    assert totals(RAFDB.published.counts) == {"train": 12_271, "test": 3_068}
    assert totals(AffectNet.published.counts) == {"train": 283_901, "test": 3_500}
    assert totals(AFFECTNET_COUNTS) == {"train": 287_651, "test": 4_000}
    assert (ROWS["train"], ROWS["test"]) == (28_709, 3_589)
    assert RAFDB_COUNTS["train"]["fear"] == 281
    assert all(sum(FERPLUS_COUNTS[split].values()) < IMAGES[split] for split in SPLITS)


@pytest.mark.parametrize(("dataset", "write"), LAYOUTS)
def test_an_official_layout_fits(tmp_path, dataset, write):
    found = audit_dataset(dataset, write(tmp_path))
    assert found["deviations"] == []
    assert found["verdict"] == "fits"
    train = [one for one in found["counts"] if one["split"] == "train"]
    assert {one["expression"]: one["found"] for one in train}.items() >= TRAIN.items()
    assert found["leaked_test_images"] == {"exact": [], "exact_or_near": []}
    assert "verdict: fits" in format_audit(found)
    assert json.loads(json.dumps(found)) == found


def write_kaggle(root):
    """Turn a tree of FERPlus's folders into Kaggle's table; one more row has no name."""
    write_ferplus(root)
    votes = (root / "fer2013new.csv").read_text().splitlines()
    votes.insert(4, "Training,,0,0,0,0,0,0,0,0,0,10")
    lines = ["emotion,pixels,Usage"]
    for line in votes[1:]:
        usage, name, *_ = line.split(",")
        path = next(root.rglob(name)) if name else None
        pixels = np.asarray(Image.open(path) if path else picture(999, 48)).ravel()
        lines.append(f"0,{' '.join(map(str, pixels))},{usage}")
    for folder in OF_FOLDER.values():
        shutil.rmtree(root / folder)
    (root / "fer2013.csv").write_text("\n".join(lines) + "\n")
    (root / "fer2013new.csv").write_text("\n".join(votes) + "\n")
    return root


def test_both_layouts_of_ferplus_are_the_same_set(tmp_path, monkeypatch):
    folders = audit_dataset("ferplus", write_ferplus(tmp_path / "folders"))
    rows = {"train": 101, "validation": 30, "test": 30}
    known = replace(
        SETS["ferplus"].published,
        dropped={"row without an image name": 1},
        others={"rows of votes": rows},
    )
    kaggle = audit_dataset("ferplus", write_kaggle(tmp_path / "kaggle"), expected=known)
    assert kaggle["deviations"] == []
    assert kaggle["digest"] == folders["digest"]


@pytest.mark.parametrize(("dataset", "write"), LAYOUTS)
def test_a_swapped_class_map_is_caught_and_named(tmp_path, dataset, write):
    own = list(SETS[dataset].order)[:7]
    swap = [{"fear": "anger", "anger": "fear"}.get(name, name) for name in own]
    found = audit_dataset(dataset, write(tmp_path, order=swap))
    assert found["verdict"] == "differs"
    assert any("class map is swapped" in text for text in found["deviations"])
    assert any("anger has the count of fear" in text for text in found["deviations"])


@pytest.mark.parametrize(("dataset", "write"), LAYOUTS)
@pytest.mark.parametrize("other", ["RAF-DB", "FER2013", "AffectNet", "folders sorted by name"])
def test_the_class_order_of_another_set_is_named(tmp_path, dataset, write, other):
    order = CLASS_ORDERS[other]
    if order == tuple(SETS[dataset].order)[:7]:
        pytest.skip("the set's own order")
    found = audit_dataset(dataset, write(tmp_path, order=order))
    assert any(text.startswith("train: ") and other in text for text in found["deviations"])


@pytest.mark.parametrize(("dataset", "write"), LAYOUTS)
def test_a_missing_tenth_is_caught(tmp_path, dataset, write):
    write(tmp_path)
    files = sorted(path for end in ("jpg", "png") for path in tmp_path.rglob(f"*.{end}"))
    for path in files[::10]:
        path.unlink()
    found = audit_dataset(dataset, tmp_path)
    assert found["verdict"] == "cannot be read"
    assert len(found["deviations"]) == 1
    assert any(word in found["deviations"][0] for word in ("unpack", "complete"))
    assert "verdict: cannot be read" in format_audit(found)


def test_one_missing_file_is_caught_too(tmp_path):
    next(write_rafdb(tmp_path).rglob("train_00003_*")).unlink()
    found = audit_dataset("rafdb", tmp_path)
    assert found["verdict"] == "differs"
    text = " ".join(found["deviations"])
    assert "train: 99 images, expected 100: files or lines are missing" in text
    assert "surprise 11 (not 12): images are missing" in text
    assert "1 x 'listed without a file'" in text


@pytest.mark.parametrize(("dataset", "write"), LAYOUTS)
def test_a_leaked_test_image_is_caught(tmp_path, dataset, write):
    write(tmp_path)
    # The first test image, surprise, takes the place of a training image, disgust.
    shutil.copy(file_of(tmp_path, 100), file_of(tmp_path, 20))
    found = audit_dataset(dataset, tmp_path)
    assert found["verdict"] == "differs"
    (text,) = found["deviations"]
    assert text.startswith("1 test images are identical, pixel by pixel, to training images")
    assert "copied into the training folder" in text
    (leaked,) = found["leaked_test_images"]["exact"]
    assert leaked.endswith("100")
    assert found["leaked_test_images"]["exact_or_near"] == [leaked]
    assert found["label_conflicts"] == 1


def test_fewer_twins_than_published_are_told(tmp_path):
    known = Published(COUNTS, "small", twins_in_train={"test": 2})
    (text,) = audit_dataset("rafdb", write_rafdb(tmp_path), expected=known)["deviations"]
    assert text.startswith("0 test images")
    assert "duplicates were taken out" in text


def test_broken_and_resized_files_are_caught(tmp_path):
    write_rafdb(tmp_path)
    files = sorted((tmp_path / "Image/aligned").iterdir())
    files[0].write_bytes(files[0].read_bytes()[:100])
    files[1].write_bytes(b"")
    picture(2, 20).save(files[2], "PNG")
    found = audit_dataset("rafdb", tmp_path)
    assert [one["path"] for one in found["undecodable"]] == [
        f"Image/aligned/{path.name}" for path in files[:2]
    ]
    text = " ".join(found["deviations"])
    assert f"2 images do not decode, first Image/aligned/{files[0].name}" in text
    assert "1 images are not 16 x 16 pixels, most of them 20 x 20: a copy that was resized" in text
    assert found["sizes"][0] == {"width": 16, "height": 16, "images": 127}


def test_digest_follows_pixels_and_labels_only(tmp_path):
    first = audit_dataset("rafdb", write_rafdb(tmp_path / "a"))["digest"]
    assert audit_dataset("rafdb", write_rafdb(tmp_path / "b"))["digest"] == first
    picture(999).save(next((tmp_path / "b").rglob("train_00003_*")), "PNG")
    changed = audit_dataset("rafdb", tmp_path / "b")["digest"]
    assert changed["labels"] == first["labels"]
    assert changed["pixels"] != first["pixels"]


@pytest.mark.parametrize("dataset", WRITERS)
def test_usual_downloads_get_a_message_of_their_own(tmp_path, dataset):
    write = WRITERS[dataset][0]
    (nested,) = audit_dataset(dataset, write(tmp_path / "nested/set").parent)["deviations"]
    assert f"pass root='{tmp_path / 'nested/set'}'" in nested or "nested/set" in nested
    copy = tmp_path / "copy"
    for split, images in (("train", 3), ("test", 1)):
        for name in BASIC_EXPRESSIONS:
            (copy / split / name).mkdir(parents=True)
            for number in range(images):
                (copy / split / name / f"{number}.jpg").touch()
    (rearranged,) = audit_dataset(dataset, copy)["deviations"]
    assert "class folders under test/ and train/ with 7 and 21 images" in rearranged
    (nothing,) = audit_dataset(dataset, tmp_path / "nowhere")["deviations"]
    assert len({nested, rearranged, nothing}) == 3


def test_a_third_column_gets_a_message_of_its_own(tmp_path):
    path = write_rafdb(tmp_path) / LABEL_FILE
    path.write_text(path.read_text().replace(" 1\n", " 1 0.93\n"))
    (text,) = audit_dataset("rafdb", tmp_path)["deviations"]
    assert "has a third column" in text


def counts_of(found: dict[str, int], expected=TRAIN) -> pd.DataFrame:
    rows = [("train", name, n, found.get(name, n)) for name, n in expected.items()]
    totals = ("train", "all images", sum(expected.values()), sum(row[3] for row in rows))
    return pd.DataFrame([*rows, totals], columns=["split", "expression", "expected", "found"])


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        ({"fear": 0, "anger": 10}, "no image of fear: other codes"),
        ({"happiness": 25, "sadness": 23}, "a noisy or a corrected label list"),
        ({"happiness": 300}, "a merged or augmented copy"),
        ({"neutral": 12_175 - 78}, "a copy of RAF-DB that others aligned again"),
        (dict.fromkeys(TRAIN, 0), "the whole split is missing"),
    ],
)
def test_each_cause_has_its_words(found, cause):
    assert any(cause in text for text in count_deviations(counts_of(found), BASIC_EXPRESSIONS))


def test_counts_that_agree_need_no_words():
    assert count_deviations(counts_of({}), BASIC_EXPRESSIONS) == []


def test_command_prints_writes_and_exits_by_the_verdict(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "runs"))
    write_rafdb(tmp_path / "set")
    assert main(["rafdb", "--root", str(tmp_path / "set")]) == 0
    assert "verdict: fits" in capsys.readouterr().out
    report = tmp_path / "runs/audit-rafdb.json"
    assert json.loads(report.read_text())["verdict"] == "fits"
    assert main(["rafdb", "--root", str(tmp_path / "nowhere")]) == 1
    assert "there is no folder" in capsys.readouterr().out
    assert json.loads(report.read_text())["verdict"] == "cannot be read"
    assert [path.name for path in report.parent.iterdir()] == [report.name]
    with pytest.raises(ValueError, match="unknown data set 'raf'"):
        audit_dataset("raf", tmp_path)


def test_verdict_is_told_although_the_report_cannot_be_kept(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "file" / "runs"))
    assert main(["rafdb", "--root", str(write_rafdb(tmp_path / "set"))]) == 0
    told = capsys.readouterr()
    assert told.out.rstrip().endswith("verdict: fits")
    assert "the report is not kept: " in told.err
    assert "name a folder on another disk by NLA_RUNS" in told.err


def test_a_list_that_may_not_be_read_is_one_line_with_the_remedy(tmp_path, monkeypatch, capsys):
    """Raised in place of the system, which lets an administrator read everything."""
    path = write_rafdb(tmp_path / "set") / LABEL_FILE

    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.read_text", refuse)
    found = audit_dataset("rafdb", tmp_path / "set")
    assert found["verdict"] == "cannot be read"
    assert found["deviations"] == [f"{path} is {CLOSED}"]


def test_closed_images_are_not_said_to_be_cut_short(tmp_path, monkeypatch):
    root = write_rafdb(tmp_path / "set")

    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("nlalib.data.decoding.open_image", refuse)
    found = audit_dataset("rafdb", root)
    told = [text for text in found["deviations"] if CLOSED in text]
    assert len(told) == 1
    assert f"{len(list(root.rglob('*.jpg'))):,} images, first " in told[0]
    assert not any("do not decode" in text for text in found["deviations"])
    with pytest.raises(UndecodableImage, match=f"a.jpg in {root} is closed to this user"):
        ImageReader(root, ["a.jpg"], 48).read("a.jpg")
