"""What a method is, and the registry that finds one by its name."""

from dataclasses import dataclass
from inspect import signature

from torch import Tensor, nn


@dataclass(frozen=True)
class ModelOutput:
    """What the network says of one batch of a training epoch.

    Attributes
    ----------
    logits : Tensor, (N, K) float32
    logits_flipped : Tensor, (N, K) float32, or None
        Of the mirrored images; None for methods with one view.
    labels : Tensor, (N,) int64
    epoch, epochs : int
        Epoch counted from 0, and how many there are.
    """

    logits: Tensor
    logits_flipped: Tensor | None
    labels: Tensor
    epoch: int
    epochs: int


class Method(nn.Module):
    """Base class: `forward(output)` returns the loss and facts of each sample.

    Attributes
    ----------
    two_views : bool
        Whether the network also sees the mirror image of each training image.
    """

    two_views = False

    def forward(self, output: ModelOutput) -> tuple[Tensor, dict[str, Tensor]]:
        """Return (scalar loss, facts), where each fact is a detached (N,) tensor to be recorded."""
        raise NotImplementedError


METHODS: dict[str, type[Method]] = {}


def register(name: str):
    """Class decorator: make the method known as `name`."""

    def add(method: type[Method]) -> type[Method]:
        METHODS[name] = method
        return method

    return add


def make_method(name: str, settings: dict | None = None) -> Method:
    """Return the method called `name`, with its settings.

    Raises
    ------
    ValueError
        For an unknown method, a setting that it does not have, or a value out of its range.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; known are {', '.join(sorted(METHODS))}")
    known = [p for p in signature(METHODS[name].__init__).parameters if p != "self"]
    known = [] if METHODS[name].__init__ is nn.Module.__init__ else known
    unknown = sorted(set(settings or {}) - set(known))
    if unknown:
        raise ValueError(
            f"method {name!r} has no setting {', '.join(unknown)}; "
            f"it has {', '.join(known) if known else 'none'}"
        )
    return METHODS[name](**(settings or {}))
