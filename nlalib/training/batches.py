"""Batches: which images come together in an epoch, and how their pixels get to the device."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from nlalib.data.pixels import read_images

# Stream of their random numbers; 1, 2 and 3 are those of augmentation and masks.
_STREAM = 0
# Of a device's free memory, the share that stored images may take for themselves.
SHARE_OF_MEMORY = 0.25


def batches(
    samples: int,
    batch_size: int,
    seed: int,
    epoch: int,
    processes: int = 1,
    labels: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Return the positions of each batch of an epoch, drawn by (seed, epoch) alone.

    A last batch with less than two images for each process joins the one before: batch
    normalisation needs two.

    Parameters
    ----------
    samples, batch_size, seed, epoch, processes : int
    labels : numpy.ndarray, (samples,) int, optional
        With them the epoch is as many images drawn with replacement, each class as often as any
        other in the mean; without, each image comes once. The first is the "imbalanced data set
        sampler" with which released FER code (POSTER V2, by its users' account) trains on
        AffectNet: each image with probability 1 / (images of its class).
    """
    generator = np.random.default_rng([seed, epoch, _STREAM])
    if labels is None:
        order = generator.permutation(samples)
    else:
        _, class_of, counts = np.unique(labels, return_inverse=True, return_counts=True)
        odds = 1 / counts[class_of]
        order = generator.choice(samples, samples, p=odds / odds.sum())
    parts = [order[start : start + batch_size] for start in range(0, samples, batch_size)]
    if len(parts) > 1 and len(parts[-1]) < 2 * processes:
        parts[-2:] = [np.concatenate(parts[-2:])]
    return parts


def to_tensor(images: np.ndarray) -> Tensor:
    """Return (N, H, W, 3) uint8 images as a (N, 3, H, W) tensor, channels last in memory."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)


class DeviceImages:
    """The stored images as the device sees them: kept there whole, or brought batch by batch.

    On a GPU they are kept where they take at most `SHARE_OF_MEMORY` of its free memory, and
    batches are gathered there. Else each batch is read one step ahead into pinned memory, and its
    copy overlaps the step before. On the CPU they are read from the store as they are asked for.

    Parameters
    ----------
    images : numpy.ndarray, (N, H, W, 3) uint8
    device : torch.device
    kept : bool, optional
        Whether they are kept on the device; by default where they fit on a GPU.
    """

    def __init__(self, images: np.ndarray, device: torch.device, kept: bool | None = None):
        self.images, self.device = images, device
        self._kept = None
        if kept is None and device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            kept = images.nbytes <= SHARE_OF_MEMORY * free
        if kept:
            self._kept = torch.empty(images.shape, dtype=torch.uint8, device=device)
            for start in range(0, len(images), 1024):
                some = np.arange(start, min(start + 1024, len(images)))
                self._kept[start : start + 1024] = torch.from_numpy(read_images(images, some))

    @property
    def are_kept(self) -> bool:
        """Whether `gather` works: the device holds all of them."""
        return self._kept is not None

    def gather(self, positions: Tensor) -> Tensor:
        """Return the images at `positions`, (n,) int64 on the device, as `read` does."""
        return self._kept[positions].permute(0, 3, 1, 2)

    def read(self, positions: np.ndarray) -> Tensor:
        """Return the images at `positions`, (n, 3, H, W) uint8 on the device, channels last."""
        if self.are_kept:
            return self.gather(torch.from_numpy(positions).to(self.device))
        return to_tensor(read_images(self.images, positions)).to(self.device)

    def stream(self, groups: Iterable[np.ndarray]) -> Iterator[Tensor]:
        """Yield what `read` returns of each group of positions."""
        if self.device.type == "cuda" and not self.are_kept:
            yield from self._one_step_ahead(groups)
        else:
            yield from map(self.read, groups)

    def _one_step_ahead(self, groups: Iterable[np.ndarray]) -> Iterator[Tensor]:
        beside = torch.cuda.Stream(self.device)
        ahead = None
        for positions in groups:
            pinned = to_tensor(read_images(self.images, positions)).pin_memory()
            with torch.cuda.stream(beside):
                following = pinned.to(self.device, non_blocking=True), beside.record_event()
            if ahead is not None:
                yield self._arrived(*ahead)
            ahead = following
        if ahead is not None:
            yield self._arrived(*ahead)

    def _arrived(self, pixels: Tensor, event: torch.cuda.Event) -> Tensor:
        here = torch.cuda.current_stream(self.device)
        here.wait_event(event)
        pixels.record_stream(here)  # its memory is not given to the next copy before its use
        return pixels
