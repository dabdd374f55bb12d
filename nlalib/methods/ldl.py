"""Label-distribution learning: the Kullback-Leibler divergence to the votes.

Source: Geng, "Label Distribution Learning", IEEE TKDE 2016, and for FER Barsoum et al., ICMI 2016
(cross-entropy to the distribution of the votes, which has the same gradient). With the shares q
of the votes and p = softmax(z):

    L = KL(q || p) = sum_c q_c log(q_c / p_c)

A digest of Wang et al., "Rethinking the Learning Paradigm for FER" (arXiv 2209.15402), names an
explicit model of the label distribution; its equations are not known to us, and this stands for
it as a re-interpretation.

Votes that agree give the cross-entropy; votes that are spread evenly draw p to the uniform
distribution, which is a signal: people did disagree.
"""

from nlalib.methods.base import Method, ModelOutput, register
from nlalib.methods.targets import divergence, vote_distribution


@register("ldl")
class LabelDistribution(Method):
    """Mean of L. Record: `kl_to_votes`, L of each sample in nats."""

    needs = ("votes",)

    def forward(self, output: ModelOutput):
        losses = divergence(vote_distribution(output.votes), output.logits)
        return losses.mean(), {"kl_to_votes": losses.detach()}
