"""ResNets: torchvision's ResNet-18, and narrow ones for small images."""

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from nlalib.networks.registry import register_backbone
from nlalib.networks.representation import Representation


@register_backbone("resnet18")
class ResNet18(ResNet):
    """torchvision's ResNet-18 with its state dict, returning a `Representation`."""

    def __init__(self, num_classes: int):
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=num_classes)

    def forward(self, images: Tensor) -> Representation:
        """Return the `Representation` of images, (N, 3, H, W) float32."""
        stem = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        feature_map = self.layer4(self.layer3(self.layer2(self.layer1(stem))))
        features = torch.flatten(self.avgpool(feature_map), 1)
        return Representation(self.fc(features), features, feature_map)


@register_backbone("resnet10_narrow16_stride2", width=16, blocks=1, stride=2)
@register_backbone("resnet18_narrow32", width=32)
@register_backbone("resnet18_narrow16", width=16)
class NarrowResNet(ResNet18):
    """A ResNet for small images: 3 x 3 stem, no pooling after it, fewer channels.

    Parameters
    ----------
    num_classes : int
    width : int
        Channels of the first stage (64 in ResNet-18); the later ones have 2, 4 and 8 times as many.
    blocks : int
        Blocks a stage: 2 in ResNet-18, 1 in ResNet-10.
    stride : int
        Of the stem. With 2 all later stages see a quarter of the places, at a quarter of the cost.
    """

    def __init__(self, num_classes: int, *, width: int, blocks: int = 2, stride: int = 1):
        super().__init__(num_classes)
        self.inplanes = width
        self.conv1 = nn.Conv2d(3, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.Identity()
        self.layer1 = self._make_layer(BasicBlock, width, blocks)
        self.layer2 = self._make_layer(BasicBlock, 2 * width, blocks, stride=2)
        self.layer3 = self._make_layer(BasicBlock, 4 * width, blocks, stride=2)
        self.layer4 = self._make_layer(BasicBlock, 8 * width, blocks, stride=2)
        self.fc = nn.Linear(8 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
