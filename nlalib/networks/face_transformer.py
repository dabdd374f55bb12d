"""The vision transformer for faces, built from timm's parts.

A convolution's bias towards neighbouring pixels is missing here, so a transformer of this kind
trained from random weights on a FER set of usual size stays behind a ResNet. It is in the project
for what a ResNet cannot do: look at a few visible patches only (masked pre-training), and hand
its tokens to a decoder.
"""

import torch
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from nlalib.networks.representation import Representation


class FaceTransformer(VisionTransformer):
    """timm's vision transformer without a class token, returning a `Representation`.

    As in masked autoencoders (He et al. 2022) the position embedding is the fixed 2-d sine and
    cosine one. The features are the mean of all tokens after the last normalisation (their
    "global pooling" variant), as nothing trains a class token without labels.

    Parameters
    ----------
    num_classes : int
    image_size, patch_size : int
        Sides in pixels; the first must be a multiple of the second.
    width : int
        Channels of a token, a multiple of 4 (for the position embedding) and of `heads`.
    depth, heads : int
        Blocks, and attention heads of each.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        image_size: int,
        patch_size: int,
        width: int,
        depth: int,
        heads: int,
    ):
        super().__init__(
            img_size=image_size,
            patch_size=patch_size,
            num_classes=0,  # timm's own head stays empty: the project's classifier is `fc`
            global_pool="",
            class_token=False,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
        )
        self.pos_embed.data.copy_(position_embedding(self.patch_embed.grid_size, width))
        self.pos_embed.requires_grad_(False)
        self.fc = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.fc.weight, std=0.02)
        nn.init.zeros_(self.fc.bias)

    def tokens(self, images: Tensor, visible: Tensor | None = None) -> Tensor:
        """Return the tokens after the last normalisation, of all patches or of the visible ones.

        Parameters
        ----------
        images : Tensor, (N, 3, H, W) float32
            Normalised.
        visible : Tensor, (N, V) int64, optional
            For each image the numbers of its visible patches, counted row by row. The others do
            not enter: neither their pixels nor the time to look at them.

        Returns
        -------
        Tensor, (N, V or L, D)
        """
        embedded = self.patch_embed(images) + self.pos_embed  # (N, L, D)
        if visible is not None:
            embedded = embedded.gather(1, visible[:, :, None].expand(-1, -1, embedded.shape[2]))
        return self.norm(self.blocks(embedded))

    def forward(self, images: Tensor) -> Representation:
        """Return the `Representation` of images, (N, 3, H, W) float32."""
        tokens = self.tokens(images)
        features = tokens.mean(dim=1)
        feature_map = tokens.transpose(1, 2).unflatten(2, self.patch_embed.grid_size)
        return Representation(self.fc(features), features, feature_map)


def position_embedding(grid: tuple[int, int], width: int) -> Tensor:
    """Return the fixed sine and cosine embedding of a grid of patches, (1, h w, width) float32."""
    return build_sincos2d_pos_embed(list(grid), width).to(torch.float32)[None]
