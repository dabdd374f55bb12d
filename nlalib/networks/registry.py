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
    smallest_image : int
        Side in pixels.
    exact : bool
        Whether it takes images of that side alone.
    """

    build: Callable[..., nn.Module]
    smallest_image: int = _SMALLEST_IMAGE
    exact: bool = False

    def refusal(self, image_size: int) -> str:
        """Return what is wrong with images of this side in pixels; "" if they fit."""
        side = self.smallest_image
        if image_size == side or (image_size > side and not self.exact):
            return ""
        return f"needs images of {side} pixels{'' if self.exact else ' at least'}"


BACKBONES: dict[str, Backbone] = {}


def register_backbone(
    name: str,
    *,
    smallest_image: int = _SMALLEST_IMAGE,
    exact: bool = False,
    **arguments,
):
    """Decorator of a network's class, or of a function that builds one: make it known as `name`.

    Parameters
    ----------
    name : str
    smallest_image, exact
        As of `Backbone`.
    **arguments
        Of the class, beside `num_classes`. One class may have several names.
    """

    def add(build):
        BACKBONES[name] = Backbone(partial(build, **arguments), smallest_image, exact)
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
