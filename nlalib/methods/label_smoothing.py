"""Label smoothing: a part of the target is spread evenly over all classes.

Source: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016.
With K classes:

    t = (1 - epsilon) one-hot(y) + epsilon / K,    L = mean CE(z, t),    epsilon = 0.1

What differs here: nothing in the loss.
"""

from torch.nn import functional

from nlalib.methods.base import Method, ModelOutput, register
from nlalib.methods.settings import Setting


@register("label_smoothing")
class LabelSmoothing(Method):
    """Cross-entropy with smoothed labels.

    Parameters
    ----------
    epsilon : float
        From 0, which is cross-entropy, to 1; 0.1 in the paper.
    """

    epsilon: float = Setting(0.1, 0, 1)

    def forward(self, output: ModelOutput):
        loss = functional.cross_entropy(output.logits, output.labels, label_smoothing=self.epsilon)
        return loss, {}
