"""The networks, one file an architecture, and what they start from.

To add a backbone, decorate what builds it by `nlalib.networks.registry.register_backbone` and
import its file here: configurations and training find it by its name.
"""

from nlalib.networks import face_resnet, resnet, vision_transformer

__all__ = ["face_resnet", "resnet", "vision_transformer"]
