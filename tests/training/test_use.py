"""A finished run outside of its study: photographs, files for other programs."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from skimage import data

from nlalib import __main__ as command_line
from nlalib.data.pixels import load_image
from nlalib.training import use
from nlalib.training.config import RunConfig
from nlalib.training.devices import make_accelerator
from nlalib.training.launch import train
from nlalib.training.learner import load_learner
from nlalib.training.loop import predict

TINY = RunConfig(
    train_images=300,
    test_images=60,
    image_size=32,
    epochs=1,
    seed=0,
    device="cpu",
    method="decoder",
)


@pytest.fixture(scope="module")
def run(loaded, tmp_path_factory):
    """A finished run of a method with a head of its own, its index and its images."""
    index, images = loaded(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLA_RUNS", str(tmp_path_factory.mktemp("runs")))
        train(TINY, index, images)
        yield TINY, index, images


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "astronaut.png"
    Image.fromarray(data.astronaut()).save(path)
    return path


def test_faces_are_judged_as_test_images_are(run):
    config, index, images = run
    _, classifier = use.load_classifier(config.run_id)
    positions = np.flatnonzero(index["part"] == "test")[:9]
    learner = load_learner(config)
    wanted = predict(learner, images, positions, make_accelerator("cpu", "fp32"))
    np.testing.assert_allclose(use.classify(classifier, images[positions]), wanted, atol=1e-5)


def test_command_finds_the_face_and_says_where_there_is_none(
    run, photograph, tmp_path, monkeypatch, capsys
):
    config, _, _ = run
    nobody, picture = tmp_path / "nobody.png", tmp_path / "picture.png"
    Image.fromarray(np.zeros((200, 200, 3), np.uint8)).save(nobody)
    words = ["predict", config.run_id, str(photograph), str(nobody), "--picture", str(picture)]
    monkeypatch.setattr("sys.argv", ["nlalib", *words])
    assert command_line.main() == 0
    told = capsys.readouterr()
    assert "no product" in told.err
    assert told.out.count("no face") == 7
    assert Image.open(picture).size[0] > 500
    table, faces = use.predict_files(config.run_id, [photograph])
    assert table.iloc[0, 2:].sum() == pytest.approx(1, abs=1e-5)
    # The aligned face: eyes at 40 % of the height, so the crop is brighter than the whole.
    assert faces[0].shape == (32, 32, 3)
    _, whole = use.predict_files(config.run_id, [photograph], as_is=True)
    resized = load_image(photograph.name, root=photograph.parent, size=32)
    assert np.array_equal(whole[0], resized)  # as an image is read for training
    assert not np.array_equal(faces[0], resized)


def test_a_photograph_that_its_camera_held_on_its_side_is_put_upright(photograph, tmp_path):
    turned, upright = tmp_path / "turned.png", use.read_face(photograph, 32, as_is=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown after a quarter turn clockwise
    Image.open(photograph).transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif)
    assert np.array_equal(use.read_face(turned, 32, as_is=True), upright)


def test_a_face_that_cannot_be_aligned_is_none(run, photograph, monkeypatch):
    """Of a profile, say, both eyes are one point; the other photographs are judged all the same."""
    found = use.find_face(np.asarray(Image.open(photograph)))
    on_a_line = found._replace(points=np.repeat(found.points[:, :1], 5, axis=1))
    faces = iter([on_a_line, found])
    monkeypatch.setattr(use, "find_face", lambda pixels: next(faces))
    table, _ = use.predict_files(run[0].run_id, [photograph, photograph])
    assert table["face"].tolist() == [False, True]


def test_a_run_is_taken_from_its_folder_whatever_it_started_from(run, tmp_path, monkeypatch):
    """Files that are a part of its name may be gone, or be others by now."""
    config, _, images = run
    folder = tmp_path / "runs" / config.run_id
    shutil.copytree(config.folder, folder)
    parameters = json.loads((folder / "config.json").read_text())
    parameters["initial_weights"] = "weights/gone.pth"
    parameters["identity"]["initialisation"] = "0123456789ab"
    (folder / "config.json").write_text(json.dumps(parameters))
    _, before = use.load_classifier(config.run_id)
    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "runs"))
    _, classifier = use.load_classifier(config.run_id)
    wanted = use.classify(before, images[:3])
    np.testing.assert_array_equal(use.classify(classifier, images[:3]), wanted)
    _, card, _ = use.export(config.run_id, tmp_path, onnx=False)
    assert card.read_text().startswith(f"# {config.run_id}\n")
    assert "from gone@0123456789ab" in card.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rendered-ce-seed0-0000000000", "{photograph}"], "no finished run at"),
        (["{run_id}", "{folder}/gone.png"], "no image at"),
        (["{run_id}", "{folder}/text.png"], "is no image that can be read"),
    ],
)
def test_what_cannot_be_judged_is_one_line(
    run, photograph, tmp_path, monkeypatch, capsys, words, message
):
    (tmp_path / "text.png").write_text("not an image")
    names = {"run_id": run[0].run_id, "photograph": photograph, "folder": tmp_path}
    monkeypatch.setattr("sys.argv", ["nlalib", "predict", *(w.format(**names) for w in words)])
    assert command_line.main() == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_export_is_compared_and_comes_with_a_card(run, tmp_path, monkeypatch):
    config, _, images = run
    pytest.importorskip("onnxscript")
    import onnxruntime

    weights, card, own, graph = use.export(config.run_id, tmp_path)
    network = load_file(config.folder / "weights.safetensors")
    assert all(torch.equal(value, network[name]) for name, value in load_file(weights).items())
    text = card.read_text()
    metrics = pd.read_csv(config.folder / "metrics.csv").iloc[-1]
    assert f"| happiness | {100 * metrics['test_recall_happiness']:.1f} |" in text
    assert "no product" in text
    assert "faces drawn by code" in text
    # The decoder predicts by layers of its own, which come along.
    head = load_file(config.folder / "method.safetensors")
    assert all(torch.equal(value, head[name]) for name, value in load_file(own).items())
    assert own.name in text
    # Any number of images, from grey levels as they are.
    some = images[:5].transpose(0, 3, 1, 2).astype(np.float32)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: some})
    _, classifier = use.load_classifier(config.run_id)
    np.testing.assert_allclose(found, use.classify(classifier, images[:5]), atol=1e-4)
    # And one that computes something else is refused.
    monkeypatch.setattr(use, "_ONNX_TOLERANCE", -1.0)
    with pytest.raises(ValueError, match="computes something else"):
        use.export(config.run_id, tmp_path)
