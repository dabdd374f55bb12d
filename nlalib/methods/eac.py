"""EAC: what a class looks at has to be mirrored when the image is.

Source: Zhang, Wang, Ling, Deng, "Learn From All: Erasing Attention Consistency for Noisy Label
Facial Expression Recognition", ECCV 2022. With the feature map F and the classifier's weights W:

    CAM_c = sum over k of W_ck F_k                        class activation map, of every class
    L     = CE(view 1) + 5 MSE(CAM(view 1), mirror(CAM(view 2)))

W takes no gradient from the second term, and the second view none from the first.

What differs here: our backbones and initial weights instead of a ResNet-18 from MS-Celeb-1M. The
original erases a random rectangle of 2 to 25 % of the image; here erasing belongs to the run's
augmentation, the same for all methods, and the recipe `affine` erases nothing. The second view is
the mirror of the augmented image, so that both share the erased place. In the authors' code
(src/dataset.py at a8da94b) they do so on clean labels only; with wrong ones each view is
augmented, and erased, by itself.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from nlalib.methods.base import Method, ModelOutput, register
from nlalib.methods.settings import Setting


def class_activation_maps(feature_map: Tensor, classifier: nn.Linear) -> Tensor:
    """Return the maps of all classes, (N, K, h, w) float32; the weights get no gradient.

    Parameters
    ----------
    feature_map : Tensor, (N, D, h, w)
    classifier : torch.nn.Linear
        From D features to K logits.
    """
    # In full precision: differences of two maps are squared afterwards.
    with torch.autocast(feature_map.device.type, enabled=False):
        weight = classifier.weight.detach().float()
        return torch.einsum("kd,ndhw->nkhw", weight, feature_map.float())


def mirror_differences(output: ModelOutput) -> Tensor:
    """Return the squared differences of CAM(view 1) and mirrored CAM(view 2), (N, K, h, w)."""
    first = class_activation_maps(output.feature_map, output.classifier)
    second = class_activation_maps(output.feature_map_flipped, output.classifier)
    return (first - second.flip(3)).square()


@register("eac")
class EAC(Method):
    """Erasing attention consistency.

    Its records: `consistency`, the mean squared difference of a sample's two sets of maps.

    Parameters
    ----------
    consistency_weight : float
        Of the second term; 5 in the paper.
    """

    consistency_weight: float = Setting(5.0)
    two_views = True

    def forward(self, output: ModelOutput):
        consistency = mirror_differences(output).mean(dim=(1, 2, 3))
        loss = functional.cross_entropy(output.logits, output.labels)
        loss = loss + self.consistency_weight * consistency.mean()
        return loss, {"consistency": consistency.detach()}
