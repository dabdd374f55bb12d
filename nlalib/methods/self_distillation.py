"""Self-distillation: the votes, and what the network has said of the image so far.

A re-interpretation: a digest of Wang et al., "Rethinking the Learning Paradigm for FER"
(arXiv 2209.15402), names distillation at the level of distributions, but its equations are not
known to us. The averaged teacher is published: temporal ensembling, Laine and Aila, ICLR 2017.
With the shares q of the votes, p = softmax(z) and a stored average Z of each sample:

    L = KL(q || p) + weight ramp(e) KL(teacher || p)
    teacher = Z / (1 - a^n)          after n turns; without a turn there is no such term
    Z <- a Z + (1 - a) p             after the loss
    ramp(e) = exp(-5 (1 - e / (share E))^2) for e < share E, then 1

The original compares predictions by their squared distance and knows no votes; here both terms
are divergences. Votes that agree, with weight 0, give the cross-entropy.
"""

import math

import torch
from torch import Tensor

from nlalib.methods.base import Method, ModelOutput, TrainingSet, register
from nlalib.methods.settings import Setting
from nlalib.methods.targets import divergence, vote_distribution


@register("self_distillation")
class SelfDistillation(Method):
    """Mean of L. Records: `kl_to_votes` and `kl_to_teacher` (0 without a teacher), in nats.

    Parameters
    ----------
    weight : float
        Of the teacher's term, 0 or more.
    momentum : float
        a, from 0 to below 1; 0.6 in Laine and Aila.
    ramp : float
        Share of the epochs over which the teacher's term grows, from 0 to 1; 80 epochs of 300
        in Laine and Aila.
    """

    weight: float = Setting(1.0)
    momentum: float = Setting(0.6, 0, 1, without=(1,))
    ramp: float = Setting(0.25, 0, 1)
    needs = ("votes",)
    keeps_samples = True

    def setup(self, training_set: TrainingSet) -> None:
        super().setup(training_set)
        zeros = torch.zeros_like(training_set.votes, dtype=torch.float32)
        self.register_buffer("average", zeros)
        self.register_buffer("turns", torch.zeros_like(training_set.labels))

    def ramp_at(self, epoch: int, epochs: int) -> float:
        """Return the factor of the teacher's term in an epoch counted from 0."""
        length = self.ramp * epochs
        return math.exp(-5 * (1 - epoch / length) ** 2) if epoch < length else 1.0

    def teacher(self, samples: Tensor) -> Tensor:
        """Return the corrected average of each sample, (N, K); zeros before its first turn."""
        correction = 1 - self.momentum ** self.turns[samples].float()
        return self.average[samples] / correction.clamp(min=1e-6)[:, None]

    def forward(self, output: ModelOutput):
        samples = output.samples
        to_votes = divergence(vote_distribution(output.votes), output.logits)
        # A row of zeros, before the first turn, has divergence 0 and no gradient.
        to_teacher = divergence(self.teacher(samples), output.logits)
        factor = self.weight * self.ramp_at(output.epoch, output.epochs)
        loss = (to_votes + factor * to_teacher).mean()
        probabilities = output.logits.detach().softmax(dim=1)
        mixed = self.momentum * self.average[samples] + (1 - self.momentum) * probabilities
        self.average[samples] = mixed
        self.turns[samples] += 1
        return loss, {"kl_to_votes": to_votes.detach(), "kl_to_teacher": to_teacher.detach()}
