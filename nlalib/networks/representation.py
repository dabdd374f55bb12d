"""What every network of the study returns."""

from typing import NamedTuple

from torch import Tensor


class Representation(NamedTuple):
    """What every backbone returns.

    Attributes
    ----------
    logits : Tensor, (N, K)
        `fc` of the features.
    features : Tensor, (N, D)
        The feature map, averaged over its places.
    feature_map : Tensor, (N, D, h, w)
        The last one before pooling, which class activation maps and decoders look at.
    """

    logits: Tensor
    features: Tensor
    feature_map: Tensor
