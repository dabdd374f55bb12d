"""What annotators would say if all people were asked: estimated from ten votes an image.

Ten votes scatter around the distribution from which they are drawn, so that even that distribution
scores above zero against them: a floor below which no network gets but by luck. It is not known.
Its spread over images is: the votes of a set are fitted by a mixture of Dirichlet-multinomials,
by EM with Minka's fixed point ("Estimating a Dirichlet distribution", 2000, eq. 55) as M-step.
Given its votes, an image's distribution then has a known posterior; it is drawn from there, new
votes are drawn from it, and the one is scored against the other as a network is.

To take the shares of ten votes themselves for the truth would understate how mixed faces are: of a
face that nine in ten people call happy, ten votes are often unanimous.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, gammaln, logsumexp

COMPONENTS, ITERATIONS = 30, 150
_SMALLEST = 1e-3  # of a Dirichlet's parameters


@dataclass(frozen=True)
class VoteModel:
    """A fitted mixture.

    Attributes
    ----------
    weights : numpy.ndarray, (C,)
    parameters : numpy.ndarray, (C, K)
        Of the Dirichlet distributions.
    """

    weights: np.ndarray
    parameters: np.ndarray

    def responsibilities(self, votes: np.ndarray) -> np.ndarray:
        """Return how likely each component is behind each image's votes, (N, C)."""
        logs = np.log(self.weights) + _log_likelihood(votes, self.parameters)
        return np.exp(logs - logsumexp(logs, axis=1, keepdims=True))

    def draw(self, votes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Return a distribution for each image, drawn from its posterior, (N, K)."""
        edges = self.responsibilities(votes).cumsum(axis=1)
        chosen = (generator.random((len(votes), 1)) > edges[:, :-1]).sum(axis=1)
        gammas = generator.standard_gamma(self.parameters[chosen] + votes)
        gammas = np.maximum(gammas, np.finfo(float).tiny)
        return gammas / gammas.sum(axis=1, keepdims=True)


def fit_votes(votes: np.ndarray) -> VoteModel:
    """Fit the mixture to votes.

    Parameters
    ----------
    votes : numpy.ndarray, (N, K) int
        At least one vote in each row.

    Returns
    -------
    VoteModel
    """
    patterns, counts = np.unique(votes, axis=0, return_counts=True)
    components, shares = min(COMPONENTS, len(patterns)), counts / counts.sum()
    start = np.random.default_rng(0).choice(len(patterns), components, replace=False, p=shares)
    model = VoteModel(np.full(len(start), 1 / len(start)), patterns[start] + 0.5)
    for _ in range(ITERATIONS):
        model = _step(model, patterns, counts)
    return model


def _step(model: VoteModel, patterns: np.ndarray, counts: np.ndarray) -> VoteModel:
    shared = model.responsibilities(patterns) * counts[:, None]  # (P, C)
    old = model.parameters
    total, sizes = old.sum(axis=1), patterns.sum(axis=1)
    below = (shared * (digamma(sizes[:, None] + total) - digamma(total))).sum(axis=0)
    gains = digamma(patterns[:, None] + old) - digamma(old)  # (P, C, K)
    above = (shared[:, :, None] * gains).sum(axis=0)
    weights = np.maximum(shared.sum(axis=0), 1e-9)
    parameters = np.maximum(old * above / np.maximum(below, 1e-12)[:, None], _SMALLEST)
    return VoteModel(weights / weights.sum(), parameters)


def _log_likelihood(votes: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """Return ln P(votes | component) but for what is the same for all components, (N, C)."""
    total, sizes = parameters.sum(axis=1), votes.sum(axis=1)
    logs = gammaln(total) - gammaln(sizes[:, None] + total)
    for k in range(parameters.shape[1]):
        logs += gammaln(votes[:, k, None] + parameters[:, k]) - gammaln(parameters[:, k])
    return logs


def pair_agreement(votes: np.ndarray) -> float:
    """Return how often two annotators of an image agree, mean over images with two or more votes.

    An unbiased estimate of the mean of sum_k p_k^2, whatever the distributions p: what a model of
    them can be checked by.
    """
    sizes = votes.sum(axis=1)
    votes, sizes = votes[sizes > 1], sizes[sizes > 1]
    return float(((votes * (votes - 1)).sum(axis=1) / (sizes * (sizes - 1))).mean())
