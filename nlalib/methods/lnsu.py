"""LNSU-Net (MEK): consistent attention and smooth labels, both turned towards rare classes.

Source: "Leave No Stone Unturned: Mine Extra Knowledge for Imbalanced Facial Expression
Recognition" (MEK; its network is called LNSU-Net), NeurIPS 2023. N training images, N_c of
class c:

    w_c = 0.1 N / N_c
    D_c = mean squared difference of CAM_c(view 1) and mirror(CAM_c(view 2)), as in EAC
    t   = 0.7 for the label, 0.3 over the other classes in proportion to w_c
    L   = CE(view 1, t) + 0.1 mean over c of w_c D_c

What differs here: our backbones and initial weights instead of a ResNet-18 from MS-Celeb-1M. Our
description says that the differences are "averaged with w_c": taken as the plain mean of w_c D_c,
not divided by the sum of w_c. A class without training images has weight 0, where the formula has
none. As in `eac`, erasing belongs to the run's augmentation.
"""

import torch
from torch import Tensor
from torch.nn import functional

from nlalib.methods.base import Method, ModelOutput, TrainingSet, register
from nlalib.methods.eac import mirror_differences
from nlalib.methods.settings import Setting


def rarity_weights(labels: Tensor, num_classes: int, scale: float) -> Tensor:
    """Return w_c = scale N / N_c, (K,) float32; 0 for a class without images."""
    counts = torch.bincount(labels, minlength=num_classes)
    weights = scale * len(labels) / counts.clamp(min=1)
    return torch.where(counts > 0, weights, 0.0)


def smooth_targets(weights: Tensor, label_share: float) -> Tensor:
    """Return the target distribution of each label, (K, K) float32, rows sum to 1.

    Parameters
    ----------
    weights : Tensor, (K,) float32
        How the other classes share the rest. Where they all have 0, they share it equally.
    label_share : float
        Probability of the label itself.
    """
    label = torch.eye(len(weights), dtype=weights.dtype)
    others = weights.expand_as(label) * (1 - label)
    total = others.sum(dim=1, keepdim=True)
    equal = (1 - label) / (len(weights) - 1)
    shares = torch.where(total > 0, others / total.clamp(min=1e-12), equal)
    return label_share * label + (1 - label_share) * shares


@register("lnsu")
class LNSU(Method):
    """LNSU-Net, the network of MEK.

    Its records: `consistency`, the weighted mean squared difference of a sample's maps.

    Parameters
    ----------
    class_weight_scale, label_share, consistency_weight : float
        0.1, 0.7 and 0.1 in the paper.
    """

    class_weight_scale: float = Setting(0.1, without=(0,))
    label_share: float = Setting(0.7, 0, 1)
    consistency_weight: float = Setting(0.1)
    two_views = True

    def setup(self, training_set: TrainingSet) -> None:
        weights = rarity_weights(
            training_set.labels, training_set.num_classes, self.class_weight_scale
        )
        self.register_buffer("class_weights", weights)
        self.register_buffer("targets", smooth_targets(weights, self.label_share))

    def forward(self, output: ModelOutput):
        differences = mirror_differences(output).mean(dim=(2, 3))  # (N, K)
        consistency = (self.class_weights * differences).mean(dim=1)
        loss = functional.cross_entropy(output.logits, self.targets[output.labels])
        loss = loss + self.consistency_weight * consistency.mean()
        return loss, {"consistency": consistency.detach()}
