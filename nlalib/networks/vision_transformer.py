"""The sizes of vision transformers that the study knows.

Apart from the network itself, `nlalib.networks.face_transformer`: that imports timm, which takes
seconds, and most runs need no transformer.
"""

from typing import TYPE_CHECKING

from nlalib.names import named
from nlalib.networks.registry import register_backbone

if TYPE_CHECKING:
    from nlalib.networks.face_transformer import FaceTransformer

# Sides in pixels. The first has 64 patches, small enough for two CPU cores; the second is ViT-S
# (Touvron et al. 2021) with 196 patches, for a GPU.
VIT_SIZES = {
    "vit_tiny_patch6": {
        "image_size": 48,
        "patch_size": 6,
        "width": 128,
        "depth": 4,
        "heads": 4,
    },
    "vit_small_patch16": {
        "image_size": 224,
        "patch_size": 16,
        "width": 384,
        "depth": 12,
        "heads": 6,
    },
}


def build_vit(num_classes: int, size: str = "vit_tiny_patch6") -> "FaceTransformer":
    """Return a transformer of one of `VIT_SIZES`, initialised from torch's global generator.

    Parameters
    ----------
    num_classes : int
    size : {"vit_tiny_patch6", "vit_small_patch16"}
        For images of 48 and of 224 pixels.

    Raises
    ------
    ValueError
        For an unknown size.
    """
    from nlalib.networks.face_transformer import FaceTransformer

    return FaceTransformer(num_classes, **named(VIT_SIZES, size, "size"))


for _name, _size in VIT_SIZES.items():
    register_backbone(_name, smallest_image=_size["image_size"], exact=True, size=_name)(build_vit)
