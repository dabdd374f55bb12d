"""What is recorded of each training image, for methods whose prediction is not the network's."""

from torch import Tensor
from torch.nn import functional

from nlalib.methods.nla.weights import label_and_nearest_negative


def prediction_records(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return the records that training records for every method, from the method's own logits.

    A method that returns them replaces those of the network's logits, which it may not train.

    Parameters
    ----------
    logits : Tensor, (N, K) float32
    labels : Tensor, (N,) int64
        The given labels.

    Returns
    -------
    dict of Tensor, (N,) float32 each, detached
        `p_gt`, `p_nn` (probability of the label, and the largest of the other classes),
        `predicted`, `cross_entropy` (in nats).
    """
    logits = logits.detach()
    p_gt, p_nn = label_and_nearest_negative(logits, labels)
    return {
        "p_gt": p_gt,
        "p_nn": p_nn,
        "predicted": logits.argmax(dim=1).float(),
        "cross_entropy": functional.cross_entropy(logits, labels, reduction="none"),
    }
