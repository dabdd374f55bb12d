"""Networks: seeded weights, their size, and loading of weights from files of others."""

import copy
import functools
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18

from nlalib.networks.registry import (
    BACKBONES,
    build_model,
    file_digest,
    initialisation_name,
    load_backbone,
)


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
    with pytest.raises(ValueError, match="unknown backbone 'resnet19'; known are resnet18"):
        build_model("resnet19", 7, seed=0)


@pytest.fixture
def model():
    return copy.deepcopy(built("resnet18_narrow16", 7, 1))


@pytest.fixture
def given():
    """Weights of another network, with another number of classes."""
    return weights_of(built("resnet18_narrow16", 5, 2))


def assert_backbone_loaded(model, given, before):
    after = weights_of(model)
    for name, value in after.items():
        wanted = before[name] if name.startswith("fc.") else given[name]
        assert torch.equal(value, wanted), name


def test_checkpoint_under_state_dict_with_module_prefix(model, given, tmp_path):
    path = tmp_path / "msceleb.pth"
    state = {f"module.{name}": value for name, value in given.items()}
    torch.save({"state_dict": state, "epoch": 3}, path)
    before = weights_of(model)
    assert load_backbone(model, path) == ["fc.bias", "fc.weight"]
    assert_backbone_loaded(model, given, before)


def test_plain_state_dict_without_counters_of_normalisation(model, given, tmp_path):
    path = tmp_path / "old.pth"
    torch.save({n: v for n, v in given.items() if not n.endswith("num_batches_tracked")}, path)
    before = weights_of(model)
    load_backbone(model, path)
    assert_backbone_loaded(model, given, before)


def test_safetensors(model, given, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({**given, "extra": torch.zeros(2)}, path)
    before = weights_of(model)
    assert load_backbone(model, path) == ["extra", "fc.bias", "fc.weight"]
    assert_backbone_loaded(model, given, before)


class Burglar:
    """Unpickling it as code would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def pickle_plainly(content, path):
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("write", [torch.save, pickle_plainly])
def test_pickle_with_code_is_refused_and_not_run(model, given, tmp_path, write):
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    write({"state_dict": given, "extra": Burglar(trace)}, path)
    before = weights_of(model)
    with pytest.raises(ValueError, match="holds more than tensors and is not opened"):
        load_backbone(model, path)
    assert not trace.exists()
    assert_same(weights_of(model), before)


def test_missing_file(model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weights at .*gone\.pth; give the path"):
        load_backbone(model, tmp_path / "gone.pth")


def test_weights_that_do_not_fit_change_nothing(model, given, tmp_path):
    path = tmp_path / "wide.pth"
    torch.save(weights_of(built("resnet18_narrow32", 7, 0)), path)
    before = weights_of(model)
    with pytest.raises(ValueError, match=r"does not fit .*: 100 of 100 .*first 'conv1\.weight'"):
        load_backbone(model, path)
    del given["layer2.0.conv1.weight"]
    torch.save(given, path)
    with pytest.raises(ValueError, match=r": 1 of 100 .*first 'layer2\.0\.conv1\.weight'"):
        load_backbone(model, path)
    torch.save(torch.zeros(3), path)
    with pytest.raises(ValueError, match="holds a Tensor; expected a state dict"):
        load_backbone(model, path)
    assert_same(weights_of(model), before)


def test_initialisation_names_the_file_and_its_content(tmp_path):
    path = tmp_path / "msceleb.pth"
    path.write_bytes(b"abc")
    # SHA-256 of "abc", from the standard (FIPS 180-4).
    assert file_digest(path) == "ba7816bf8f01"
    assert initialisation_name(str(path)) == "msceleb@ba7816bf8f01"
    assert initialisation_name("") == "random"
    # Of the file's SHA-256, known without the file.
    assert initialisation_name("dlib_face") == "dlib_face@55533b28a958"
    with pytest.raises(FileNotFoundError, match="no weights at"):
        initialisation_name(str(tmp_path / "gone.pth"))
