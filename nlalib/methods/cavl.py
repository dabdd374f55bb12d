"""CAVL: the candidate with the largest class activation value is the target.

Source: Zhang et al., "Exploiting Class Activation Value for Partial-Label Learning", ICLR 2022;
behaviour of `main.py` in Shuijing2018/CAVL_Mindspore. With logits z, p = softmax(z) and the
candidate set S:

    v_c = z_c |1 - z_c|
    L   = - log p_t,    t = argmax_{c in S} v_c as the sample's last turn left it

In a sample's first turn the target is uniform over S. The released code takes v = 0 for classes
outside S, so that one of these becomes the target where all candidates' values are negative;
here the argmax is over the candidates, as the paper says.

One candidate gives the cross-entropy. All classes as candidates do give a signal: the network
is taught what it held before.
"""

import torch
from torch.nn import functional

from nlalib.methods.base import ModelOutput, register
from nlalib.methods.targets import StoredTargets


@register("cavl")
class CAVL(StoredTargets):
    """Mean of L. Records: `identified`, the candidate that becomes the target, `disambiguated`."""

    def forward(self, output: ModelOutput):
        logits = output.logits.detach()
        activations = logits * (1 - logits).abs()
        highest = activations.masked_fill(~output.candidates, -torch.inf).argmax(dim=1)
        return self.learn(
            output.logits, output, functional.one_hot(highest, logits.shape[1]).float()
        )
