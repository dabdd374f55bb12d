"""How far the predictions of an image and of its mirror image lie apart."""

import math

import torch
from torch import Tensor
from torch.nn import functional


def jensen_shannon(logits: Tensor, logits_flipped: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of the two predictions, for each sample.

    L_reg of the NLA paper (framework figure). With p, q the two softmax distributions and
    m = (p + q) / 2: JSD = (KL(p || m) + KL(q || m)) / 2.

    Parameters
    ----------
    logits, logits_flipped : Tensor, (N, K) float

    Returns
    -------
    Tensor, (N,) float
        In nats, from 0 to ln 2.
    """
    log_p = logits.log_softmax(dim=1)
    log_q = logits_flipped.log_softmax(dim=1)
    # In logarithms, so that probabilities that underflow give 0 and no NaN in the gradient.
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    divergence = log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)
    return divergence.sum(dim=1) / 2


def absolute_difference(logits: Tensor, logits_flipped: Tensor) -> Tensor:
    """Return the L1 distance of the two predictions, sum_c |p_c - q_c|, for each sample.

    One of the terms that the authors tried: the released script's `--exp_name` still lists the
    experiments NAW_CAM, NAW_L1, L1, CAM and JSD, whose notebook was deleted (jungyu0413/NLA at
    7c3dec7). Their formula is not known; this is the plainest reading, and untuned.

    Parameters
    ----------
    logits, logits_flipped : Tensor, (N, K) float

    Returns
    -------
    Tensor, (N,) float
        From 0 to 2.
    """
    return (logits.softmax(dim=1) - logits_flipped.softmax(dim=1)).abs().sum(dim=1)


def released_consistency(logits: Tensor, logits_flipped: Tensor) -> Tensor:
    """Return the released code's term, a scalar that is *summed* over the batch.

    Behaviour of `src/loss.py`, jungyu0413/NLA at b86f31f. It mixes logits, not probabilities:
    with m = (z + z') / 2, (KL(softmax m || softmax z) + KL(softmax m || softmax z')) / 2.
    Unlike the divergence it is named after, it has no upper bound, and it grows with the batch.

    Parameters
    ----------
    logits, logits_flipped : Tensor, (N, K) float
    """
    log_mixture = ((logits + logits_flipped) / 2).log_softmax(dim=1)

    def divergence_from_mixture(view: Tensor) -> Tensor:
        return functional.kl_div(
            view.log_softmax(dim=1), log_mixture, reduction="sum", log_target=True
        )

    return (divergence_from_mixture(logits) + divergence_from_mixture(logits_flipped)) / 2
