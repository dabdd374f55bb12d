"""NLA with the distribution of the votes in place of labels.

Our own combination of the two papers' ideas; no paper states it. NLA weighs a sample by the
point (p_gt, p_nn), the probability of its label and of the nearest other class. With the shares q
of the votes:

    p_gt = sum_c q_c p_c               the expected probability of a vote
    p_nn = max_c (1 - q_c) p_c         the nearest negative, each class as negative as the share
                                       of the annotators that did not choose it
    L    = lambda mean((1 + w(p_gt, p_nn)) KL(q || p)) + (1 - lambda) L_reg

Why this negative: "no vote at all" as the border would let a single stray vote turn the nearest
negative into none, while here a vote moves the point by its share; and p_gt + p_nn <= 1 holds,
as in NLA, since the class m of the maximum has q_m p_m + (1 - q_m) p_m = p_m. Why the divergence
and not the cross-entropy to q: the two differ by the votes' entropy, which multiplied by
1 + w would reward the network for leaving p = q wherever that lowers the weight. w, its schedule
and L_reg (between the image and its mirror) are NLA's. Votes that agree give `nla`.

A sample's own votes are few and random, so KL(q || p) stays above 0 also where p is right, and
the gradient through w, which NLA keeps, then trades the fit for a low weight. In the tests' toy
problem (three votes an image) this costs accuracy; `detached=True` does not.
"""

from nlalib.methods.base import ModelOutput, register
from nlalib.methods.nla.candidates import WeightedByNLA
from nlalib.methods.targets import divergence, vote_distribution


@register("nla_soft")
class NLASoft(WeightedByNLA):
    """NLA on the votes.

    Records: `weight`, `p_votes` and `p_negative` (the point), `kl_to_votes` in nats.
    """

    needs = ("votes",)

    def forward(self, output: ModelOutput):
        shares = vote_distribution(output.votes)
        probabilities = output.logits.softmax(dim=1)
        p_votes = (shares * probabilities).sum(dim=1)
        p_negative = ((1 - shares) * probabilities).amax(dim=1)
        losses = divergence(shares, output.logits)
        loss, records = self.combine(losses, p_votes, p_negative, output)
        return loss, {
            **records,
            "p_votes": p_votes.detach(),
            "p_negative": p_negative.detach(),
            "kl_to_votes": losses.detach(),
        }
