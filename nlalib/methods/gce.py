"""Generalised cross-entropy: between cross-entropy and absolute error, against wrong labels.

Source: Zhang, Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with
Noisy Labels", NeurIPS 2018. With p_y = softmax(z)_y:

    L = mean of (1 - p_y^q) / q,    q = 0.7

Its limit for q to 0 is cross-entropy; q = 1 is 1 - p_y. Its gradient is p_y^q times that of
cross-entropy, so a label that the network finds improbable pulls less.

What differs here: nothing in the loss (the paper's truncated form, which leaves out samples of
low p_y, is not built).
"""

from typing import ClassVar

import torch
from torch.nn import functional

from nlalib.methods.base import Method, ModelOutput, register
from nlalib.methods.settings import Setting


@register("gce")
class GeneralisedCrossEntropy(Method):
    """(1 - p_y^q) / q; the record `weight` is p_y^q, its gradient over that of cross-entropy.

    Parameters
    ----------
    q : float
        Above 0, up to 1; 0.7 in the paper.
    """

    q: float = Setting(0.7, 0, 1, without=(0,))
    detectors: ClassVar = {"weight": "low"}

    def forward(self, output: ModelOutput):
        # By the logarithm, so that p_y = 0 has a gradient of 0 and not of NaN.
        log_p = -functional.cross_entropy(output.logits, output.labels, reduction="none")
        losses = -torch.expm1(self.q * log_p) / self.q
        return losses.mean(), {"weight": (self.q * log_p).exp().detach()}
