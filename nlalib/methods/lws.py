"""LWS: leverage-weighted sigmoid losses inside and outside the candidate set.

Source: Wen et al., "Leveraged Weighted Loss for Partial Label Learning", ICML 2021; behaviour of
`lws_loss` in hongwei-wen/LW-loss-for-partial-label. With logits z, the candidate set S and
stored weights w of each sample:

    L = sum_{c in S} w_c sigmoid(-z_c) + beta sum_{c not in S} w_c sigmoid(z_c)

    w_c = 1 / K at first, and from the turn before afterwards:
    w_c = exp z_c / sum_{S} exp z for c in S, and the same with the sum outside S for the others

The released code computes the weights once more after the step; here they are those of the
forward pass that the loss has.

The loss is bounded and no cross-entropy, also with one candidate. With all classes as
candidates it raises all logits; where they are equal it raises them equally, which changes no
prediction. A network trained by sigmoids ranks the classes, but its softmax is no calibrated
probability: read calibration figures of this method with that in mind.
"""

import torch

from nlalib.methods.base import Method, ModelOutput, TrainingSet, register
from nlalib.methods.settings import Setting
from nlalib.methods.targets import (
    identification_records,
    probabilities_within,
)


@register("lws")
class LWS(Method):
    """Mean of L. Records: `identified`, the candidate of the largest weight, `disambiguated`.

    Parameters
    ----------
    leverage : float
        beta, 0 or more. The paper's theory and experiments favour 1 and 2.
    """

    leverage: float = Setting(2.0)
    needs = ("candidates",)
    keeps_samples = True

    def setup(self, training_set: TrainingSet) -> None:
        super().setup(training_set)
        candidates = training_set.candidates
        uniform = torch.full(candidates.shape, 1 / candidates.shape[1], device=candidates.device)
        self.register_buffer("weights", uniform)

    def forward(self, output: ModelOutput):
        candidates, logits = output.candidates, output.logits
        losses = torch.where(candidates, (-logits).sigmoid(), self.leverage * logits.sigmoid())
        loss = (self.weights[output.samples] * losses).sum(dim=1).mean()
        within = probabilities_within(logits, candidates)
        self.weights[output.samples] = within + probabilities_within(logits, ~candidates)
        return loss, identification_records(within, output.labels)
