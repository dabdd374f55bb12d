"""Backbones: seeded weights, their size, and what they say of images."""

import copy
import functools
import subprocess
import sys

import pytest
import torch
from torchvision.models import resnet18

from nlalib.networks import registry
from nlalib.networks.registry import BACKBONES, build_model
from nlalib.paths import ROOT


@functools.cache  # building one takes a while
def built(backbone: str, num_classes: int, seed: int):
    return build_model(backbone, num_classes, seed)


def weights_of(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(first: dict, second: dict):
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_same_seed_same_weights_and_the_global_generator_is_left_alone():
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    first = build_model("resnet18_narrow16", 7, seed=4)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    assert_same(weights_of(first), weights_of(build_model("resnet18_narrow16", 7, seed=4)))
    other = build_model("resnet18_narrow16", 7, seed=5)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)


def by_hand(width: int, num_classes: int) -> int:
    """Count the parameters of the narrow network: two numbers a channel for each normalisation."""
    total = 3 * width * 9 + 2 * width
    for stage in range(4):
        channels = width * 2**stage
        incoming = channels if stage == 0 else channels // 2
        total += incoming * channels * 9 + 3 * channels * channels * 9 + 4 * 2 * channels
        if stage:
            total += incoming * channels + 2 * channels
    return total + 8 * width * num_classes + num_classes


@pytest.mark.parametrize(
    ("backbone", "width"), [("resnet18_narrow16", 16), ("resnet18_narrow32", 32)]
)
def test_narrow_network_has_the_parameters_counted_by_hand(backbone, width):
    model = built(backbone, 7, 0)
    assert sum(p.numel() for p in model.parameters()) == by_hand(width, 7)


def test_narrow_network_keeps_the_resolution_at_its_stem():
    model = build_model("resnet18_narrow16", 8, seed=0).eval()
    images = torch.zeros(2, 3, 32, 32)
    assert model(images).logits.shape == (2, 8)
    stem = model.maxpool(model.relu(model.bn1(model.conv1(images))))
    assert stem.shape == (2, 16, 32, 32)
    assert model.layer4(model.layer3(model.layer2(model.layer1(stem)))).shape == (2, 128, 4, 4)


@pytest.mark.parametrize(
    ("backbone", "features", "side"),
    [
        ("resnet18", 512, 1),
        ("resnet18_narrow16", 128, 4),
        ("resnet18_narrow32", 256, 4),
        ("resnet10_narrow16_stride2", 128, 2),
    ],
)
def test_representation_is_the_map_its_mean_and_the_classifier_of_that(backbone, features, side):
    assert backbone in BACKBONES
    model = copy.deepcopy(built(backbone, 7, 0)).eval()
    with torch.no_grad():
        seen = model(torch.rand(3, 3, 32, 32))
        assert seen.feature_map.shape == (3, features, side, side)
        for image in range(3):
            mean = seen.feature_map[image].reshape(features, -1).mean(dim=1)
            torch.testing.assert_close(seen.features[image], mean)
            wanted = model.fc.weight @ mean + model.fc.bias
            torch.testing.assert_close(seen.logits[image], wanted)
    assert model.fc.in_features == features


def test_resnet18_is_torchvisions():
    """With the same weights, the same logits."""
    model = copy.deepcopy(built("resnet18", 7, 0)).eval()
    other = resnet18(num_classes=7).eval()
    other.load_state_dict(model.state_dict())
    images = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(model(images).logits, other(images))


def by_hand_of_one_block(width: int, num_classes: int) -> int:
    """The same with one block a stage."""
    total = 3 * width * 9 + 2 * width
    for stage in range(4):
        channels = width * 2**stage
        incoming = channels if stage == 0 else channels // 2
        total += incoming * channels * 9 + channels * channels * 9 + 2 * 2 * channels
        if stage:
            total += incoming * channels + 2 * channels
    return total + 8 * width * num_classes + num_classes


def test_resnet10_has_the_parameters_counted_by_hand_and_halves_at_its_stem():
    model = built("resnet10_narrow16_stride2", 7, 0)
    assert sum(p.numel() for p in model.parameters()) == by_hand_of_one_block(16, 7)
    assert model.conv1(torch.zeros(1, 3, 48, 48)).shape == (1, 16, 24, 24)


def test_resnet18_has_the_known_number_of_parameters():
    model = build_model("resnet18", 1000, seed=0)
    assert sum(p.numel() for p in model.parameters()) == 11_689_512


def test_unknown_backbone_lists_the_known():
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet19'; known are .*resnet18,"):
        build_model("resnet19", 7, seed=0)


def test_backbones_say_which_images_they_take():
    assert BACKBONES["resnet18"].refusal(16) == ""
    assert BACKBONES["resnet18"].refusal(15) == "needs images of 16 pixels at least"
    assert BACKBONES["face_resnet"].refusal(103) == ""
    assert BACKBONES["face_resnet"].refusal(102) == "needs images of 103 pixels at least"
    for side in (47, 49):
        assert BACKBONES["vit_tiny_patch6"].refusal(side) == "needs images of 48 pixels"
    assert BACKBONES["vit_tiny_patch6"].refusal(48) == ""


@pytest.mark.parametrize("backbone", list(BACKBONES))
def test_the_smallest_image_is_one_that_the_network_can_see(backbone):
    side = BACKBONES[backbone].smallest_image
    with torch.no_grad():
        seen = built(backbone, 7, 0).eval()(torch.zeros(1, 3, side, side))
    assert seen.logits.shape == (1, 7)
    assert min(seen.feature_map.shape[2:]) >= 1


def test_timm_is_imported_for_transformers_alone():
    code = (
        "import sys; from nlalib.networks.registry import build_model; "
        "build_model('face_resnet', 7, 0); assert 'timm' not in sys.modules; "
        "build_model('vit_tiny_patch6', 7, 0); assert 'timm' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_decorated_class_is_a_backbone_with_its_arguments(monkeypatch):
    monkeypatch.setattr(registry, "BACKBONES", {})

    @registry.register_backbone("wide", smallest_image=20, width=5)
    class Wide(torch.nn.Linear):
        def __init__(self, num_classes, width):
            super().__init__(width, num_classes)

    assert registry.build_model("wide", 3, seed=0).weight.shape == (3, 5)
    assert registry.BACKBONES["wide"].smallest_image == 20
