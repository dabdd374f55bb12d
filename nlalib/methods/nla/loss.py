"""The total loss of NLA, as the paper states it and as the code was released."""

from torch import Tensor
from torch.nn import functional

from nlalib.methods.nla.consistency import (
    absolute_difference,
    jensen_shannon,
    released_consistency,
)
from nlalib.methods.nla.weights import NAWVariant, naw_loss
from nlalib.names import named

# What L_reg may be, each from the logits of both views to a scalar.
CONSISTENCIES = {
    "jensen_shannon": lambda *views: jensen_shannon(*views).mean(),
    "released": released_consistency,
    "l1": lambda *views: absolute_difference(*views).mean(),
    "none": None,
}


def own_consistency(variant: str | NAWVariant) -> str:
    """Return which of `CONSISTENCIES` a variant has of its own: released ones have the code's."""
    own = variant == "paper" or isinstance(variant, NAWVariant)
    return "jensen_shannon" if own else "released"


def nla_loss(
    logits: Tensor,
    logits_flipped: Tensor | None,
    labels: Tensor,
    *,
    epoch: int,
    epochs: int,
    variant: str | NAWVariant = "paper",
    trade_off: float = 0.5,
    weighting: bool = True,
    consistency: str | None = None,
) -> Tensor:
    """Return lambda mean((1 + w) CE) + (1 - lambda) L_reg, a scalar.

    Parameters
    ----------
    logits, logits_flipped : Tensor, (N, K) float
        Of the image and of its mirror image. Cross-entropy sees the first only.
    labels : Tensor, (N,) int64
    epoch, epochs : int
        Epoch counted from 0, and the length of NAW's schedule.
    variant : {"paper", "released_2025_03", "released_2025_05", "v_naw"} or NAWVariant
    trade_off : float
        lambda, from 0 to 1; 0.5 in the paper.
    weighting : bool
        False takes w = 0: plain cross-entropy with the regulariser.
    consistency : {"jensen_shannon", "released", "l1", "none"} or None
        L_reg: the mean Jensen-Shannon divergence, the released sum over the batch, the mean L1
        distance, or nothing; "none" returns mean((1 + w) CE), without lambda. None stands for the
        variant's own: the divergence for the paper's, the released sum for the released ones.
    """
    if not 0 <= trade_off <= 1:
        raise ValueError(f"trade_off is {trade_off}; lambda lies between 0 and 1")
    regulariser = named(CONSISTENCIES, consistency or own_consistency(variant), "consistency")
    weighted = functional.cross_entropy(logits, labels)
    if weighting:
        weighted = weighted + naw_loss(logits, labels, epoch=epoch, epochs=epochs, variant=variant)
    if regulariser is None:
        return weighted
    return trade_off * weighted + (1 - trade_off) * regulariser(logits, logits_flipped)
