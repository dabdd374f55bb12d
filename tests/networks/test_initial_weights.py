"""Weights from files of others: into the backbone, or one line that says what is wrong."""

import copy
import functools
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet34

from nlalib.files import file_digest
from nlalib.networks.initial_weights import initialisation_name, load_backbone
from nlalib.networks.registry import build_model


@functools.cache  # building one takes a while
def built(backbone: str, num_classes: int, seed: int):
    return build_model(backbone, num_classes, seed)


def weights_of(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(first: dict, second: dict):
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


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


def halved(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def with_a_bit_turned(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "empty": (lambda path: path.write_bytes(b""), "is empty: download it again"),
    "web page": (
        lambda path: path.write_text("\n<!DOCTYPE html><html>Virus scan warning</html>"),
        "is a web page and no weights file: download it again",
    ),
    "pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0"),
        r"is a pointer of Git LFS .*: download it again, by `git lfs pull`",
    ),
    "text": (
        lambda path: path.write_text("hello, these are weights"),
        r"is no .*: download it again",
    ),
    "cut": (halved, r"cut off|no whole safetensors file"),
    "junk": (lambda path: path.write_bytes(b"PK\x03\x04 not"), r"is .*: download it again"),
}


@pytest.mark.parametrize("suffix", ["pth", "old.pth", "safetensors"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_one_line_with_path_cause_and_remedy(
    model, given, tmp_path, kind, suffix
):
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(given, path)
    else:
        torch.save(given, path, _use_new_zipfile_serialization=suffix == "pth")
    damage, cause = DAMAGE[kind]
    damage(path)
    before = weights_of(model)
    with pytest.raises(ValueError, match=cause) as told:
        load_backbone(model, path)
    assert str(told.value).startswith(str(path))
    assert "download it again" in str(told.value)
    assert_same(weights_of(model), before)


def test_a_turned_bit_is_noticed(model, given, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(given, path)
    with_a_bit_turned(path)
    with pytest.raises(ValueError, match=r"weights\.pth is damaged in .*: download it again"):
        load_backbone(model, path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(model, given, tmp_path, value):
    given["layer2.0.conv1.weight"][0, 0, 0, 0] = value
    path = tmp_path / "weights.pth"
    torch.save(given, path)
    with pytest.raises(ValueError, match=r"not finite in 1 of 100 .* 'layer2\.0\.conv1"):
        load_backbone(model, path)


@pytest.mark.parametrize("content", [{1: torch.zeros(2)}, {"epoch": 3, "best": 0.5}, {}])
def test_a_file_without_named_weights_is_refused(model, tmp_path, content):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"weights\.pth holds no weights by name"):
        load_backbone(model, path)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net"])
def test_usual_keys_of_checkpoints_are_looked_under(model, given, tmp_path, key):
    path = tmp_path / "weights.pth"
    torch.save({key: given, "epoch": 3, "optimizer": {"state": {}}}, path)
    before = weights_of(model)
    load_backbone(model, path)
    assert_backbone_loaded(model, given, before)


def test_weights_of_a_deeper_network_are_told_apart(tmp_path):
    """ResNet-34 holds all that ResNet-18 asks for, of the same shapes, and more."""
    path = tmp_path / "resnet34.pth"
    torch.save(resnet34().state_dict(), path)
    with pytest.raises(ValueError, match=r"more weights .* first 'layer1\.2\..*deeper network"):
        load_backbone(build_model("resnet18", 7, 0), path)


def test_a_folder_is_told(model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is a folder; give the path of a weights file"):
        load_backbone(model, tmp_path)


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
