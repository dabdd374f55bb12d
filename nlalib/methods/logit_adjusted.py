"""Logit adjustment: train with the class frequencies added, predict without them.

Source: Menon et al., "Long-Tail Learning via Logit Adjustment", ICLR 2021. With pi_c the share of
class c among the training labels:

    L = mean CE(z + tau log pi, y),    tau = 1

In testing the logits are z alone. The network thus need not lower the logits of rare classes to
follow their frequency.

What differs here: nothing in the loss (the paper's other form, which adjusts a trained network's
logits afterwards, is not built). A class without training images counts as one image, since the
logarithm of 0 would take it out of the loss but not out of the predictions.
"""

import torch
from torch.nn import functional

from nlalib.methods.base import Method, ModelOutput, TrainingSet, register
from nlalib.methods.settings import Setting


@register("logit_adjusted")
class LogitAdjusted(Method):
    """Cross-entropy of logits with tau log pi added.

    Parameters
    ----------
    tau : float
        At least 0; 1 in the paper. With 0 it is cross-entropy.
    """

    tau: float = Setting(1.0)

    def setup(self, training_set: TrainingSet) -> None:
        counts = torch.bincount(training_set.labels, minlength=training_set.num_classes)
        counts = counts.clamp(min=1).float()
        self.register_buffer("log_prior", (counts / counts.sum()).log())

    def forward(self, output: ModelOutput):
        adjusted = output.logits + self.tau * self.log_prior
        return functional.cross_entropy(adjusted, output.labels), {}
