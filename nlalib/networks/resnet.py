"""ResNets: torchvision's ResNet-18, and narrow ones for small images."""

import torch
from torch import Tensor, nn

from nlalib.networks.registry import register_backbone
from nlalib.networks.representation import Representation


class ResNet(nn.Module):
    """A ResNet of torchvision with its state dict, returning a `Representation`.

    Parameters
    ----------
    network : torchvision.models.ResNet
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        for name, part in network.named_children():
            self.add_module(name, part)

    def forward(self, images: Tensor) -> Representation:
        """Return the `Representation` of images, (N, 3, H, W) float32."""
        stem = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        feature_map = self.layer4(self.layer3(self.layer2(self.layer1(stem))))
        features = torch.flatten(self.avgpool(feature_map), 1)
        return Representation(self.fc(features), features, feature_map)


@register_backbone("resnet18")
def resnet18(num_classes: int) -> ResNet:
    """Return a ResNet-18."""
    return ResNet(_of_torchvision(num_classes))


@register_backbone("resnet10_narrow16_stride2", width=16, blocks=1, stride=2)
@register_backbone("resnet18_narrow32", width=32)
@register_backbone("resnet18_narrow16", width=16)
def narrow_resnet(num_classes: int, *, width: int, blocks: int = 2, stride: int = 1) -> ResNet:
    """Return a ResNet for small images: 3 x 3 stem, no pooling after it, fewer channels.

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
    network = _of_torchvision(num_classes)
    block = type(network.layer1[0])
    network.inplanes = width
    network.conv1 = nn.Conv2d(3, width, kernel_size=3, stride=stride, padding=1, bias=False)
    network.bn1 = nn.BatchNorm2d(width)
    network.maxpool = nn.Identity()
    network.layer1 = network._make_layer(block, width, blocks)
    network.layer2 = network._make_layer(block, 2 * width, blocks, stride=2)
    network.layer3 = network._make_layer(block, 4 * width, blocks, stride=2)
    network.layer4 = network._make_layer(block, 8 * width, blocks, stride=2)
    network.fc = nn.Linear(8 * width, num_classes)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return ResNet(network)


def _of_torchvision(num_classes: int) -> nn.Module:
    # Imported here: it takes as long as PyTorch itself, and names are checked without it.
    from torchvision.models.resnet import BasicBlock
    from torchvision.models.resnet import ResNet as TorchvisionResNet

    return TorchvisionResNet(BasicBlock, [2, 2, 2, 2], num_classes=num_classes)
