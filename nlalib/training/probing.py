"""What a frozen encoder knows of expressions: a linear probe, and an interval for a difference.

A probe says how far a linear classifier gets with features that nobody tuned for the task. It
ranks encoders; it is no accuracy that a network trained on labels should be compared with.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import bootstrap
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from nlalib.data.pixels import read_images
from nlalib.networks.normalisation import normalise
from nlalib.training.batches import to_tensor

# Inverse strength of the L2 penalty, tried on held-out images.
PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
_BATCH = 256


@torch.no_grad()
def frozen_features(model: nn.Module, images: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return the features of unaugmented images, with the model as it is.

    Parameters
    ----------
    model : torch.nn.Module
        Its forward returns a `nlalib.networks.representation.Representation`.
    images : numpy.ndarray, (N, size, size, 3) uint8
    positions : numpy.ndarray, (n,) int
        Of the images that are asked for.

    Returns
    -------
    numpy.ndarray, (n, D) float32
    """
    model.eval()
    groups = np.split(positions, range(_BATCH, len(positions), _BATCH))
    pixels = (to_tensor(read_images(images, group)) for group in groups)
    return torch.cat([model(normalise(some)).features for some in pixels]).numpy()


@dataclass(frozen=True)
class Probe:
    """What `linear_probe` found: the penalty chosen, and class ids predicted for the test part."""

    penalty: float
    held_out_accuracy: float
    predicted: np.ndarray


def linear_probe(features: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> Probe:
    """Fit logistic regressions on standardised features and keep the best on held-out images.

    Parameters
    ----------
    features : dict of numpy.ndarray, (n, D) float
        For each of the parts "train", "held_out" and "test".
    labels : dict of numpy.ndarray, (n,) int
        For "train" and "held_out"; those of the test part have no use here.

    Returns
    -------
    Probe
        The test part takes no part in the choice of the penalty.
    """
    # Newton's method needs the digits: features of an untrained encoder are nearly collinear.
    features = {part: values.astype(np.float64) for part, values in features.items()}
    fitted = [
        make_pipeline(StandardScaler(), LogisticRegression(C=penalty, solver="newton-cholesky"))
        .fit(features["train"], labels["train"])
        for penalty in PENALTIES
    ]  # fmt: skip
    scores = [float(one.score(features["held_out"], labels["held_out"])) for one in fitted]
    best = int(np.argmax(scores))  # the first of equals
    return Probe(PENALTIES[best], scores[best], fitted[best].predict(features["test"]))


def probe_encoder(model: nn.Module, images: np.ndarray, parts, labels) -> Probe:
    """Return the `Probe` of a model's frozen features.

    Parameters
    ----------
    model : torch.nn.Module
        Its forward returns a `nlalib.networks.representation.Representation`.
    images : numpy.ndarray, (N, size, size, 3) uint8
    parts, labels : numpy.ndarray, (N,)
        The columns `part` ("train", "held_out", "test") and `label` of the index.
    """
    places = {part: np.flatnonzero(parts == part) for part in ("train", "held_out", "test")}
    features = {part: frozen_features(model, images, places[part]) for part in places}
    known = {part: labels[places[part]] for part in ("train", "held_out")}
    return linear_probe(features, known)


def accuracy_difference(
    labels: np.ndarray, predicted: np.ndarray, reference: np.ndarray, *, seed: int
) -> dict[str, float]:
    """Return the gain in accuracy over a reference, with a 95 % bootstrap interval over the images.

    The two are compared on the same images, so the interval is one of paired differences. It
    covers the choice of test images; not the seed of the training, nor the choice of its images.

    Parameters
    ----------
    labels, predicted, reference : numpy.ndarray, (N,) int
        True classes, those predicted, and those that the reference predicted.
    seed : int
        Of the resampling.

    Returns
    -------
    dict of float, fractions
        `accuracy`, `reference`, `difference`, and the interval's ends `low` and `high`
        (percentiles).
    """
    right, reference_right = predicted == labels, reference == labels
    gain = right.astype(float) - reference_right
    low, high = bootstrap(
        (gain,),
        np.mean,
        n_resamples=2000,
        batch=100,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return {
        "accuracy": float(right.mean()),
        "reference": float(reference_right.mean()),
        "difference": float(gain.mean()),
        "low": float(low),
        "high": float(high),
    }
