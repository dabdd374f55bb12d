"""RUL: mix two faces by their relative uncertainty, and recognise both in the mixture.

Source: Zhang, Wang, Deng, "Relative Uncertainty Learning for Facial Expression Recognition",
NeurIPS 2021. Two heads on the feature map, each a batch normalisation without scale and shift, a
dropout of 0.4, a linear layer to 64 numbers and a batch normalisation, give mu and s, the
logarithm of a variance. For sample i and its partner j, by a random permutation of the batch:

    u     = mean over the 64 of exp(s)
    mixed = (u_i mu_i + u_j mu_j) / (u_i + u_j)
    L     = CE(FC(mixed), y_i) / 2 + CE(FC(mixed), y_j) / 2

In testing the logits are FC(mu). The heads learn ten times as fast as the network.

What differs here: our backbones and initial weights instead of a ResNet-18 from MS-Celeb-1M. The
linear layers have weights for the original's 7 x 7 places (224 pixels); for a map of another size
they are averaged over the places that fall together, so that small images need no other head.
Permutation and dropout are drawn from (a stored seed, epoch, first sample of the batch), not from
a global generator: a killed run goes on with the draws that it would have had.
The network's own classifier `fc` takes no part.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nlalib.methods.base import Method, ModelOutput, TrainingSet, register
from nlalib.methods.recorded import prediction_records
from nlalib.methods.settings import Setting

PLACES = 7  # a side of the map that the paper's network has


def mix(mean: Tensor, log_variance: Tensor, partners: Tensor) -> tuple[Tensor, Tensor]:
    """Return each sample mixed with its partner, and the uncertainties.

    Parameters
    ----------
    mean, log_variance : Tensor, (N, d) float
    partners : Tensor, (N,) int64
        A permutation of the batch.

    Returns
    -------
    mixed : Tensor, (N, d)
    uncertainty : Tensor, (N,)
    """
    log_sum = log_variance.logsumexp(dim=1)
    # u_i / (u_i + u_j) as a sigmoid of logarithms, so that a huge exp(s) gives no inf / inf.
    share = (log_sum - log_sum[partners]).sigmoid()[:, None]
    return share * mean + (1 - share) * mean[partners], log_variance.exp().mean(dim=1)


class Head(nn.Module):
    """From a feature map, (N, D, h, w), to (N, width) numbers with normalised columns."""

    def __init__(self, num_features: int, width: int, dropout: float):
        super().__init__()
        self.norm_map = nn.BatchNorm2d(num_features, affine=False)
        self.linear = nn.Linear(num_features * PLACES**2, width)
        self.norm = nn.BatchNorm1d(width)
        self.dropout = dropout

    def forward(self, feature_map: Tensor, generator: np.random.Generator | None) -> Tensor:
        """Apply the head; with a generator it drops, without one (in testing) it does not."""
        normalised = self.norm_map(feature_map)
        if generator is not None:
            kept = generator.random(normalised.shape, dtype=np.float32) >= self.dropout
            kept = torch.from_numpy(kept).to(normalised.device)
            normalised = normalised * kept / (1 - self.dropout)
        weight = self.linear.weight.view(len(self.linear.weight), -1, PLACES, PLACES)
        weight = functional.adaptive_avg_pool2d(weight, feature_map.shape[2:])
        projected = functional.linear(normalised.flatten(1), weight.flatten(1), self.linear.bias)
        return self.norm(projected.float())


@register("rul")
class RUL(Method):
    """Relative uncertainty learning.

    Its records: `uncertainty`, u of the formula, and predictions by FC(mu) of the unmixed image.

    Parameters
    ----------
    dropout : float
        0.4 in the paper.
    width : int
        Numbers in mu; 64 in the paper.
    """

    dropout: float = Setting(0.4, 0, 1, without=(1,))
    width: int = Setting(64, 1)
    lr_factor = 10.0
    detectors: ClassVar = {"uncertainty": "high"}

    def setup(self, training_set: TrainingSet) -> None:
        self.mean_head = Head(training_set.num_features, self.width, self.dropout)
        self.variance_head = Head(training_set.num_features, self.width, self.dropout)
        self.classifier = nn.Linear(self.width, training_set.num_classes)
        self.register_buffer("seed", torch.randint(2**31, ()))

    def draws(self, epoch: int, samples: Tensor) -> np.random.Generator:
        """Return the generator of one batch: of the permutation first, then of both dropouts."""
        return np.random.default_rng([int(self.seed), epoch, int(samples[0])])

    def forward(self, output: ModelOutput):
        generator = self.draws(output.epoch, output.samples)
        partners = torch.from_numpy(generator.permutation(len(output.labels)))
        partners = partners.to(output.labels.device)
        mean = self.mean_head(output.feature_map, generator)
        log_variance = self.variance_head(output.feature_map, generator)
        mixed, uncertainty = mix(mean, log_variance, partners)
        logits = self.classifier(mixed).float()
        loss = functional.cross_entropy(logits, output.labels) / 2
        loss = loss + functional.cross_entropy(logits, output.labels[partners]) / 2
        with torch.no_grad():
            records = prediction_records(self.classifier(mean).float(), output.labels)
        return loss, {**records, "uncertainty": uncertainty.detach()}

    def predict(self, output: ModelOutput) -> Tensor:
        return self.classifier(self.mean_head(output.feature_map, None)).float()

    def class_vectors(self, network, own):
        return own["classifier.weight"]
