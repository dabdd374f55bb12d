"""NLA: noise-aware adaptive weights, and consistency between an image and its mirror."""

from typing import ClassVar

from nlalib.methods.base import Method, ModelOutput, register
from nlalib.methods.checks import checked_number
from nlalib.methods.eac import mirror_differences
from nlalib.methods.nla.loss import CONSISTENCIES, nla_loss, own_consistency
from nlalib.methods.nla.weights import VARIANTS, diagonal_covariance, naw_variant, naw_weights


@register("nla")
class NLA(Method):
    """The method of Lee et al., AAAI 2025; see `nlalib.methods.nla.loss.nla_loss`.

    Every difference between the paper and its releases can be chosen alone; None leaves the
    variant's own choice.

    Parameters
    ----------
    variant : str
        "paper" (the default) or one of the released versions.
    trade_off : float
        lambda, from 0 to 1.
    weighting : bool
        False takes plain cross-entropy in place of (1 + w) CE.
    consistency : {"jensen_shannon", "released", "l1", "cam", "none"}
        "none" also drops lambda: with it the loss is (1 + w) CE alone, of one view. "l1" and "cam"
        are terms that the authors tried (see `absolute_difference`), untuned; "cam" is EAC's, the
        mean squared difference of class activation maps, of which one is mirrored.
    false_case : {"paper", "released_2025_05", "v_naw"}
        Whose covariance the False case takes.
    true_ratio, false_ratio : float
        Axis ratios of the two cases at sigma_11 = 0.8; 2 and 6 in the paper, 1 is a circle.
    normalised, detached : bool
    slope : float
        Of the schedule; 0 keeps the True case's covariance at 0, as it is in the first epoch.
    """

    weight_adds_to_one = True
    detectors: ClassVar = {"weight": "low"}

    def __init__(
        self,
        variant: str = "paper",
        trade_off: float = 0.5,
        weighting: bool = True,
        consistency: str | None = None,
        false_case: str | None = None,
        true_ratio: float | None = None,
        false_ratio: float | None = None,
        normalised: bool | None = None,
        detached: bool | None = None,
        slope: float | None = None,
    ):
        super().__init__()
        known = [*VARIANTS, "released_2025_03"]
        if variant not in known:
            raise ValueError(f"unknown variant {variant!r} of nla; known are {', '.join(known)}")
        if type(trade_off) not in (int, float) or not 0 <= trade_off <= 1:
            raise ValueError(f"trade_off of nla is {trade_off!r}; lambda lies between 0 and 1")
        terms = (*CONSISTENCIES, "cam")
        if consistency not in (None, *terms):
            raise ValueError(f"consistency of nla is {consistency!r}; known are {', '.join(terms)}")
        if consistency == "none" and trade_off != 0.5:
            raise ValueError(
                f"nla has trade_off={trade_off} as well as consistency='none', which drops lambda"
            )
        switches = {"weighting": weighting, "normalised": normalised, "detached": detached}
        for name, value in switches.items():
            if type(value) is not bool and (value is not None or name == "weighting"):
                raise ValueError(f"{name} of nla is {value!r}; it is true or false")
        if slope is not None:
            slope = float(checked_number("slope of nla", slope, 0, float("inf")))
        changes = {"normalised": normalised, "detached": detached, "slope": slope}
        if false_case is not None:
            if false_ratio is not None:
                raise ValueError("nla has false_case as well as false_ratio; give one of them")
            chosen = naw_variant(false_case)
            changes["false_variance"] = chosen.false_variance
            changes["false_covariance"] = chosen.false_covariance
        for case, ratio in (("true", true_ratio), ("false", false_ratio)):
            if ratio is not None:
                checked_number(f"{case}_ratio of nla", ratio, 1, float("inf"))
                variance, covariance = diagonal_covariance(0.8, ratio)
                changes |= {f"{case}_variance": variance, f"{case}_covariance": covariance}
        changes = {name: value for name, value in changes.items() if value is not None}
        if changes and (variant == "released_2025_03" or not weighting):
            raise ValueError(
                f"nla has {', '.join(changes)} as well as "
                + (f"variant={variant!r}, which is" if weighting else "weighting=False, so it is")
                + " without such a choice"
            )
        self.variant = naw_variant(variant, **changes) if changes else variant
        self.trade_off = float(trade_off)
        self.weighting = weighting
        # By the variant's name, which a changed one has no more.
        self.consistency = consistency or own_consistency(variant)
        self.two_views = self.consistency != "none"
        self.sums_over_batch = self.consistency == "released"

    def forward(self, output: ModelOutput):
        schedule = {"epoch": output.epoch, "epochs": output.epochs, "variant": self.variant}
        loss = nla_loss(
            output.logits,
            output.logits_flipped,
            output.labels,
            trade_off=self.trade_off,
            weighting=self.weighting,
            consistency="none" if self.consistency == "cam" else self.consistency,
            **schedule,
        )
        if self.consistency == "cam":
            distance = mirror_differences(output).mean()
            loss = self.trade_off * loss + (1 - self.trade_off) * distance
        # The weights of March 2025 belong to pairs of samples, and recorded is one a sample.
        if not self.weighting or self.variant == "released_2025_03":
            return loss, {}
        return loss, {"weight": naw_weights(output.logits.detach(), output.labels, **schedule)}
