"""Class-balanced loss: cross-entropy weighted by a class's effective number of samples.

Source: Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019. With
n_c training images of class c:

    E_c = (1 - beta^n_c) / (1 - beta),    w_c proportional to 1 / E_c,    sum of w_c = K
    L   = mean of w_y CE

beta = 0 gives equal weights, beta towards 1 gives 1 / n_c. The paper tries .9, .99, .999 and
.9999; we take .9999.

What differs here: softmax cross-entropy only, one of the three losses that the paper weighs. A
class without training images has weight 0, and K counts the classes that have some.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from nlalib.methods.base import Method, ModelOutput, TrainingSet, register
from nlalib.methods.settings import Setting


def effective_number_weights(labels: Tensor, num_classes: int, beta: float) -> Tensor:
    """Return w_c, (K,) float32, whose mean over classes with images is 1.

    Parameters
    ----------
    labels : Tensor, (N,) int64
    num_classes : int
    beta : float
        From 0 up to, but not including, 1.
    """
    counts = torch.bincount(labels, minlength=num_classes).double()
    present = counts > 0
    if beta == 0:
        return present.float()
    # 1 - beta^n without rounding it away; the factor 1 - beta falls out in the normalisation.
    weights = torch.where(present, -1 / torch.expm1(counts * math.log(beta)), 0.0)
    return (weights * present.sum() / weights.sum()).float()


@register("class_balanced")
class ClassBalanced(Method):
    """Cross-entropy times w_y, which is the record `weight`.

    Parameters
    ----------
    beta : float
        From 0 up to, but not including, 1.
    """

    beta: float = Setting(0.9999, 0, 1, without=(1,))
    detectors: ClassVar = {"weight": "low"}

    def setup(self, training_set: TrainingSet) -> None:
        weights = effective_number_weights(training_set.labels, training_set.num_classes, self.beta)
        self.register_buffer("class_weights", weights)

    def forward(self, output: ModelOutput):
        weights = self.class_weights[output.labels]
        losses = functional.cross_entropy(output.logits, output.labels, reduction="none")
        # The mean over samples: PyTorch's `weight=` would divide by the batch's sum of weights.
        return (weights * losses).mean(), {"weight": weights}
