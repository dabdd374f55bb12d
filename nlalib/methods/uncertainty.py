"""Uncertainty-aware loss on the votes: logits with a noise whose size the network predicts.

A re-interpretation: a digest of Wang et al., "Rethinking the Learning Paradigm for FER"
(arXiv 2209.15402), names an uncertainty-aware loss, but its equations are not known to us. The
form taken is published: Kendall and Gal, "What Uncertainties Do We Need in Bayesian Deep Learning
for Computer Vision?", NeurIPS 2017, equation 12, with the shares q of the votes in place of one
label. With features x, logits z and T draws e_t ~ N(0, I):

    s = softplus(W x + b)                          one scale for each class
    r = (1 / T) sum_t softmax(z + s e_t)           the expected prediction
    L = - sum_c q_c log r_c

Where people disagree, a large s lowers the loss without changing which class z puts first. With
s = 0 this is the cross-entropy to the votes, and with votes that agree the original's loss.

The draws come from a table that is made once and stored: sample i takes row i + 97 e of it in
epoch e, so that a run which is resumed repeats its numbers.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from nlalib.methods.base import Method, ModelOutput, TrainingSet, register
from nlalib.methods.recorded import prediction_records
from nlalib.methods.settings import Setting
from nlalib.methods.targets import vote_distribution

_ROWS = 256  # of the table of draws
_ROWS_OF_PREDICTION = 16
_STRIDE = 97  # rows from one epoch to the next; prime to _ROWS, so that all rows have their turn


def expected_log_probabilities(logits: Tensor, scale: Tensor, noise: Tensor) -> Tensor:
    """Return log r, (N, K) float: the logarithm of the mean softmax over the draws.

    Parameters
    ----------
    logits, scale : Tensor, (N, K) float
    noise : Tensor, (N, T, K) or (1, T, K) float
        Standard normal draws.
    """
    drawn = (logits[:, None] + scale[:, None] * noise).log_softmax(dim=2)
    return drawn.logsumexp(dim=1) - math.log(noise.shape[1])


@register("uncertainty")
class Uncertainty(Method):
    """Mean of L; judged by r, over 16 T draws that are the same for every image.

    Records: `uncertainty`, the mean of s over the classes, and predictions by r.

    Parameters
    ----------
    draws : int
        T.
    """

    draws: int = Setting(10, 1)
    needs = ("votes",)
    detectors: ClassVar = {"uncertainty": "high"}

    def setup(self, training_set: TrainingSet) -> None:
        super().setup(training_set)
        self.scale = nn.Linear(training_set.num_features, training_set.num_classes)
        # Of one size at first for all images, about 0.3, so that training begins near LDL.
        nn.init.zeros_(self.scale.weight)
        nn.init.constant_(self.scale.bias, -1.0)
        self.register_buffer("noise", torch.randn(_ROWS, self.draws, training_set.num_classes))

    def scales(self, features: Tensor) -> Tensor:
        """Return s, (N, K) float32."""
        return functional.softplus(self.scale(features).float())

    def forward(self, output: ModelOutput):
        scale = self.scales(output.features)
        noise = self.noise[(output.samples + _STRIDE * output.epoch) % _ROWS]
        log_expected = expected_log_probabilities(output.logits, scale, noise)
        loss = -(vote_distribution(output.votes) * log_expected).sum(dim=1).mean()
        return loss, {
            **prediction_records(log_expected, output.labels),
            "uncertainty": scale.detach().mean(dim=1),
        }

    def predict(self, output: ModelOutput) -> Tensor:
        noise = self.noise[:_ROWS_OF_PREDICTION].flatten(0, 1)[None]
        return expected_log_probabilities(output.logits, self.scales(output.features), noise)
