"""RC: cross-entropy to each candidate, weighted by how probable it is among them.

Source: Feng et al., "Provably Consistent Partial-Label Learning", NeurIPS 2020 (the
risk-consistent method). With p = softmax(z) and the candidate set S:

    L = sum_{c in S} q_c (- log p_c),    q_c = p_c / sum_{S} p, through which no gradient flows

and q uniform over S at the beginning of training.

Here q is the present network's, as the formula says. The gradient of L is then p - q, which is
CC's: after the uniform epochs the two objectives differ in value alone. The released code stores
q for each sample, computed after the step, and uses it one epoch later; that algorithm is, but
for the moment at which q is computed, PRODEN's, and stands here under the name `proden`.

One candidate gives the cross-entropy; with all classes as candidates the gradient is zero after
the uniform epochs, while in these it draws the prediction towards the uniform distribution.
"""

from torch.nn import functional

from nlalib.methods.base import Method, ModelOutput, register
from nlalib.methods.settings import Setting
from nlalib.methods.targets import (
    identification_records,
    probabilities_within,
)


@register("rc")
class RiskConsistent(Method):
    """Mean of L. Records: `identified`, the most probable candidate, and `disambiguated`.

    Parameters
    ----------
    uniform_epochs : int
        Epochs in which q is uniform; in the released code each sample's first turn.
    """

    uniform_epochs: int = Setting(1)
    needs = ("candidates",)

    def forward(self, output: ModelOutput):
        within = probabilities_within(output.logits, output.candidates)
        weights = within
        if output.epoch < self.uniform_epochs:
            weights = output.candidates / output.candidates.sum(dim=1, keepdim=True)
        loss = functional.cross_entropy(output.logits, weights)
        return loss, identification_records(within, output.labels)
