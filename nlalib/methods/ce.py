"""Cross-entropy on the given label: the baseline."""

from torch.nn import functional

from nlalib.methods.base import Method, ModelOutput, register


@register("ce")
class CrossEntropy(Method):
    """Mean cross-entropy of the one view."""

    def forward(self, output: ModelOutput):
        return functional.cross_entropy(output.logits, output.labels), {}
