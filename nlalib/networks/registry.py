"""The networks, and how their weights begin."""

import hashlib
import pickle
import re
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from nlalib.networks.face_resnet import FILE_SHA256, SMALLEST_IMAGE, FaceResNet, load_face_weights
from nlalib.networks.representation import Representation
from nlalib.paths import resolve

RANDOM_INITIALISATION = "random"
# As `initial_weights`: dlib's face-recognition weights, for the backbone "face_resnet".
FACE_WEIGHTS = "dlib_face"
_DIGITS = 12  # of a file's SHA-256
# The folder of a run of nlalib.training.pretraining.
_PRETRAINED = re.compile(r"\w+-masked-seed\d+-[0-9a-f]{10}")


class ResNet18(ResNet):
    """torchvision's ResNet-18 with its state dict, returning a `Representation`."""

    def __init__(self, num_classes: int, blocks: int = 2):
        super().__init__(BasicBlock, [blocks] * 4, num_classes=num_classes)

    def forward(self, images: Tensor) -> Representation:
        """Return the `Representation` of images, (N, 3, H, W) float32."""
        stem = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        feature_map = self.layer4(self.layer3(self.layer2(self.layer1(stem))))
        features = torch.flatten(self.avgpool(feature_map), 1)
        return Representation(self.fc(features), features, feature_map)


class NarrowResNet(ResNet18):
    """A ResNet for small images: 3 x 3 stem, no pooling after it, fewer channels.

    Parameters
    ----------
    width : int
        Channels of the first stage (64 in ResNet-18); the later ones have 2, 4 and 8 times as many.
    num_classes : int
    blocks : int
        Blocks a stage: 2 in ResNet-18, 1 in ResNet-10.
    stride : int
        Of the stem. With 2 all later stages see a quarter of the places, at a quarter of the cost.
    """

    def __init__(self, width: int, num_classes: int, blocks: int = 2, stride: int = 1):
        super().__init__(num_classes)
        self.inplanes = width
        self.conv1 = nn.Conv2d(3, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.Identity()
        self.layer1 = self._make_layer(BasicBlock, width, blocks)
        self.layer2 = self._make_layer(BasicBlock, 2 * width, blocks, stride=2)
        self.layer3 = self._make_layer(BasicBlock, 4 * width, blocks, stride=2)
        self.layer4 = self._make_layer(BasicBlock, 8 * width, blocks, stride=2)
        self.fc = nn.Linear(8 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _transformer(size: str, num_classes: int) -> nn.Module:
    # Imported when asked for: timm takes seconds to import, and most runs need no transformer.
    from nlalib.networks.vision_transformer import build_vit

    return build_vit(num_classes, size)


BACKBONES = {
    "resnet18": ResNet18,
    "resnet18_narrow16": lambda num_classes: NarrowResNet(16, num_classes),
    "resnet18_narrow32": lambda num_classes: NarrowResNet(32, num_classes),
    "resnet10_narrow16_stride2": lambda num_classes: NarrowResNet(16, num_classes, 1, 2),
    "face_resnet": FaceResNet,
    "vit_tiny_patch6": partial(_transformer, "vit_tiny_patch6"),  # for 48 pixels
    "vit_small_patch16": partial(_transformer, "vit_small_patch16"),  # for 224 pixels
}

# Side of the smallest image, pixels, of backbones that no smaller one fits.
SMALLEST_IMAGES = {"face_resnet": SMALLEST_IMAGE}


def build_model(backbone: str, num_classes: int, seed: int) -> nn.Module:
    """Return a randomly initialised network, the same for the same seed.

    Parameters
    ----------
    backbone : str
        One of `BACKBONES`.
    num_classes : int
    seed : int
    """
    if backbone not in BACKBONES:
        raise ValueError(f"unknown backbone {backbone!r}; known are {', '.join(BACKBONES)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BACKBONES[backbone](num_classes)


def file_digest(path: Path) -> str:
    """Return the first 12 hexadecimal digits of the file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_DIGITS]


def initialise(model: nn.Module, weights: str, images: Tensor) -> list[str]:
    """Give a network its initial weights, in place; the classifier keeps its own.

    Parameters
    ----------
    model : torch.nn.Module
        With its classifier in `fc`, on the CPU.
    weights : str
        `FACE_WEIGHTS`, or the path of a file; see `load_backbone`.
    images : Tensor, (N, 3, H, W) float32
        Unaugmented, normalised training images; see `load_face_weights`.

    Returns
    -------
    list of str
        Names of entries in the file that the backbone has no use for.
    """
    if weights == FACE_WEIGHTS:
        load_face_weights(model, images)
        return []
    return load_backbone(model, resolve(weights))


def initialisation_name(weights: str) -> str:
    """Return how results name the initial weights: "random", or their name and digest.

    `weights` is empty, `FACE_WEIGHTS` or the path of a file.

    Weights that masked pre-training left have the name of its run, which says how they were made,
    is the same on every machine, and is known before they are there.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    if not weights:
        return RANDOM_INITIALISATION
    if weights == FACE_WEIGHTS:
        return f"{FACE_WEIGHTS}@{FILE_SHA256[:_DIGITS]}"
    path = resolve(weights)
    if _PRETRAINED.fullmatch(path.parent.name):
        return path.parent.name
    _require_weights(path)
    return f"{path.stem}@{file_digest(path)}"


def _require_weights(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(
            f"no weights at {path}; give the path of e.g. resnet18_msceleb.pth, or of what "
            f"05_masked_pretraining left, as initial_weights; {FACE_WEIGHTS!r} with the backbone "
            "face_resnet; or nothing for random initialisation"
        )


def load_backbone(model: nn.Module, path: Path) -> list[str]:
    """Load the backbone's weights from a file, in place; the classifier keeps its own.

    The file is safetensors, or a PyTorch checkpoint with tensors only (a state dict, or one
    under the key `state_dict` as in `resnet18_msceleb.pth`). It is never unpickled as code.

    Parameters
    ----------
    model : torch.nn.Module
        With its classifier in `fc`.
    path : pathlib.Path

    Returns
    -------
    list of str
        Names of entries in the file that the backbone has no use for.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file holds more than tensors, or lacks weights of the backbone.
    """
    _require_weights(path)
    if path.suffix == ".safetensors":
        state = load_file(path)
    else:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"{path} holds more than tensors and is not opened, since that could run code: "
                "save its state dict alone (torch.save(model.state_dict(), ...))"
            ) from error
        if not isinstance(state, dict):
            raise ValueError(f"{path} holds a {type(state).__name__}; expected a state dict")
        state = state.get("state_dict", state)
    state = {name.removeprefix("module."): value for name, value in state.items()}
    wanted = {name: v for name, v in model.state_dict().items() if not name.startswith("fc.")}
    # Files from before PyTorch 0.4.1 lack the counters of batch normalisation.
    required = [name for name in wanted if not name.endswith("num_batches_tracked")]
    unfit = [n for n in required if n not in state or state[n].shape != wanted[n].shape]
    if unfit:
        raise ValueError(
            f"{path} does not fit the backbone: {len(unfit)} of {len(required)} weights are "
            f"missing or of another shape, first {unfit[0]!r}; the file's first names are "
            f"{list(state)[:3]}"
        )
    model.load_state_dict({name: state[name] for name in wanted if name in state}, strict=False)
    return sorted(set(state) - set(wanted))
