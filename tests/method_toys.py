"""A problem with a hidden truth, small enough to train on in a test."""

import math

import torch
from torch import nn
from torch.nn import functional

from method_batches import CLASSES, ready
from nlalib.methods import ModelOutput, TrainingSet


def blobs(samples: int = 240, seed: int = 0):
    """(features, truth): one cluster in two dimensions for each class."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.arange(samples) % CLASSES
    angles = 2 * math.pi * truth / CLASSES
    centres = 3 * torch.stack([angles.cos(), angles.sin()], dim=1)
    return centres + 0.5 * torch.randn(samples, 2, generator=generator), truth


def train(method, model, features, truth, training_set, steps=80, lr=0.05, feature_map=None):
    """Full batches; returns the records of the last step."""
    optimizer = torch.optim.Adam([*model.parameters(), *method.parameters()], lr=lr)
    for step in range(steps):
        logits = model(features)
        output = ModelOutput(
            logits=logits,
            logits_flipped=model(features + 0.1) if method.two_views else None,
            labels=truth,
            epoch=step,
            epochs=steps,
            samples=torch.arange(len(truth)),
            features=features,
            features_flipped=features + 0.1,
            feature_map=feature_map,
            classifier=model,
            votes=training_set.votes,
            candidates=training_set.candidates,
        )
        optimizer.zero_grad()
        loss, records = method(output)
        loss.backward()
        optimizer.step()
    return records


def learn_from_three_votes(name: str, **settings) -> tuple[float, float, float]:
    """Three votes an image, of which 45 % are right.

    Returns the accuracy of their majority and of the model, and its mean probability of the
    truth.
    """
    features, truth = blobs(400)
    generator = torch.Generator().manual_seed(2)
    shares = torch.full((CLASSES, CLASSES), 0.55 / (CLASSES - 1))
    shares.fill_diagonal_(0.45)
    draws = torch.multinomial(shares[truth], 3, replacement=True, generator=generator)
    votes = functional.one_hot(draws, CLASSES).sum(dim=1).float()
    training_set = TrainingSet(truth, CLASSES, 2, votes=votes)
    torch.manual_seed(0)
    method, model = ready(name, training_set, **settings), nn.Linear(2, CLASSES)
    train(method, model, features, truth, training_set)
    output = ModelOutput(model(features), None, None, 0, 1, features=features)
    predicted = method.predict(output).softmax(dim=1)
    right = predicted.argmax(dim=1) == truth
    majority = votes.argmax(dim=1) == truth
    return (
        majority.float().mean().item(),
        right.float().mean().item(),
        predicted.gather(1, truth[:, None]).mean().item(),
    )
