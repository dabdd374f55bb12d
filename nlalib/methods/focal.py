"""Focal loss: samples that are already recognised count less.

Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017. With p_y = softmax(z)_y:

    L = mean of (1 - p_y)^gamma CE,    gamma = 2

What differs here: several classes instead of object against background, so that there is no
alpha, which balances those two; and the mean over samples instead of the sum over anchors.
"""

from typing import ClassVar

import torch
from torch.nn import functional

from nlalib.methods.base import Method, ModelOutput, register
from nlalib.methods.settings import Setting


@register("focal")
class Focal(Method):
    """Cross-entropy times (1 - p_y)^gamma, which is the record `weight`.

    Parameters
    ----------
    gamma : float
        At least 0; 2 in the paper. With 0 it is cross-entropy.
    """

    gamma: float = Setting(2.0)
    detectors: ClassVar = {"weight": "low"}

    def forward(self, output: ModelOutput):
        log_p = output.logits.log_softmax(dim=1)
        is_label = functional.one_hot(output.labels, log_p.shape[1]).bool()
        # log(1 - p_y) as a sum over the other classes: exact, with a finite gradient at p_y = 1.
        log_others = log_p.masked_fill(is_label, -torch.inf).logsumexp(dim=1)
        weights = (self.gamma * log_others).exp()
        losses = weights * functional.nll_loss(log_p, output.labels, reduction="none")
        return losses.mean(), {"weight": weights.detach()}
