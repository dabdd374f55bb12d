"""Training sets, batches of random numbers and plain loops, for the tests of methods."""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from nlalib.methods import Method, ModelOutput, TrainingSet, make_method

CLASSES, WIDTH, SAMPLES = 5, 8, 40
EPOCHS = 10
# How many training images each class has; the last has none.
COUNTS = (20, 12, 7, 1, 0)


def make_training_set() -> TrainingSet:
    """Labels of very unequal classes, one to seven votes each, and sets that hold the label."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(CLASSES).repeat_interleave(torch.tensor(COUNTS))
    labels = labels[torch.randperm(SAMPLES, generator=generator)]
    votes = torch.randint(0, 4, (SAMPLES, CLASSES), generator=generator).float()
    votes[:, 1] += 1
    candidates = torch.rand((SAMPLES, CLASSES), generator=generator) < 0.4
    candidates[torch.arange(SAMPLES), labels] = True
    return TrainingSet(labels, CLASSES, WIDTH, votes, candidates)


TRAINING_SET = make_training_set()
OF_COMMON_CLASS = (TRAINING_SET.labels == 0).nonzero().flatten().tolist()
BATCHES = {
    "random": [3, 0, 17, 8, 23, 11, 30, 38, 5, 21, 14, 2],
    "pair": [4, 9],
    "one class": OF_COMMON_CLASS[:8],
    "long": list(range(33, 3, -1)),
}


def make_output(
    samples: str | list[int] = "random",
    training_set: TrainingSet = TRAINING_SET,
    *,
    epoch: int = 3,
    seed: int = 1,
    scale: float = 1.0,
) -> ModelOutput:
    """What a network says of one of `BATCHES` or of other samples: random leaves with gradients."""
    samples = BATCHES[samples] if isinstance(samples, str) else samples
    generator, n = torch.Generator().manual_seed(seed), len(samples)

    def draw(*shape, size=1.0):
        return (size * scale * torch.randn(shape, generator=generator)).requires_grad_()

    classifier = nn.Linear(WIDTH, CLASSES)
    with torch.no_grad():
        classifier.weight.copy_(torch.randn((CLASSES, WIDTH), generator=generator))
    return ModelOutput(
        logits=draw(n, CLASSES, size=2.0),
        logits_flipped=draw(n, CLASSES, size=2.0),
        labels=training_set.labels[samples],
        epoch=epoch,
        epochs=EPOCHS,
        samples=torch.tensor(samples),
        features=draw(n, WIDTH),
        features_flipped=draw(n, WIDTH),
        feature_map=draw(n, WIDTH, 2, 3),
        feature_map_flipped=draw(n, WIDTH, 2, 3),
        classifier=classifier,
        votes=training_set.votes[samples],
        candidates=training_set.candidates[samples],
    )


def three_turns(training_set: TrainingSet = TRAINING_SET) -> list[ModelOutput]:
    """The same and other samples again, with other logits each time."""
    return [
        make_output(samples, training_set, epoch=epoch, seed=epoch)
        for epoch, samples in enumerate([[0, 1, 2, 3], [2, 3, 4], [3, 2, 0, 5]])
    ]


def ready(name: str, training_set: TrainingSet = TRAINING_SET, **settings) -> Method:
    """The method, set up from a seed."""
    method = make_method(name, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        method.setup(training_set)
    return method


def of_labels(labels: torch.Tensor, classes: int, width: int = WIDTH) -> TrainingSet:
    return TrainingSet(labels, num_classes=classes, num_features=width)


def with_one_candidate(training_set: TrainingSet = TRAINING_SET) -> TrainingSet:
    """The label is the only candidate, and has all votes."""
    one = functional.one_hot(training_set.labels, CLASSES)
    return replace(training_set, candidates=one.bool(), votes=10.0 * one)


def with_all_candidates(output: ModelOutput) -> tuple[TrainingSet, ModelOutput]:
    """Every class may be right."""
    everything = torch.ones_like(TRAINING_SET.candidates)
    training_set = replace(TRAINING_SET, candidates=everything)
    return training_set, replace(output, candidates=everything[output.samples])


# Plain Python numbers, straight from the formulas.


class Row(NamedTuple):
    """One sample: logits, their softmax, candidates, shares of the votes, label."""

    z: list[float]
    p: list[float]
    members: list[int]
    shares: list[float]
    label: int


def rows_of(output: ModelOutput) -> list[Row]:
    columns = (output.logits, output.candidates, output.votes, output.labels)
    return [
        Row(
            z,
            softmax(z),
            [c for c in range(CLASSES) if candidates[c]],
            [v / sum(votes) for v in votes],
            label,
        )
        for z, candidates, votes, label in zip(*(c.tolist() for c in columns), strict=True)
    ]


def softmax(row: list[float]) -> list[float]:
    exponentials = [math.exp(value - max(row)) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def share_within(p: list[float], members: list[int]) -> list[float]:
    held = sum(p[c] for c in members)
    return [p[c] / held if c in members else 0.0 for c in range(len(p))]


def even_over(members: list[int]) -> list[float]:
    return [float(c in members) / len(members) for c in range(CLASSES)]


def entropy_to(targets: list[float], p: list[float]) -> float:
    """Cross-entropy of p to the targets."""
    return -sum(t * math.log(value) for t, value in zip(targets, p, strict=True) if t)


def divergence(targets: list[float], p: list[float]) -> float:
    """KL(targets || p)."""
    return entropy_to(targets, p) - entropy_to(targets, targets)
