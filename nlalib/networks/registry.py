"""Backbones by their names: one decorator makes a network known to configurations and training."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from nlalib.names import named

_SMALLEST_IMAGE = 16  # pixels; a network of five strides has a place left


@dataclass(frozen=True)
class Backbone:
    """How a backbone is built, and which images it takes.

    Attributes
    ----------
    build : callable
        From `num_classes` to a network whose classifier is `fc` and whose forward returns a
        `nlalib.networks.representation.Representation`.
    smallest_image, largest_image : int
        Sides in pixels; no largest one is None.
    """

    build: Callable[..., nn.Module]
    smallest_image: int = _SMALLEST_IMAGE
    largest_image: int | None = None

    def refusal(self, image_size: int) -> str:
        """Return what is wrong with images of this side in pixels; "" if they fit."""
        if self.largest_image == self.smallest_image != image_size:
            return f"needs images of {self.smallest_image} pixels"
        if image_size < self.smallest_image:
            return f"needs images of {self.smallest_image} pixels at least"
        if self.largest_image is not None and image_size > self.largest_image:
            return f"takes images of {self.largest_image} pixels at most"
        return ""


BACKBONES: dict[str, Backbone] = {}


def register_backbone(
    name: str,
    *,
    smallest_image: int = _SMALLEST_IMAGE,
    largest_image: int | None = None,
    **arguments,
):
    """Decorator of a network's class, or of a function that builds one: make it known as `name`.

    Parameters
    ----------
    name : str
    smallest_image, largest_image : int
        As of `Backbone`.
    **arguments
        Of the class, beside `num_classes`. One class may have several names.
    """

    def add(build):
        BACKBONES[name] = Backbone(partial(build, **arguments), smallest_image, largest_image)
        return build

    return add


def build_model(backbone: str, num_classes: int, seed: int) -> nn.Module:
    """Return a randomly initialised network, the same for the same seed.

    Parameters
    ----------
    backbone : str
        One of `BACKBONES`.
    num_classes : int
    seed : int

    Raises
    ------
    ValueError
        For an unknown backbone, with the list of the known.
    """
    build = named(BACKBONES, backbone, "backbone").build
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(num_classes=num_classes)
