"""The total loss of NLA, as the paper states it and as the code was released."""

from torch import Tensor
from torch.nn import functional

from nlalib.consistency import jensen_shannon, released_consistency
from nlalib.naw import NAWVariant, naw_loss


def nla_loss(
    logits: Tensor,
    logits_flipped: Tensor,
    labels: Tensor,
    *,
    epoch: int,
    epochs: int,
    variant: str | NAWVariant = "paper",
    trade_off: float = 0.5,
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
        The paper takes the mean Jensen-Shannon divergence as L_reg; the released variants
        take `released_consistency`, a sum over the batch.
    trade_off : float
        lambda, from 0 to 1; 0.5 in the paper.
    """
    if not 0 <= trade_off <= 1:
        raise ValueError(f"trade_off is {trade_off}; lambda lies between 0 and 1")
    weighted = functional.cross_entropy(logits, labels) + naw_loss(
        logits, labels, epoch=epoch, epochs=epochs, variant=variant
    )
    if variant == "paper" or isinstance(variant, NAWVariant):
        regulariser = jensen_shannon(logits, logits_flipped).mean()
    else:
        regulariser = released_consistency(logits, logits_flipped)
    return trade_off * weighted + (1 - trade_off) * regulariser
