"""PRODEN: targets over the candidates that are re-estimated with every batch.

Source: Lv et al., "Progressive Identification of True Labels for Partial-Label Learning",
ICML 2020; behaviour of `main.py` and `utils/utils_loss.py` in lvjiaqi77/PRODEN. With
p = softmax(z), the candidate set S and a stored target q of each sample:

    L   = - sum_{c in S} q_c log p_c,    q uniform over S at first
    q_c <- p_c / sum_{S} p               after the loss, for the sample's next turn

One candidate gives the cross-entropy. With all classes as candidates the target is the
prediction of the turn before: the gradient, p - q, vanishes where the prediction stands still.
"""

from nlalib.methods.base import ModelOutput, register
from nlalib.methods.targets import StoredTargets, probabilities_within


@register("proden")
class PRODEN(StoredTargets):
    """Mean of L. Records: `identified`, the candidate with the highest target, `disambiguated`."""

    def forward(self, output: ModelOutput):
        within = probabilities_within(output.logits, output.candidates)
        return self.learn(output.logits, output, within)
