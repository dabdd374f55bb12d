"""Whole sets, aligned: each image is there and accounted for, and a run reads the result."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from nlalib.__main__ import main
from nlalib.data.choice import alignment_settings
from nlalib.data.decoding import ImageReader, UndecodableImage
from nlalib.data.index import LANDMARK_COLUMNS
from nlalib.data.labels import FERPLUS_COLUMNS
from nlalib.data.pixels import image_array
from nlalib.data.sets.affectnet import read_affectnet
from nlalib.data.sets.affectnet_files import CSV_COLUMNS
from nlalib.data.sets.ferplus import FOLDERS, read_ferplus
from nlalib.data.sets.rafdb import read_rafdb
from nlalib.data.sets.rendered import render_face, rendered_index
from nlalib.data.splits import load_dataset
from nlalib.files import CLOSED
from nlalib.prepare import aligned_images
from nlalib.prepare.align_faces import align_set
from nlalib.prepare.aligned_images import (
    FAILED,
    FALLBACK,
    NO_FACE,
    NO_FILE,
    NO_LANDMARKS,
    NO_TRIANGLE,
    REPORT_FILE,
    UNDECODABLE,
    align_images,
    whole_image,
)
from nlalib.prepare.alignment import align_face
from nlalib.training.config import RunConfig

SIZE = 48


@pytest.fixture(scope="module")
def faces():
    return rendered_index(train=30, test=12, seed=7)


def write_image(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def write_ferplus(root, faces):
    """FERPlus' folders with drawn faces, four of each class in training; no votes for one face."""
    rows = []
    for number, face in enumerate(faces["path"]):
        split = "train" if number < 28 else "test" if number < 40 else "validation"
        usage = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}[split]
        name = f"fer{number:07d}.png"
        write_image(root / FOLDERS[split] / name, render_face(face, 64))
        votes = [0] * len(FERPLUS_COLUMNS)
        votes[number % 7 if number != 41 else -1] = 10  # the last column: not a face
        rows.append(",".join(map(str, [usage, name, *votes])))
    header = ",".join(["Usage", "Image name", *FERPLUS_COLUMNS])
    (root / "fer2013new.csv").write_text("\n".join([header, *rows]) + "\n")
    return root


def write_rafdb(root, faces):
    """RAF-DB's tree with drawn faces as original photographs, and their landmarks."""
    lines = []
    for number, row in enumerate(faces.itertuples()):
        name = f"{'train' if number < 28 else 'test'}_{number:05d}"
        write_image(root / "Image/original" / f"{name}.jpg", render_face(row.path, 96))
        points = np.array([getattr(row, column) for column in LANDMARK_COLUMNS]).reshape(5, 2)
        path = root / "Annotation/manual" / f"{name}_manu_attri.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(f"{x:.4f} {y:.4f}" for x, y in points * 96) + "\n0\n0\n0\n")
        lines.append(f"{name}.jpg {number % 7 + 1}")
    (root / "EmoLabel").mkdir()
    (root / "EmoLabel/list_patition_label.txt").write_text("\n".join(lines) + "\n")
    return root


def same_images(first, second, columns=("image_id", "path", "split", "label")):
    pd.testing.assert_frame_equal(first[list(columns)], second[list(columns)])


def test_images_are_the_ones_that_align_face_gives(faces, tmp_path):
    table = align_images(faces, tmp_path / "none", tmp_path / "out", SIZE)
    assert table["outcome"].eq("given").all()
    assert table["image_id"].tolist() == faces["image_id"].tolist()
    for row in table.itertuples():
        points = faces.set_index("image_id").loc[row.image_id, LANDMARK_COLUMNS].to_numpy(float)
        image = render_face(row.path, SIZE)
        expected, _ = align_face(image, points.reshape(5, 2) * SIZE, size=SIZE)
        written = np.asarray(Image.open(tmp_path / "out" / row.output).convert("RGB"))
        assert np.array_equal(written, expected)
    stored = pd.read_csv(tmp_path / "out" / REPORT_FILE, keep_default_na=False, na_values=[""])
    assert stored["output"].tolist() == table["output"].tolist()
    np.testing.assert_allclose(stored[LANDMARK_COLUMNS], faces[LANDMARK_COLUMNS], atol=1e-6)


def test_ferplus_trains_from_its_aligned_folder(faces, tmp_path):
    root, output = write_ferplus(tmp_path / "set", faces), tmp_path / "aligned"
    table = align_set("ferplus", root, output, size=SIZE, landmarks="detected")
    assert len(table) == len(faces)  # also the one that no label rule keeps
    assert set(table["outcome"]) <= {"detected", FALLBACK}
    assert (table["outcome"] == "detected").sum() > 0.8 * len(table)
    for rule in ("majority", "argmax"):
        before, dropped = read_ferplus(root, rule=rule)
        after, dropped_after = read_ferplus(output, rule=rule)
        pd.testing.assert_frame_equal(after, before)
        pd.testing.assert_frame_equal(dropped_after, dropped)
    config = RunConfig(
        dataset="ferplus", data_root=str(output), train_images=0, test_images=0, held_out=0.4
    )
    index, _ = load_dataset(config.data)
    images = image_array(index, root=output, size=SIZE)
    assert images.shape == (len(index), SIZE, SIZE, 3)
    # The reader's own resizing had nothing left to do.
    written = np.asarray(Image.open(output / index["path"][0]).convert("RGB"))
    assert np.array_equal(images[0], written)


def test_rafdb_trains_from_photographs_aligned_by_its_own_landmarks(faces, tmp_path):
    root, output = write_rafdb(tmp_path / "set", faces), tmp_path / "aligned"
    table = align_set("rafdb", root, output, size=SIZE, landmarks="given")
    assert table["outcome"].eq("given").all()
    original, _ = read_rafdb(root, aligned=False)
    config = RunConfig(
        dataset="rafdb", data_root=str(output), train_images=0, test_images=0, held_out=0.4
    )
    index, _ = load_dataset(config.data)
    assert set(index["path"]) == set(table["output"])
    labels = original.set_index("image_id")["label"]
    assert index["label"].tolist() == labels[index["image_id"]].tolist()
    images = image_array(index, root=output, size=SIZE)
    for position, row in enumerate(index.itertuples()):
        points = original.set_index("image_id").loc[row.image_id, LANDMARK_COLUMNS]
        photograph = np.asarray(Image.open(root / f"Image/original/{row.image_id}.jpg"))
        points = points.to_numpy(float).reshape(5, 2) * 96
        expected, _ = align_face(photograph, points, size=SIZE)
        # Only JPEG stands between them.
        assert np.abs(images[position].astype(float) - expected).mean() < 3


def test_affectnet_keeps_no_landmarks_of_the_photographs(faces, tmp_path):
    root, output = tmp_path / "set", tmp_path / "aligned"
    header = ",".join(CSV_COLUMNS)
    for file, numbers in {"training.csv": range(6), "validation.csv": range(6, 9)}.items():
        lines = [header]
        for number in numbers:
            write_image(
                root / f"Manually_Annotated_Images/1/{number}.JPG", np.zeros((60, 50, 3), np.uint8)
            )
            points = np.tile([[25.0, 30.0]], (68, 1))
            points[36:42], points[42:48], points[48], points[54] = (
                [15, 20],
                [35, 20],
                [18, 45],
                [32, 45],
            )
            text = ";".join(f"{value:.1f}" for value in points.ravel())
            lines.append(f"1/{number}.JPG,1,1,40,50,{text},{number % 7},0.1,0.1")
        (root / file).write_text("\n".join(lines) + "\n")
    table = align_set("affectnet", root, output, size=SIZE, landmarks="given")
    assert table["outcome"].eq("given").all()
    np.testing.assert_allclose(table["left_eye_x"], 15 / 50, atol=1e-6)
    np.testing.assert_allclose(table["mouth_right_y"], 45 / 60, atol=1e-6)
    same_images(read_affectnet(output)[0], read_affectnet(root)[0])
    assert "facial_landmarks" not in (output / "training.csv").read_text()


def test_affectnet_without_landmarks_is_aligned_by_detected_ones(tmp_path):
    root = tmp_path / "set"
    for folder in ("train_set", "val_set"):
        (root / folder / "annotations").mkdir(parents=True)
        for number in range(2):
            write_image(root / folder / f"images/{number}.jpg", np.zeros((60, 50, 3), np.uint8))
            np.save(root / folder / f"annotations/{number}_exp.npy", np.array("1"))
    table = align_set("affectnet", root, tmp_path / "aligned", size=SIZE, landmarks="detected")
    assert table["reason"].eq(NO_FACE).all()
    assert len(table) == 4
    with pytest.raises(FileNotFoundError, match=r"holds no \*_lnd.npy"):
        align_set("affectnet", root, tmp_path / "given", size=SIZE, landmarks="given")


def test_a_closed_image_is_told_from_a_broken_one(tmp_path, monkeypatch):
    write_image(tmp_path / "set" / "face.png", np.zeros((40, 40, 3), np.uint8))
    index = pd.DataFrame({"image_id": ["face"], "path": ["face.png"]})
    index[LANDMARK_COLUMNS] = np.nan
    given = (index, tmp_path / "set", tmp_path / "out", SIZE)
    align_images(*given)

    def closed(*_, **__):
        raise UndecodableImage("face.png", tmp_path, CLOSED)

    monkeypatch.setattr(ImageReader, "read", closed)
    os.utime(tmp_path / "set" / "face.png", (1, 1))
    assert align_images(*given)["reason"].tolist() == [CLOSED]
    assert (tmp_path / "out" / "face.png").is_file()


def test_kaggle_rows_become_ferplus_folders(tmp_path):
    pixels = [" ".join(["7"] * 48**2), " ".join(["200"] * 48**2)]
    lines = [f"0,{text},Training" for text in pixels]
    (tmp_path / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *lines]) + "\n")
    index = pd.DataFrame(
        {"image_id": ["fer1", "fer0"], "path": ["fer2013.csv#1", "fer2013.csv#0"], "split": "train"}
    )
    table = align_images(index, tmp_path, tmp_path / "out", SIZE, "detected")
    assert table["output"].tolist() == ["train/fer1.png", "train/fer0.png"]
    values = [np.asarray(Image.open(tmp_path / "out" / name)) for name in table["output"]]
    assert [value.shape for value in values] == [(SIZE, SIZE)] * 2  # grey stays grey
    assert values[0].min() == 200
    assert values[1].max() == 7


def test_no_image_is_dropped_in_silence(faces, tmp_path):
    root = tmp_path / "set"
    generator = np.random.default_rng(0)
    for name in ("sound", "nan", "mirrored", "blank"):
        write_image(root / f"{name}.png", generator.integers(0, 255, (40, 80, 3), dtype=np.uint8))
    (root / "broken.png").write_bytes((root / "sound.png").read_bytes()[:200])
    (root / "text.png").write_text("no image")
    names = ["sound", "nan", "mirrored", "blank", "broken", "text", "absent"]
    index = pd.DataFrame({"image_id": names, "path": [f"{name}.png" for name in names]})
    index[LANDMARK_COLUMNS] = [0.3, 0.3, 0.6, 0.3, 0.45, 0.5, 0.35, 0.8, 0.55, 0.8]
    index.loc[1, "nose_x"] = np.nan
    index.loc[2, ["left_eye_x", "right_eye_x"]] = [0.6, 0.3]
    index.loc[3, LANDMARK_COLUMNS] = 0.5
    table = align_images(index, root, tmp_path / "out", SIZE).set_index("image_id")
    assert table["outcome"].tolist() == ["given", *[FALLBACK] * 3, *[FAILED] * 3]
    assert table["reason"].tolist() == [
        "", NO_LANDMARKS, NO_TRIANGLE, NO_TRIANGLE, UNDECODABLE, UNDECODABLE, NO_FILE,
    ]  # fmt: skip
    files = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert files == {"sound.png", "nan.png", "mirrored.png", "blank.png"}
    fallback = np.asarray(Image.open(tmp_path / "out/nan.png"))
    assert (fallback[:12] == 0).all()  # 80 x 40 in a square: a quarter black above and below
    assert (fallback[-12:] == 0).all()
    assert fallback[14:34].std() > 10
    found = align_images(index[:1], root, tmp_path / "detected", SIZE, "detected")
    assert found[["outcome", "reason"]].values.tolist() == [[FALLBACK, NO_FACE]]


def test_an_image_without_landmarks_is_put_upright(tmp_path):
    """As training without alignment sees it; given landmarks are of the pixels as stored."""
    upright = Image.fromarray(np.tile(np.arange(40, dtype=np.uint8)[:, None, None], (1, 20, 3)))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown after a quarter turn clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "camera.png", exif=exif)
    index = pd.DataFrame({"image_id": ["camera"], "path": ["camera.png"]})
    index[LANDMARK_COLUMNS] = np.nan
    table = align_images(index, tmp_path, tmp_path / "out", SIZE)
    assert table["outcome"].tolist() == [FALLBACK]
    wanted = whole_image(np.asarray(upright), SIZE)
    found = Image.open(tmp_path / "out" / "camera.png").convert("RGB")
    assert np.array_equal(np.asarray(found), wanted)


def test_whole_image_keeps_proportions():
    tall = np.full((90, 30, 3), 255, np.uint8)
    square = whole_image(tall, 60)
    white = square[:, :, 0] > 127
    assert white.all(axis=0).sum() == 20
    assert (white.any(axis=0) == white.all(axis=0)).all()


def test_a_second_run_touches_nothing_and_reports_the_same(faces, tmp_path):
    root = write_ferplus(tmp_path / "set", faces[:6])
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    index = pd.DataFrame({"image_id": paths, "path": paths})
    first = align_images(index[:4], root, tmp_path / "out", SIZE, "detected")
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    assert len(written) == 4
    second = align_images(index, root, tmp_path / "out", SIZE, "detected")
    pd.testing.assert_frame_equal(second[:4], first)
    assert all(path.stat().st_mtime_ns == when for path, when in written.items())
    # Another source, another image; the others stay.
    write_image(root / paths[0], np.zeros((48, 48, 3), np.uint8))
    third = align_images(index, root, tmp_path / "out", SIZE, "detected")
    assert third["outcome"][0] == FALLBACK
    changed = [path for path, when in written.items() if path.stat().st_mtime_ns != when]
    assert changed == [tmp_path / "out" / paths[0]]


def test_other_given_landmarks_make_another_image(faces, tmp_path):
    align_images(faces[:2], tmp_path, tmp_path / "out", SIZE)
    moved = faces[:2].copy()
    moved.loc[0, "left_eye_x"] += 0.05
    table = align_images(moved, tmp_path, tmp_path / "out", SIZE)
    np.testing.assert_allclose(table["left_eye_x"], moved["left_eye_x"], atol=1e-6)


def test_a_killed_batch_is_continued(tmp_path):
    """Kill -9 in the middle; the rest is done, finished images stay, and none is half written."""
    code = (
        "from nlalib.prepare.aligned_images import align_images; "
        "from nlalib.data.sets.rendered import rendered_index; import sys; "
        "align_images(rendered_index(train=400, test=0, seed=1), '.', sys.argv[1], 224)"
    )
    output = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", code, str(output)])
    deadline = time.monotonic() + 300
    while len(list(output.glob("*.png"))) < 20 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (output / REPORT_FILE).exists()
    finished = {path: path.stat().st_mtime_ns for path in output.glob("*.png")}
    assert 20 <= len(finished) < 400
    for path in finished:
        assert np.asarray(Image.open(path)).shape[:2] == (224, 224)  # decodes to its end
    # A half-written file under the temporary name, as a kill in the middle of a write leaves it.
    (output / f".{next(iter(finished)).name}.1.unfinished").write_bytes(b"half")
    index = rendered_index(train=400, test=0, seed=1).iloc[:60]
    table = align_images(index, ".", output, 224)
    assert table["outcome"].eq("given").all()
    assert all(path.stat().st_mtime_ns == when for path, when in finished.items())
    assert not list(output.glob(".*.unfinished"))
    assert all((output / name).is_file() for name in table["output"])


def test_a_run_on_aligned_images_is_another_run(faces, tmp_path):
    """The images are others; where they lie is no matter."""

    def run_id(folder):
        return RunConfig(dataset="rafdb", data_root=str(tmp_path / folder)).run_id

    align_images(faces[:1], tmp_path, tmp_path / "out", SIZE)
    aligned = run_id("out")
    assert aligned != run_id("the_set_itself")
    (tmp_path / "out").rename(tmp_path / "moved")
    assert run_id("moved") == aligned


def test_wrong_folders_and_settings_are_refused(faces, tmp_path):
    align_images(faces[:1], tmp_path, tmp_path / "out", SIZE)
    settings = alignment_settings(tmp_path / "out")
    assert (settings["size"], settings["landmarks"]) == (SIZE, "given")
    assert alignment_settings(tmp_path) is None
    with pytest.raises(ValueError, match="made with size 48"):
        align_images(faces[:1], tmp_path, tmp_path / "out", 64)
    with pytest.raises(ValueError, match="made with landmarks 'given'"):
        align_images(faces[:1], tmp_path, tmp_path / "out", SIZE, "detected")
    with pytest.raises(ValueError, match="set's own folder"):
        align_images(faces[:1], tmp_path, tmp_path, SIZE)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").touch()
    with pytest.raises(ValueError, match=r"holds notes\.txt"):
        align_images(faces[:1], tmp_path, tmp_path / "full", SIZE)
    without = faces[:1].drop(columns=LANDMARK_COLUMNS)
    with pytest.raises(ValueError, match="no landmarks that could be given"):
        align_images(without, tmp_path, tmp_path / "other", SIZE)
    with pytest.raises(ValueError, match="choose given or detected"):
        align_images(faces[:1], tmp_path, tmp_path / "other", SIZE, "guessed")
    twice = pd.DataFrame({"image_id": ["a", "b"], "path": ["1/a.jpg", "1/A.jpg"]})
    with pytest.raises(ValueError, match="would be one file"):
        align_images(twice, tmp_path, tmp_path / "other", SIZE, "detected")


def test_a_folder_has_one_writer(faces, tmp_path):
    output = tmp_path / "out"
    with (
        aligned_images._sole_writer(tmp_path, output),
        pytest.raises(RuntimeError, match="another process is aligning"),
    ):
        align_images(faces[:1], tmp_path, output, SIZE)


def test_command_counts_and_fails_where_an_image_cannot_be_read(
    faces, tmp_path, monkeypatch, capsys
):
    root, output = write_ferplus(tmp_path / "set", faces), tmp_path / "out"
    words = f"nlalib align ferplus --root {root} --output {output} --size 48 --landmarks"
    monkeypatch.setattr(sys, "argv", [*words.split(), "detected"])
    assert main() == 0
    assert "detected" in capsys.readouterr().out
    (root / "FER2013Train/fer0000003.png").write_text("no image")
    assert main() == 1
    assert "1 of 42 images could not be read" in capsys.readouterr().err
    assert not (output / "FER2013Train/fer0000003.png").exists()
    monkeypatch.setattr(sys, "argv", [*words.split(), "given"])
    assert main() == 1
    assert "no landmarks that could be given" in capsys.readouterr().err


def test_output_that_cannot_be_written_is_one_line_with_the_remedy(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("no folder")
    output = tmp_path / "file" / "inside"
    monkeypatch.setattr(sys, "argv", ["nlalib", "align", "rendered", "--output", str(output)])
    assert main() == 1
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"error: {output} cannot be written (Not a directory)")
    assert told.endswith("give another folder")
