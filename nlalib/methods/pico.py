"""PiCO: images that look alike share a prototype, and prototypes settle the candidates.

Source: Wang et al., "PiCO: Contrastive Label Disambiguation for Partial Label Learning", ICLR
2022; behaviour of `model.py`, `train.py` and `utils/utils_loss.py` in hbzju/PiCO. With unit
embeddings u of the images (an MLP on the features), v of their mirror images (without gradient),
a queue of earlier v, p = softmax(z), the candidate set S, the pseudo-label y' = argmax_S p, a
prototype mu_c of each class and a stored target q of each sample:

    q    <- phi q + (1 - phi) onehot(argmax_{c in S} u . mu_c)   uniform over S at first
    L    = - sum_{c in S} q_c log p_c + weight C
    C    = - mean_{a in P} log [ exp(u . a / T) / sum_{b in A} exp(u . b / T) ]
    mu_c <- unit(m mu_c + (1 - m) u)      after the loss, for each sample of the batch with y' = c

A holds the other u of the batch, all its v and the queue; P those of A with the same y'. While
warm-up lasts, q stays uniform, P is the sample's own v, and A that v and the queue. phi falls
in a line from its first to its last value.

What differs here: the original takes v from a second encoder that follows the network slowly, and
keeps 8,192 of them. Here v comes from the network itself, which costs a forward pass less; the
queue is short, so that its embeddings are of nearly the same network.

One candidate and weight 0 give the cross-entropy.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from nlalib.methods.base import ModelOutput, TrainingSet, register
from nlalib.methods.settings import Setting
from nlalib.methods.targets import StoredTargets, identification_records, probabilities_within

_TEMPERATURE = 0.07  # T of the original
EMBEDDING_WIDTH = 128
NO_LABEL = -1  # of a place in the queue that was never filled


def contrastive_loss(queries: Tensor, others: Tensor, positives: Tensor, counted: Tensor) -> Tensor:
    """Return C of each query, (N,); 0 for a query without a positive.

    Parameters
    ----------
    queries : Tensor, (N, D) float32, others : Tensor, (M, D) float32
        Rows of length 1.
    positives, counted : Tensor, (N, M) bool
        P and A of each query.
    """
    similarities = (queries @ others.T / _TEMPERATURE).masked_fill(~counted, -torch.inf)
    log_shares = similarities - similarities.logsumexp(dim=1, keepdim=True)
    positives = positives & counted
    attracted = log_shares.masked_fill(~positives, 0.0).sum(dim=1)
    return -attracted / positives.sum(dim=1).clamp(min=1)


def moved_prototypes(
    prototypes: Tensor, embeddings: Tensor, pseudo_labels: Tensor, momentum: float
) -> Tensor:
    """Return the prototypes, (K, D), after one turn of each embedding, in the batch's order."""
    member = functional.one_hot(pseudo_labels, len(prototypes)).float()  # (N, K)
    later = member.flip(0).cumsum(0).flip(0) - member  # members of the class that come after
    weights = (1 - momentum) * momentum**later * member
    kept = momentum ** member.sum(dim=0)
    return functional.normalize(kept[:, None] * prototypes + weights.T @ embeddings, dim=1)


@register("pico")
class PiCO(StoredTargets):
    """Mean of L.

    Records: `identified`, the candidate with the highest target (while warm-up lasts and targets
    are even, y'), `disambiguated`, whether it is the given label, and `contrast`, C.

    Parameters
    ----------
    weight : float
        Of C, 0 or more.
    first_momentum, last_momentum : float
        phi at the first and at the last epoch, from 0 to 1. After n turns the product of n of
        them is left of the uniform target: short runs need smaller ones.
    prototype_momentum : float
        m, from 0 to below 1.
    warm_up : float
        Share of the epochs before prototypes settle candidates, from 0 to 1; the original waits
        for 1 to 100 of its 800 epochs.
    queue : int
        How many earlier v are kept.
    """

    weight: float = Setting(0.5)
    first_momentum: float = Setting(0.95, 0, 1)
    last_momentum: float = Setting(0.8, 0, 1)
    prototype_momentum: float = Setting(0.99, 0, 1, without=(1,))
    warm_up: float = Setting(0.1, 0, 1)
    places: int = Setting(1024, 1, called="queue")
    two_views = True

    def setup(self, training_set: TrainingSet) -> None:
        super().setup(training_set)
        width = training_set.num_features
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, EMBEDDING_WIDTH)
        )
        prototypes = torch.zeros(training_set.num_classes, EMBEDDING_WIDTH)
        self.register_buffer("prototypes", prototypes)
        self.register_buffer("queue", torch.zeros(self.places, EMBEDDING_WIDTH))
        self.register_buffer("queue_labels", torch.full((self.places,), NO_LABEL))
        self.register_buffer("next_place", torch.zeros((), dtype=torch.int64))

    def momentum_at(self, epoch: int, epochs: int) -> float:
        """Return phi in an epoch counted from 0."""
        first, last = self.first_momentum, self.last_momentum
        return first + (last - first) * epoch / max(epochs - 1, 1)

    def embed(self, features: Tensor) -> Tensor:
        """Return unit embeddings, (N, 128) float32."""
        return functional.normalize(self.head(features).float(), dim=1)

    def forward(self, output: ModelOutput):
        embeddings = self.embed(output.features)
        with torch.no_grad():
            flipped = self.embed(output.features_flipped)
        # In full precision: similarities are divided by T.
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.learn_from_embeddings(embeddings, flipped, output)

    def learn_from_embeddings(self, embeddings: Tensor, flipped: Tensor, output: ModelOutput):
        """Return (mean of L, records), and store what the next batch starts from."""
        pseudo_labels = probabilities_within(output.logits, output.candidates).argmax(dim=1)
        warm = output.epoch < self.warm_up * output.epochs
        if not warm:
            self.settle(embeddings.detach(), output)
        targets = self.targets[output.samples]
        contrast = self.contrast(embeddings, flipped, pseudo_labels, warm)
        loss = functional.cross_entropy(output.logits, targets) + self.weight * contrast.mean()
        self.prototypes = moved_prototypes(
            self.prototypes, embeddings.detach(), pseudo_labels, self.prototype_momentum
        )
        self.remember(flipped, pseudo_labels)
        settled = functional.one_hot(pseudo_labels, targets.shape[1]) if warm else targets
        records = identification_records(settled, output.labels)
        return loss, {**records, "contrast": contrast.detach()}

    @torch.no_grad()
    def settle(self, embeddings: Tensor, output: ModelOutput) -> None:
        """Move the targets of the batch's samples to the candidate with the nearest prototype."""
        nearness = (embeddings @ self.prototypes.T).masked_fill(~output.candidates, -torch.inf)
        nearest = functional.one_hot(nearness.argmax(dim=1), nearness.shape[1])
        kept = self.momentum_at(output.epoch, output.epochs)
        self.targets[output.samples] *= kept
        self.targets[output.samples] += (1 - kept) * nearest

    def contrast(
        self, embeddings: Tensor, flipped: Tensor, pseudo_labels: Tensor, warm: bool
    ) -> Tensor:
        """Return C of each sample, (N,)."""
        own = torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
        queued = (self.queue_labels != NO_LABEL).expand(len(own), -1)
        others = torch.cat([embeddings, flipped, self.queue])
        if warm:
            nothing = torch.zeros_like(own)
            positives = torch.cat([nothing, own, torch.zeros_like(queued)], dim=1)
            return contrastive_loss(
                embeddings, others, positives, torch.cat([nothing, own, queued], dim=1)
            )
        labels = torch.cat([pseudo_labels, pseudo_labels, self.queue_labels])
        counted = torch.cat([~own, torch.ones_like(own), queued], dim=1)
        return contrastive_loss(embeddings, others, pseudo_labels[:, None] == labels, counted)

    @torch.no_grad()
    def remember(self, flipped: Tensor, pseudo_labels: Tensor) -> None:
        """Put the batch's v into the queue, in place of the oldest."""
        flipped, pseudo_labels = flipped[-self.places :], pseudo_labels[-self.places :]
        places = (self.next_place + torch.arange(len(flipped), device=flipped.device)) % self.places
        self.queue[places] = flipped
        self.queue_labels[places] = pseudo_labels
        self.next_place = (self.next_place + len(flipped)) % self.places
