"""Noise-aware Adaptive Weighting (NAW): a weight for each sample from two probabilities.

Lee et al., "Navigating Label Ambiguity for Facial Expression Recognition in the Wild",
AAAI 2025, arXiv 2502.09993. With p = softmax(z), a sample stands at the point
(p_gt, p_nn): the probability of its label, and of its *nearest negative*, the most probable
other class. The weight is a two-dimensional Gaussian of that point, one for the True case
(p_gt >= p_nn) and one for the False case (p_gt < p_nn); the loss is (1 + w) CE.

What the paper does not state (means, schedule, whether w is normalised or detached) follows
the authors' released code: behaviour of `src/loss.py` in jungyu0413/NLA, commits 2b9167b
(March 2025) and b86f31f (May 2025), and of `Integrated_Co_GA_Loss` in jungyu0413/V-NAW.
The notebook on discrepancies measures what each difference does.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from nlalib.names import named


def diagonal_covariance(variance: float, axis_ratio: float) -> tuple[float, float]:
    """Return (s, c) of the covariance [[s, c], [c, s]] from the paper's two numbers.

    The axes lie along (1, 1) and (1, -1) with variances s + c and s - c. An axis ratio r : 1
    gives (s + |c|) / (s - |c|) = r^2, so |c| = s (r^2 - 1) / (r^2 + 1).

    Parameters
    ----------
    variance : float
        sigma_11 = s; the paper states 0.8.
    axis_ratio : float
        Major to minor axis, at least 1; the paper states 2 (True) and 6 (False).

    Returns
    -------
    tuple of float
        s and |c|.
    """
    if variance <= 0 or axis_ratio < 1:
        raise ValueError(f"variance {variance} must be > 0 and axis_ratio {axis_ratio} >= 1")
    squared = axis_ratio**2
    return variance, variance * (squared - 1) / (squared + 1)


@dataclass(frozen=True)
class NAWVariant:
    """Every choice on which the paper and its releases differ; the defaults are the paper's.

    Attributes
    ----------
    true_variance, true_covariance, false_variance, false_covariance : float
        Diagonal and magnitude of the off-diagonal element at the end of the schedule. The
        True case's covariance is negative (long axis along (1, -1), across the line of
        equal probabilities), the False case's positive (along that line).
    true_mean, false_mean : tuple of float
        (p_gt, p_nn) at the peak. Not in the paper; from the code.
    normalised : bool
        Divide by 2 pi sqrt(det Sigma), so that w is a probability density.
    slope : float
        eps(e) = 1 - exp(-slope e / E) scales the True case's covariance.
    detached : bool
        Keep gradients from flowing through w. In all releases they do flow.
    """

    true_variance: float = diagonal_covariance(0.8, 2)[0]
    true_covariance: float = diagonal_covariance(0.8, 2)[1]
    false_variance: float = diagonal_covariance(0.8, 6)[0]
    false_covariance: float = diagonal_covariance(0.8, 6)[1]
    true_mean: tuple[float, float] = (0.50, 0.50)
    false_mean: tuple[float, float] = (0.30, 0.15)
    normalised: bool = True
    slope: float = 15.0
    detached: bool = False


# May 2025 builds the False case from half axes 0.91 sqrt(2) and a sixth of it, where
# sigma_11 = 0.8 would imply 0.8824 sqrt(2).
_released_false = diagonal_covariance(0.91**2 * 37 / 36, 6)
VARIANTS = {
    "paper": NAWVariant(),
    "released_2025_05": NAWVariant(
        false_variance=_released_false[0], false_covariance=_released_false[1]
    ),
    "v_naw": NAWVariant(
        true_variance=0.75,
        true_covariance=0.50,
        false_variance=0.85,
        false_covariance=0.80,
        normalised=False,
    ),
}


def naw_variant(variant: "str | NAWVariant", **changes) -> NAWVariant:
    """Return the named variant, with single choices changed (`detached=True`, `slope=5.0`).

    Raises
    ------
    ValueError
        For a name that is not in `VARIANTS`.
    """
    known = variant if isinstance(variant, NAWVariant) else named(VARIANTS, variant, "NAW variant")
    return replace(known, **changes)


def label_and_nearest_negative(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return p_gt and p_nn of each sample.

    Parameters
    ----------
    logits : Tensor, (N, K) float
    labels : Tensor, (N,) int64

    Returns
    -------
    tuple of Tensor, each (N,) float
        Probability of the label, and the largest probability among the other classes.
    """
    probabilities = logits.softmax(dim=1)  # (N, K)
    is_label = functional.one_hot(labels, logits.shape[1]).bool()  # (N, K)
    p_gt = probabilities.gather(1, labels[:, None]).squeeze(1)
    p_nn = probabilities.masked_fill(is_label, 0.0).amax(dim=1)
    return p_gt, p_nn


def epoch_scale(epoch: int, epochs: int, slope: float = 15.0) -> float:
    """Return eps(e) = 1 - exp(-slope e / E) for epoch e counted from 0, E epochs in all."""
    if not 0 <= epoch < epochs:
        raise ValueError(f"epoch is {epoch}; it counts from 0 to epochs - 1 = {epochs - 1}")
    return 1.0 - math.exp(-slope * epoch / epochs)


def gaussian(
    p_gt: Tensor,
    p_nn: Tensor,
    mean: tuple[float, float],
    variance: float,
    covariance: float,
    normalised: bool,
) -> Tensor:
    """Return the Gaussian with covariance [[s, c], [c, s]] at (p_gt, p_nn), elementwise.

    Along the axes (1, 1) and (1, -1) the quadratic form is a sum of two squares.
    """
    along = (p_gt - mean[0]) + (p_nn - mean[1])  # sqrt(2) times the coordinate on (1, 1)
    across = (p_gt - mean[0]) - (p_nn - mean[1])
    exponent = along**2 / (4 * (variance + covariance)) + across**2 / (4 * (variance - covariance))
    peak = 1 / (2 * math.pi * math.sqrt(variance**2 - covariance**2)) if normalised else 1.0
    return peak * torch.exp(-exponent)


def weight_at(
    p_gt: Tensor, p_nn: Tensor, *, epoch: int, epochs: int, variant: str | NAWVariant = "paper"
) -> Tensor:
    """Return w at the points (p_gt, p_nn): what the weight's surface shows, and training uses.

    Parameters
    ----------
    p_gt, p_nn : Tensor, any one shape, float in [0, 1]
    epoch : int
        Counted from 0.
    epochs : int
        Length of the schedule.
    variant : str or NAWVariant
    """
    choice = naw_variant(variant)
    covariance = -choice.true_covariance * epoch_scale(epoch, epochs, choice.slope)
    true_case = gaussian(
        p_gt, p_nn, choice.true_mean, choice.true_variance, covariance, choice.normalised
    )
    false_case = gaussian(
        p_gt,
        p_nn,
        choice.false_mean,
        choice.false_variance,
        choice.false_covariance,
        choice.normalised,
    )
    weights = torch.where(p_gt >= p_nn, true_case, false_case)
    return weights.detach() if choice.detached else weights


def naw_weights(
    logits: Tensor,
    labels: Tensor,
    *,
    epoch: int,
    epochs: int,
    variant: str | NAWVariant = "paper",
) -> Tensor:
    """Return the weight w of each sample; the loss multiplies cross-entropy by 1 + w.

    Parameters
    ----------
    logits : Tensor, (N, K) float
    labels : Tensor, (N,) int64
    epoch, epochs : int
        Epoch counted from 0, and the length of the schedule.
    variant : {"paper", "released_2025_05", "v_naw"} or NAWVariant

    Returns
    -------
    Tensor, (N,) float
        Differentiable with respect to `logits` unless the variant is detached.
    """
    p_gt, p_nn = label_and_nearest_negative(logits, labels)
    return weight_at(p_gt, p_nn, epoch=epoch, epochs=epochs, variant=variant)


def naw_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    epoch: int,
    epochs: int,
    variant: str | NAWVariant = "paper",
) -> Tensor:
    """Return the mean of w CE over the batch, a scalar (without the 1 of 1 + w).

    `variant` may also be "released_2025_03", whose weights are no per-sample numbers.
    """
    cross_entropy = functional.cross_entropy(logits, labels, reduction="none")  # (N,)
    if variant == "released_2025_03":
        return _naw_loss_released_2025_03(logits, labels, cross_entropy, epoch, epochs)
    weights = naw_weights(logits, labels, epoch=epoch, epochs=epochs, variant=variant)
    return (weights * cross_entropy).mean()


def _naw_loss_released_2025_03(
    logits: Tensor, labels: Tensor, cross_entropy: Tensor, epoch: int, epochs: int
) -> Tensor:
    """Return the first release's loss: a full N x N form where a diagonal was meant.

    W_ij = exp(-(x_i - m_i)' Sigma_i^-1 (x_j - m_i) / 2) / (2 pi sqrt(det Sigma_i)) with the
    mean m_i and the covariance of sample i's case: the batch-mates j decide on the weight.
    The form is no square, so W exceeds the density by far (it reaches about 112).
    """
    choice = VARIANTS["released_2025_05"]
    p_gt, p_nn = label_and_nearest_negative(logits, labels)
    scale = epoch_scale(epoch, epochs, choice.slope)

    def cross_weights(mean, variance, covariance):  # -> (N, N)
        along = (p_gt - mean[0]) + (p_nn - mean[1])
        across = (p_gt - mean[0]) - (p_nn - mean[1])
        form = torch.outer(along, along) / (2 * (variance + covariance))
        form = form + torch.outer(across, across) / (2 * (variance - covariance))
        return torch.exp(-form / 2) / (2 * math.pi * math.sqrt(variance**2 - covariance**2))

    weights = torch.where(
        (p_gt >= p_nn)[:, None],
        cross_weights(choice.true_mean, choice.true_variance, -choice.true_covariance * scale),
        cross_weights(choice.false_mean, choice.false_variance, choice.false_covariance),
    )
    return (weights * cross_entropy[:, None]).mean()
