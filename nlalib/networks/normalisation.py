"""What becomes of grey levels before a network of this study sees them."""

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
    mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1)
    deviation = torch.tensor(STANDARD_DEVIATION, device=images.device).view(1, 3, 1, 1)
    return (images / 255).sub_(mean).div_(deviation)  # in place: one copy of the batch, not three
