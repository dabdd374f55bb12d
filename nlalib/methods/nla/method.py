"""NLA: noise-aware adaptive weights, and consistency between an image and its mirror."""

from typing import ClassVar

from nlalib.methods.base import Method, ModelOutput, register
from nlalib.methods.eac import mirror_differences
from nlalib.methods.nla.loss import CONSISTENCIES, nla_loss, own_consistency
from nlalib.methods.nla.weights import VARIANTS, diagonal_covariance, naw_variant, naw_weights
from nlalib.methods.settings import Setting


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

    variant: str = Setting("paper", choices=(*VARIANTS, "released_2025_03"))
    trade_off: float = Setting(0.5, 0, 1)
    weighting: bool = Setting(True)
    consistency: str | None = Setting(None, choices=(*CONSISTENCIES, "cam"))
    false_case: str | None = Setting(None, choices=tuple(VARIANTS))
    true_ratio: float | None = Setting(None, 1)
    false_ratio: float | None = Setting(None, 1)
    normalised: bool | None = Setting(None, kind=bool)
    detached: bool | None = Setting(None, kind=bool)
    slope: float | None = Setting(None)
    weight_adds_to_one = True
    detectors: ClassVar = {"weight": "low"}

    def check(self) -> None:
        if self.consistency == "none" and self.trade_off != 0.5:
            raise ValueError(
                f"nla has trade_off={self.trade_off} as well as consistency='none', which drops "
                "lambda"
            )
        if self.false_case is not None and self.false_ratio is not None:
            raise ValueError("nla has false_case as well as false_ratio; give one of them")
        changes = self._changes()
        if changes and (self.variant == "released_2025_03" or not self.weighting):
            other = f"variant={self.variant!r}" if self.weighting else "weighting=False"
            raise ValueError(
                f"nla has {', '.join(changes)} as well as {other}, which is without such a choice"
            )
        # By the variant's name, which a changed one has no more.
        self.consistency = self.consistency or own_consistency(self.variant)
        self.two_views = self.consistency != "none"
        self.sums_over_batch = self.consistency == "released"
        if changes:
            self.variant = naw_variant(self.variant, **changes)

    def _changes(self) -> dict:
        """Return which choices of the variant the settings change."""
        changes = {name: getattr(self, name) for name in ("normalised", "detached", "slope")}
        if self.false_case is not None:
            chosen = naw_variant(self.false_case)
            changes["false_variance"] = chosen.false_variance
            changes["false_covariance"] = chosen.false_covariance
        for case, ratio in (("true", self.true_ratio), ("false", self.false_ratio)):
            if ratio is not None:
                variance, covariance = diagonal_covariance(0.8, ratio)
                changes |= {f"{case}_variance": variance, f"{case}_covariance": covariance}
        return {name: value for name, value in changes.items() if value is not None}

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
