"""What a method is, and the registry that finds one by its name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from nlalib.methods.settings import Setting
from nlalib.names import named


@dataclass(frozen=True)
class TrainingSet:
    """What a method may know of the training set before training.

    Attributes
    ----------
    labels : Tensor, (N,) int64
        The given labels, wrong ones included.
    num_classes, num_features : int
        K, and the width D of the network's features.
    votes : Tensor, (N, K) float32, or None
        Annotators' votes for the K classes.
    candidates : Tensor, (N, K) bool, or None
        Which classes are candidates for the label.
    """

    labels: Tensor
    num_classes: int
    num_features: int
    votes: Tensor | None = None
    candidates: Tensor | None = None


@dataclass(frozen=True)
class ModelOutput:
    """What the network says of one batch of a training epoch.

    Attributes
    ----------
    logits : Tensor, (N, K) float32
    logits_flipped : Tensor, (N, K) float32, or None
        Of the mirrored images; None for methods with one view.
    labels : Tensor, (N,) int64
        The given labels.
    epoch, epochs : int
        Epoch counted from 0, and how many there are.
    samples : Tensor, (N,) int64
        Positions in the training set, for what a method remembers of each sample.
    features, features_flipped : Tensor, (N, D)
        Under autocast in lower precision, as are the maps.
    feature_map, feature_map_flipped : Tensor, (N, D, h, w)
    classifier : torch.nn.Linear
        From features to logits.
    votes : Tensor, (N, K) float32, candidates : Tensor, (N, K) bool
        For methods that name them in `needs`.
    """

    logits: Tensor
    logits_flipped: Tensor | None
    labels: Tensor | None
    epoch: int
    epochs: int
    samples: Tensor | None = None
    features: Tensor | None = None
    features_flipped: Tensor | None = None
    feature_map: Tensor | None = None
    feature_map_flipped: Tensor | None = None
    classifier: nn.Linear | None = None
    votes: Tensor | None = None
    candidates: Tensor | None = None


class Method(nn.Module):
    """Base class: `forward(output)` returns the loss and records of each sample.

    Its settings are declared by `nlalib.methods.settings.Setting`, and are attributes of the
    method. All that a method remembers is a parameter or a buffer, so that a checkpoint holds it.

    Attributes
    ----------
    name : str
        As which it is registered.
    two_views : bool
        Whether the network also sees the mirror image of each training image.
    needs : tuple of str
        Of "votes" and "candidates".
    keeps_samples : bool
        Whether it remembers something of each sample; then a run is one process.
    sums_over_batch : bool
        Whether a term of the loss is a sum over the batch, not a mean; then a run is one process.
    lr_factor : float
        Learning rate of the method's own parameters, relative to the network's.
    weight_adds_to_one : bool
        Whether a sample's loss is multiplied by 1 plus its record `weight`, not by `weight` itself.
    detectors : dict of str to "low" or "high"
        Which of its records may tell wrong labels, and whether a low or a high value speaks for
        one. A setting may leave such a record out.
    """

    name = ""
    two_views = False
    needs: tuple[str, ...] = ()
    keeps_samples = False
    sums_over_batch = False
    lr_factor = 1.0
    weight_adds_to_one = False
    detectors: ClassVar[dict[str, str]] = {}

    def __init__(self, **settings):
        """Take the settings.

        Raises
        ------
        ValueError
            For a setting that the method does not have, or a value out of its range.
        """
        super().__init__()
        declared = self.settings()
        unknown = sorted(set(settings) - set(declared))
        if unknown:
            raise ValueError(
                f"method {self.name!r} has no setting {', '.join(unknown)}; "
                f"it has {', '.join(declared) or 'none'}"
            )
        for name, (attribute, one) in declared.items():
            value = settings.get(name, one.default)
            setattr(self, attribute, one.checked(f"{name} of {self.name}", value))
        self.check()

    @classmethod
    def settings(cls) -> dict[str, tuple[str, Setting]]:
        """Return what can be set: the attribute and its declaration, by the setting's name."""
        declared = {name: one for kind in reversed(cls.mro()) for name, one in vars(kind).items()}
        found = {name: one for name, one in declared.items() if isinstance(one, Setting)}
        return {one.called or name: (name, one) for name, one in found.items()}

    def check(self) -> None:
        """Raise ValueError for settings that do not go together; subclasses say which."""

    @property
    def has_own_layers(self) -> bool:
        """Whether something of the method itself is learned: a head, embeddings."""
        return any(True for _ in self.parameters())

    def setup(self, training_set: TrainingSet) -> None:
        """Make heads and buffers. Called once, with PyTorch's generator seeded by the run.

        Raises
        ------
        ValueError
            If the training set lacks what the method `needs`, or a sample has none of it.
        """
        for need in self.needs:
            given = getattr(training_set, need)
            if given is None:
                raise ValueError(
                    f"the training set has no {need}, which method {self.name!r} learns from"
                )
            empty = (given.sum(dim=1) <= 0).nonzero()
            if len(empty):
                raise ValueError(
                    f"{len(empty)} samples have no {need}, first sample {int(empty[0])}"
                )

    def forward(self, output: ModelOutput) -> tuple[Tensor, dict[str, Tensor]]:
        """Return (scalar loss, records by name), each a detached (N,) tensor to be kept."""
        raise NotImplementedError

    def predict(self, output: ModelOutput) -> Tensor:
        """Return the logits, (N, K), by which images without labels are judged."""
        return output.logits

    def class_vectors(self, network: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors that stand for the classes, (K, D): the classifier's rows.

        Needs no `setup`, so that a finished run can be asked by its settings and its files.

        Parameters
        ----------
        network, own : Mapping of str to Tensor
            Stored weights by their names: the network's, and those of the method itself.
        """
        return network["fc.weight"]


METHODS: dict[str, type[Method]] = {}


def register(name: str):
    """Class decorator: make the method known as `name`."""

    def add(method: type[Method]) -> type[Method]:
        method.name = name
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
    return named(METHODS, name, "method")(**(settings or {}))
