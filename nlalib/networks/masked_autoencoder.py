"""The masked autoencoder: hide most patches of an image and predict them from the rest.

He, Chen, Xie, Li, Dollar, Girshick: Masked autoencoders are scalable vision learners, CVPR 2022.
The encoder sees the visible patches only; a small decoder, thrown away later, gets its tokens
with one learned token in each hidden place and predicts the pixels there.

L = number of patches, V = visible ones, P = 3 * side * side numbers of a patch.
"""

import numpy as np
import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from nlalib.networks.face_transformer import FaceTransformer, position_embedding

# Stream of the masks' random numbers; 0, 1 and 2 are those of batches and augmentation.
_MASK_STREAM = 3
_SMALLEST_VARIANCE = 1e-6  # of a patch without contrast, as in the authors' code
_DECODER_HEADS = 4


def visible_patches(num_patches: int, mask_ratio: float) -> int:
    """Return how many patches stay visible, the same for every image.

    Raises
    ------
    ValueError
        If all or none would.
    """
    visible = round(num_patches * (1 - mask_ratio))
    if not 0 < visible < num_patches:
        raise ValueError(
            f"mask_ratio {mask_ratio} leaves {visible} of {num_patches} patches visible; choose "
            "one that hides some and leaves some"
        )
    return visible


class EpochMasks:
    """The masks of one epoch: row i depends on (seed, epoch, i) alone, not on the batch.

    Parameters
    ----------
    samples, num_patches : int
    mask_ratio : float
        Share of hidden patches.
    seed, epoch : int
    """

    def __init__(self, samples: int, num_patches: int, mask_ratio: float, seed: int, epoch: int):
        generator = np.random.default_rng([seed, epoch, _MASK_STREAM])
        self._uniform = torch.from_numpy(generator.random((samples, num_patches), dtype=np.float32))
        self._visible = visible_patches(num_patches, mask_ratio)

    def __call__(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return the masks of some samples, on the CPU.

        Parameters
        ----------
        samples : Tensor, (N,) int64
            Their positions in the training set.

        Returns
        -------
        visible : Tensor, (N, V) int64
            Numbers of the visible patches, in increasing order.
        hidden : Tensor, (N, L) bool
        """
        uniform = self._uniform[samples]
        visible = uniform.argsort(dim=1, stable=True)[:, : self._visible].sort(dim=1).values
        hidden = torch.ones(uniform.shape, dtype=torch.bool).scatter(1, visible, False)
        return visible, hidden


def patchify(images: Tensor, side: int) -> Tensor:
    """Cut images (N, 3, H, W) into patches (N, L, P), row by row.

    The P numbers of a patch run over its rows, columns and colours, colours fastest.
    """
    count, channels, height, width = images.shape
    cut = images.reshape(count, channels, height // side, side, width // side, side)
    return cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, side: int) -> Tensor:
    """Put the patches (N, L, P) of square images together again: (N, 3, H, W)."""
    count, number, _ = patches.shape
    rows = round(number**0.5)
    cut = patches.reshape(count, rows, rows, side, side, 3)
    return cut.permute(0, 5, 1, 3, 2, 4).reshape(count, 3, rows * side, rows * side)


def patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Return each patch's mean and standard deviation, each (N, L, 1)."""
    variance = patches.var(dim=2, keepdim=True)
    return patches.mean(dim=2, keepdim=True), (variance + _SMALLEST_VARIANCE).sqrt()


def reconstruction_loss(predicted: Tensor, patches: Tensor, hidden: Tensor) -> Tensor:
    """Return the mean squared error over the hidden patches, each normalised by itself.

    He et al. 2022, section 4.1 ("pixel reconstruction with per-patch normalisation"). Predicting
    nothing (zeros) costs about 1, so 1 minus the loss is the explained share of the variance.

    Parameters
    ----------
    predicted, patches : Tensor, (N, L, P)
        The second are pixels, not yet normalised by patch.
    hidden : Tensor, (N, L) bool
        With the same count in each row, so that every image weighs the same.
    """
    mean, deviation = patch_statistics(patches)
    error = (predicted.float() - (patches - mean) / deviation).square().mean(dim=2)  # (N, L)
    return error[hidden].mean()


class MaskedAutoencoder(nn.Module):
    """An encoder for visible patches and a small decoder for hidden ones.

    Parameters
    ----------
    encoder : FaceTransformer
        Trained in place; its classifier `fc` takes no part.
    width, depth : int
        Of the decoder; the width is a multiple of 4.
    """

    def __init__(self, encoder: FaceTransformer, width: int, depth: int):
        super().__init__()
        self.encoder = encoder
        self.patch_size = encoder.patch_embed.patch_size[0]
        self.embed = nn.Linear(encoder.embed_dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        position = position_embedding(encoder.patch_embed.grid_size, width)
        self.register_buffer("position", position, persistent=False)
        blocks = (Block(width, _DECODER_HEADS, qkv_bias=True) for _ in range(depth))
        self.decoder = nn.Sequential(*blocks, nn.LayerNorm(width, eps=1e-6))
        self.to_pixels = nn.Linear(width, 3 * self.patch_size**2)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        for module in (self.embed, *self.decoder.modules(), self.to_pixels):
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor, visible: Tensor) -> Tensor:
        """Return the predicted, patch-normalised pixels of all patches.

        Parameters
        ----------
        images : Tensor, (N, 3, H, W) float32
            Normalised; only their visible patches are looked at.
        visible : Tensor, (N, V) int64

        Returns
        -------
        Tensor, (N, L, P)
        """
        seen = self.embed(self.encoder.tokens(images, visible))  # (N, V, W)
        places = visible[:, :, None].expand_as(seen)
        size = (len(images), self.position.shape[1], -1)
        tokens = self.mask_token.to(seen.dtype).expand(size).scatter(1, places, seen)
        return self.to_pixels(self.decoder(tokens + self.position))


def reconstruct(predicted: Tensor, images: Tensor, hidden: Tensor, side: int) -> Tensor:
    """Return the images with their hidden patches replaced by the predicted ones.

    The network predicts patches of mean 0 and deviation 1; the mean and the deviation of each
    hidden patch are given back from the image itself. Zeros as prediction thus show what is
    given away: each hidden patch in its mean colour.

    Parameters
    ----------
    predicted : Tensor, (N, L, P)
    images : Tensor, (N, 3, H, W)
    hidden : Tensor, (N, L) bool
    side : int
        Of a patch, pixels.

    Returns
    -------
    Tensor, (N, 3, H, W)
    """
    patches = patchify(images, side)
    mean, deviation = patch_statistics(patches)
    return unpatchify(torch.where(hidden[:, :, None], predicted * deviation + mean, patches), side)
