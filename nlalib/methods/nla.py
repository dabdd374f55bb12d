"""NLA: noise-aware adaptive weights, and consistency between an image and its mirror."""

from nlalib.losses import nla_loss
from nlalib.methods.base import Method, ModelOutput, register
from nlalib.naw import VARIANTS, naw_weights


@register("nla")
class NLA(Method):
    """The method of Lee et al., AAAI 2025; see `nlalib.losses.nla_loss`.

    Parameters
    ----------
    variant : str
        "paper" (the default) or one of the released versions.
    trade_off : float
        lambda, from 0 to 1.
    """

    two_views = True

    def __init__(self, variant: str = "paper", trade_off: float = 0.5):
        super().__init__()
        known = [*VARIANTS, "released_2025_03"]
        if variant not in known:
            raise ValueError(f"unknown variant {variant!r} of nla; known are {', '.join(known)}")
        if type(trade_off) not in (int, float) or not 0 <= trade_off <= 1:
            raise ValueError(f"trade_off of nla is {trade_off!r}; lambda lies between 0 and 1")
        self.variant = variant
        self.trade_off = trade_off

    def forward(self, output: ModelOutput):
        schedule = {"epoch": output.epoch, "epochs": output.epochs, "variant": self.variant}
        loss = nla_loss(
            output.logits,
            output.logits_flipped,
            output.labels,
            trade_off=self.trade_off,
            **schedule,
        )
        if self.variant == "released_2025_03":  # its weights belong to pairs, not to samples
            return loss, {}
        weights = naw_weights(output.logits.detach(), output.labels, **schedule)
        return loss, {"weight": weights}
