"""Training sets and batches of random numbers, for the tests of methods."""

import torch
from torch import nn

from nlalib.methods import Method, ModelOutput, TrainingSet, make_method

CLASSES, WIDTH, SAMPLES = 5, 8, 24


def make_training_set(samples: int = SAMPLES, seed: int = 0) -> TrainingSet:
    generator = torch.Generator().manual_seed(seed)
    votes = torch.randint(0, 4, (samples, CLASSES), generator=generator).float()
    votes[:, 1] += 1
    candidates = torch.rand((samples, CLASSES), generator=generator) < 0.4
    labels = torch.randint(0, CLASSES, (samples,), generator=generator)
    candidates[torch.arange(samples), labels] = True
    return TrainingSet(labels, CLASSES, WIDTH, votes, candidates)


def make_output(training_set: TrainingSet, samples: list[int], epoch=3, seed=1) -> ModelOutput:
    """A batch of random numbers; logits and features are leaves with gradients."""
    generator = torch.Generator().manual_seed(seed)
    n = len(samples)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    classifier = nn.Linear(WIDTH, CLASSES)
    with torch.no_grad():
        classifier.weight.copy_(draw(CLASSES, WIDTH))
    return ModelOutput(
        logits=(2 * draw(n, CLASSES)).requires_grad_(),
        logits_flipped=(2 * draw(n, CLASSES)).requires_grad_(),
        labels=training_set.labels[samples],
        epoch=epoch,
        epochs=10,
        samples=torch.tensor(samples),
        features=draw(n, WIDTH).requires_grad_(),
        features_flipped=draw(n, WIDTH),
        feature_map=draw(n, WIDTH, 2, 2).requires_grad_(),
        classifier=classifier,
        votes=training_set.votes[samples],
        candidates=training_set.candidates[samples],
        feature_map_flipped=draw(n, WIDTH, 2, 2).requires_grad_(),
    )


def ready(name: str, training_set: TrainingSet, **settings) -> Method:
    """The method, set up from a seed."""
    method = make_method(name, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method.setup(training_set)
    return method
