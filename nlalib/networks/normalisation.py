"""What becomes of grey levels before a network of this study sees them."""

from functools import cache

import torch
from torch import Tensor

# Channel means and standard deviations of the released training script (jungyu0413/NLA).
MEAN = (0.577, 0.4494, 0.4001)
STANDARD_DEVIATION = (0.2628, 0.2395, 0.2383)


def normalise(images: Tensor) -> Tensor:
    """Return images scaled by `MEAN` and `STANDARD_DEVIATION`.

    Parameters
    ----------
    images : Tensor, (N, 3, H, W) uint8 or float32
        Grey levels of 0..255.

    Returns
    -------
    Tensor, (N, 3, H, W) float32
    """
    mean, deviation = _statistics(images.device)
    return (images / 255).sub_(mean).div_(deviation)  # in place: one copy of the batch, not three


@cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return `MEAN` and `STANDARD_DEVIATION` on a device, taken there once and not each step."""
    mean, deviation = torch.tensor([MEAN, STANDARD_DEVIATION], device=device)
    return mean.view(1, 3, 1, 1), deviation.view(1, 3, 1, 1)
