"""NLA with candidate sets in place of labels.

Our own combination of the two papers' ideas; no paper states it. NLA weighs a sample by the
point (p_gt, p_nn), the probability of its label and of the nearest other class. With a candidate
set S, what is right is the set, and a wrong class is one outside it:

    p_gt = sum_{c in S} p_c        p_nn = max_{c not in S} p_c, or 0 where S holds all classes
    L    = lambda mean((1 + w(p_gt, p_nn)) CC) + (1 - lambda) L_reg,    CC = - log p_gt

So doubt between candidates makes a sample neither ambiguous nor noisy; doubt between the set and
a class that the annotators did not choose does. p_gt + p_nn <= 1, as in NLA. w, its schedule and
L_reg (between the image and its mirror) are NLA's. One candidate gives `nla`; with all classes
as candidates only L_reg is left.
"""

from typing import ClassVar

from torch import Tensor

from nlalib.methods.base import Method, ModelOutput, register
from nlalib.methods.nla.loss import CONSISTENCIES, own_consistency
from nlalib.methods.nla.weights import VARIANTS, naw_variant, weight_at
from nlalib.methods.settings import Setting
from nlalib.methods.targets import (
    identification_records,
    log_candidate_mass,
    probabilities_within,
)


class WeightedByNLA(Method):
    """Base of both combinations: NLA's weight and consistency around another loss.

    Parameters
    ----------
    variant : str
        One of `nlalib.methods.nla.weights.VARIANTS`, for the weight and for L_reg.
    trade_off : float
        lambda, from 0 to 1.
    weighting : bool
        False takes w = 0: the other loss with NLA's consistency alone.
    detached : bool
        Keep gradients from flowing through w; in NLA they do flow.
    """

    variant: str = Setting("paper", choices=tuple(VARIANTS))
    trade_off: float = Setting(0.5, 0, 1)
    weighting: bool = Setting(True)
    detached: bool = Setting(False)
    two_views = True
    weight_adds_to_one = True
    detectors: ClassVar = {"weight": "low"}

    def check(self) -> None:
        if self.detached and not self.weighting:
            raise ValueError(f"detached of {self.name} is True, but weighting=False has no weight")
        self.sums_over_batch = own_consistency(self.variant) == "released"

    def combine(
        self, losses: Tensor, p_gt: Tensor, p_nn: Tensor, output: ModelOutput
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the total loss and the record `weight`, from (N,) losses and points."""
        records = {}
        if self.weighting:
            choice = naw_variant(self.variant, detached=self.detached)
            weights = weight_at(
                p_gt, p_nn, epoch=output.epoch, epochs=output.epochs, variant=choice
            )
            losses = (1 + weights) * losses
            records["weight"] = weights.detach()
        regulariser = CONSISTENCIES[own_consistency(self.variant)]
        distance = regulariser(output.logits, output.logits_flipped)
        return self.trade_off * losses.mean() + (1 - self.trade_off) * distance, records


@register("nla_candidates")
class NLACandidates(WeightedByNLA):
    """NLA on candidate sets.

    Records: `weight`, `p_candidates` and `p_outside` (the point), `identified` (the most probable
    candidate) and `disambiguated`.
    """

    needs = ("candidates",)

    def forward(self, output: ModelOutput):
        candidates = output.candidates
        log_mass = log_candidate_mass(output.logits, candidates)
        p_outside = output.logits.softmax(dim=1).masked_fill(candidates, 0.0).amax(dim=1)
        loss, records = self.combine(-log_mass, log_mass.exp(), p_outside, output)
        within = probabilities_within(output.logits, candidates)
        return loss, {
            **records,
            "p_candidates": log_mass.detach().exp(),
            "p_outside": p_outside.detach(),
            **identification_records(within, output.labels),
        }
