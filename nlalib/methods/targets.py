"""What the methods that learn from votes or candidate sets share."""

import torch
from torch import Tensor
from torch.nn import functional

from nlalib.methods.base import Method, ModelOutput, TrainingSet


def vote_distribution(votes: Tensor) -> Tensor:
    """Return the distribution of each sample's votes, (N, K) float32, rows that sum to 1."""
    votes = votes.float()
    return votes / votes.sum(dim=1, keepdim=True)


def divergence(targets: Tensor, logits: Tensor) -> Tensor:
    """Return KL(targets || softmax(logits)) of each sample, (N,), in nats.

    Parameters
    ----------
    targets, logits : Tensor, (N, K) float
        The targets' rows sum to 1. A row with a single 1 gives the cross-entropy.
    """
    return functional.kl_div(logits.log_softmax(dim=1), targets, reduction="none").sum(dim=1)


def log_candidate_mass(logits: Tensor, candidates: Tensor) -> Tensor:
    """Return log sum_{c in S} p_c of each sample, (N,), p = softmax(logits).

    In logarithms, so that a mass that underflows has a finite value and gradient.
    """
    inside = logits.masked_fill(~candidates, -torch.inf)
    return inside.logsumexp(dim=1) - logits.logsumexp(dim=1)


@torch.no_grad()
def probabilities_within(logits: Tensor, members: Tensor) -> Tensor:
    """Return p_c / sum_{S} p for c in S and 0 elsewhere, (N, K), without gradients.

    A row without members is all zeros.
    """
    within = logits.masked_fill(~members, -torch.inf).softmax(dim=1)
    return within.masked_fill(~members, 0.0)


def identification_records(targets: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return which candidate the targets point to, and whether it is the given label.

    Parameters
    ----------
    targets : Tensor, (N, K) float
        0 for classes that are no candidates.
    labels : Tensor, (N,) int64

    Returns
    -------
    dict of Tensor, (N,) float32
        `identified`, a class id, and `disambiguated`, 1 or 0.
    """
    identified = targets.detach().argmax(dim=1)
    return {
        "identified": identified.float(),
        "disambiguated": (identified == labels).float(),
    }


class StoredTargets(Method):
    """Base of methods that keep a target distribution over the candidates for each sample.

    The target is uniform over the candidates at first. A sample's loss is the cross-entropy to
    the target as its last turn left it; then the target is replaced.
    """

    needs = ("candidates",)
    keeps_samples = True

    def setup(self, training_set: TrainingSet) -> None:
        super().setup(training_set)
        candidates = training_set.candidates.float()
        self.register_buffer("targets", candidates / candidates.sum(dim=1, keepdim=True))

    def learn(self, logits: Tensor, output: ModelOutput, new_targets: Tensor):
        """Return (loss to the stored targets, records of the new ones), and store the new ones."""
        loss = functional.cross_entropy(logits, self.targets[output.samples])
        self.targets[output.samples] = new_targets.to(self.targets.dtype)
        return loss, identification_records(new_targets, output.labels)
