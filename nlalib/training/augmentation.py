"""Augmentation of whole batches on the training device, with draws of its own for each sample.

torchvision's transforms make one draw for a whole batch. Here every sample has its own numbers,
which depend on (seed, epoch, sample) alone, or on (seed, epoch, draw) with a balanced sampler: not
on the batch, on the device or on a resumed run.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nlalib.names import named
from nlalib.networks.normalisation import normalise

_DRAWS = 12  # uniform numbers for each sample and epoch
_NOISE_BANK = 1 << 20


@dataclass(frozen=True)
class Recipe:
    """What happens to a training image, in this order.

    Attributes
    ----------
    noise_probability, noise_variance : float
        Gaussian pixel noise, variance in squared grey levels of 0..255.
    flip_probability : float
    rotation : float
        Largest angle, degrees.
    scale, shift : float
        Largest relative change of size, and largest shift as a fraction of the side.
    erase_probability : float
        A rectangle set to the mean colour.
    erase_area : tuple of float
        Its smallest and largest share of the image.
    """

    noise_probability: float = 0.0
    noise_variance: float = 30.0
    flip_probability: float = 0.0
    rotation: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    erase_probability: float = 0.0
    erase_area: tuple[float, float] = (0.02, 0.3)


RECIPES = {
    "none": Recipe(),
    "flip": Recipe(flip_probability=0.5),
    # Small changes of pose and crop; for training from random weights.
    "affine": Recipe(flip_probability=0.5, rotation=10.0, scale=0.1, shift=0.06),
    # The released script's, jungyu0413/NLA at b86f31f; the paper states none.
    "released": Recipe(noise_probability=0.5, flip_probability=0.5, erase_probability=0.5),
}


def named_recipe(name: str) -> Recipe:
    """Return the recipe called `name`; ValueError with the list of names for another."""
    return named(RECIPES, name, "augmentation")


class EpochDraws:
    """The random numbers of one epoch, for each sample of the training set.

    Parameters
    ----------
    samples : int
    seed, epoch : int
    """

    def __init__(self, samples: int, seed: int, epoch: int):
        generator = np.random.default_rng([seed, epoch, 1])
        self.uniform = torch.from_numpy(generator.random((samples, _DRAWS), dtype=np.float32))
        self._noise_seed = [seed, epoch, 2]
        self._noise = None

    def to(self, device: torch.device) -> "EpochDraws":
        """Take the numbers to the device on which images are augmented, for the whole epoch."""
        self.uniform = self.uniform.to(device)
        return self

    @property
    def noise(self) -> Tensor:
        """Standard normal numbers, which samples read from places of their own.

        They are drawn when first asked for.
        """
        if self._noise is None:
            generator = np.random.default_rng(self._noise_seed)
            drawn = torch.from_numpy(generator.standard_normal(_NOISE_BANK, dtype=np.float32))
            self._noise = drawn.to(self.uniform.device)
        return self._noise


def augment(images: Tensor, samples: Tensor, draws: EpochDraws, recipe: Recipe) -> Tensor:
    """Return the augmented, normalised batch.

    Parameters
    ----------
    images : Tensor, (N, 3, H, W) uint8
    samples : Tensor, (N,) int64
        Position of each image in the training set, or in the epoch of a balanced sampler: it
        selects the image's draws.
    draws : EpochDraws
        Like `samples` on the device of `images`.
    recipe : Recipe

    Returns
    -------
    Tensor, (N, 3, H, W) float32, on the device of `images`
    """
    uniform = draws.uniform[samples]  # (N, 12)
    pixels = images.float()
    if recipe.noise_probability:
        places = (uniform[:, 0] * (_NOISE_BANK - 1)).long()
        steps = torch.arange(pixels[0].numel(), device=images.device)
        noise = draws.noise[(places[:, None] + steps) % _NOISE_BANK]
        chosen = (uniform[:, 1] < recipe.noise_probability).float().view(-1, 1, 1, 1)
        pixels = pixels + chosen * recipe.noise_variance**0.5 * noise.view_as(pixels)
        pixels = pixels.clamp(0, 255)
    pixels = normalise(pixels)
    if recipe.rotation or recipe.scale or recipe.shift:
        pixels = _affine(pixels, uniform[:, 2:7], recipe)
    elif recipe.flip_probability:
        mirrored = (uniform[:, 2] < recipe.flip_probability).view(-1, 1, 1, 1)
        pixels = torch.where(mirrored, pixels.flip(3), pixels)
    if recipe.erase_probability:
        pixels = _erase(pixels, uniform[:, 7:12], recipe)
    return pixels


def _affine(pixels: Tensor, uniform: Tensor, recipe: Recipe) -> Tensor:
    """Flip, rotate, scale and shift each image by one interpolation."""
    signed = 2 * uniform[:, 1:] - 1  # (N, 4): angle, size, shifts
    angle = signed[:, 0] * recipe.rotation * torch.pi / 180
    size = 1 + signed[:, 1] * recipe.scale
    mirror = torch.where(uniform[:, 0] < recipe.flip_probability, -1.0, 1.0)
    cosine, sine = angle.cos() / size, angle.sin() / size
    shift = 2 * recipe.shift * signed[:, 2:4]  # the grid's coordinates run from -1 to 1
    first = [mirror * cosine, -mirror * sine, shift[:, 0]]
    second = [sine, cosine, shift[:, 1]]
    matrices = torch.stack([*first, *second], dim=1).view(-1, 2, 3)
    grid = functional.affine_grid(matrices, list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def _erase(pixels: Tensor, uniform: Tensor, recipe: Recipe) -> Tensor:
    """Set one rectangle of each chosen image to 0, the mean colour after normalisation."""
    height, width = pixels.shape[2:]
    chosen, size, shape, down, right = uniform.T[..., None, None]  # (N, 1, 1) each
    smallest, largest = recipe.erase_area
    area = smallest + size * (largest - smallest)
    # Aspect ratio log-uniform from 0.3 to 3.3, as torchvision's RandomErasing draws it.
    ratio = torch.exp(np.log(0.3) + shape * (np.log(3.3) - np.log(0.3)))
    tall = (height * (area * ratio).sqrt()).clamp(max=height)
    wide = (width * (area / ratio).sqrt()).clamp(max=width)
    top, left = down * (height - tall), right * (width - wide)
    y = torch.arange(height, device=pixels.device).view(1, -1, 1) + 0.5
    x = torch.arange(width, device=pixels.device).view(1, 1, -1) + 0.5
    inside = (y > top) & (y < top + tall) & (x > left) & (x < left + wide)
    inside = inside & (chosen < recipe.erase_probability)
    return pixels.masked_fill(inside[:, None], 0.0)
