"""CC: the probability that the label lies in the candidate set.

Source: Feng et al., "Provably Consistent Partial-Label Learning", NeurIPS 2020 (the
classifier-consistent method). With p = softmax(z) and the candidate set S:

    L = - log sum_{c in S} p_c

One candidate gives the cross-entropy; all classes as candidates give 0 and no gradient.
"""

from nlalib.methods.base import Method, ModelOutput, register
from nlalib.methods.targets import (
    identification_records,
    log_candidate_mass,
    probabilities_within,
)


@register("cc")
class ClassifierConsistent(Method):
    """Mean of L. Records: `identified`, the most probable candidate, and `disambiguated`."""

    needs = ("candidates",)

    def forward(self, output: ModelOutput):
        loss = -log_candidate_mass(output.logits, output.candidates).mean()
        within = probabilities_within(output.logits, output.candidates)
        return loss, identification_records(within, output.labels)
