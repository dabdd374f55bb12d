"""Masked pre-training: its run, and the encoder it leaves behind.

No label reaches the loss. The labels take part in which images are read: a class-balanced choice
of subsets and held-out images, and what the label rule drops.
"""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from nlalib.data.splits import HELD_OUT, TRAIN
from nlalib.networks.masked_autoencoder import (
    EpochMasks,
    MaskedAutoencoder,
    patchify,
    reconstruction_loss,
)
from nlalib.networks.normalisation import normalise
from nlalib.networks.registry import build_model
from nlalib.networks.vision_transformer import VIT_SIZES
from nlalib.paths import display_path
from nlalib.training.augmentation import EpochDraws, augment, named_recipe
from nlalib.training.batches import batches
from nlalib.training.checkpoint import write_weights
from nlalib.training.config import RunConfig
from nlalib.training.devices import make_accelerator
from nlalib.training.loop import finite_mean
from nlalib.training.pretrain_config import PretrainConfig
from nlalib.training.progress_bar import shown
from nlalib.training.resumable import ResumableRun, finish_run

_EVALUATION_BATCH = 256
_BETAS = (0.9, 0.95)  # of AdamW, as in He et al. 2022
_WARM_UP = 0.1  # share of the steps in which the learning rate rises


def random_encoder(config: PretrainConfig) -> nn.Module:
    """Return the encoder before any training, the same for the same seed."""
    return build_model(config.backbone, config.num_classes, config.seed)


def random_autoencoder(config: PretrainConfig) -> MaskedAutoencoder:
    """Return `random_encoder` with a decoder, before any training."""
    encoder = random_encoder(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return MaskedAutoencoder(encoder, config.decoder_width, config.decoder_depth)


def trained_autoencoder(config: PretrainConfig) -> MaskedAutoencoder:
    """Return encoder and decoder of a finished run, in evaluation mode.

    Raises
    ------
    FileNotFoundError
        If the run is not done.
    """
    if not config.is_done:
        raise FileNotFoundError(
            f"{config.run_id} is not done; call nlalib.training.pretraining.pretrain first"
        )
    autoencoder = random_autoencoder(config)
    autoencoder.load_state_dict(load_file(config.folder / "autoencoder.safetensors"))
    return autoencoder.eval()


def fine_tuning_runs(config: PretrainConfig, **training) -> dict[str, RunConfig]:
    """Return two training runs with labels that differ in nothing but their initial weights.

    Parameters
    ----------
    config : PretrainConfig
        Of a finished run; the runs use its images.
    **training
        Parameters of `RunConfig` that both share: `method`, `epochs`, `lr`, `seed` and so on.

    Returns
    -------
    dict of RunConfig
        "random" and "pre-trained".
    """
    own = {"image_size": config.image_size, "backbone": config.backbone}
    shared = vars(config.data) | own | training
    weights = display_path(config.folder / "weights.safetensors")
    return {
        "random": RunConfig(**shared),
        "pre-trained": RunConfig(**shared, initial_weights=weights),
    }


def _make_optimizer(autoencoder: nn.Module, config: PretrainConfig, steps: int):
    """Return AdamW and its one-cycle schedule of `steps` steps.

    Weights decay; biases, normalisations and the mask token do not, as in He et al. 2022.
    """
    learned = [p for p in autoencoder.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learned if p.ndim == 2 or p.ndim == 4]},
        {"params": [p for p in learned if p.ndim not in (2, 4)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=config.lr, betas=_BETAS, weight_decay=config.weight_decay
    )
    # A rise of exactly one step would be of length 0 to PyTorch, which divides by it.
    rise = _WARM_UP if _WARM_UP * steps != 1 else 1.1 * _WARM_UP
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.lr, total_steps=steps, pct_start=rise, cycle_momentum=False
    )
    return optimizer, scheduler


def pretrain(
    config: PretrainConfig,
    index: pd.DataFrame,
    images: np.ndarray,
    report: Callable[[str], None] | None = None,
) -> Path:
    """Pre-train an encoder and write its run folder; go on where a killed run stopped.

    Parameters
    ----------
    config : PretrainConfig
    index : pandas.DataFrame
        With the column `part`, from `nlalib.data.splits.load_dataset(config.data)`. It trains on
        the part "train" and measures the loss on "held_out"; "test" is left alone.
    images : numpy.ndarray, (len(index), size, size, 3) uint8
        The decoded images, from `nlalib.data.pixels.image_array`.
    report : callable, optional
        Gets a line of text after each epoch.

    Returns
    -------
    pathlib.Path
        The run's folder. A folder that is already `done` is returned at once.

    Raises
    ------
    RuntimeError, Interrupted, FloatingPointError, ValueError, OSError
        As `nlalib.training.resumable.finish_run`.

    Notes
    -----
    A checkpoint is written after each epoch. All random numbers come from (seed, epoch, sample),
    so a run that was killed ends with the same numbers, bit by bit on the CPU.
    """
    return finish_run(config, index, images, report or (lambda line: None), PretrainingRun)


class PretrainingRun(ResumableRun):
    """One masked autoencoder on one set: its epochs, and the folder they leave.

    `learned` is the autoencoder.
    """

    told: ClassVar = {"loss": "train_loss", "held out": "held_out_loss"}

    def __init__(
        self,
        config: PretrainConfig,
        index: pd.DataFrame,
        images: np.ndarray,
        report: Callable[[str], None],
    ):
        accelerator = make_accelerator(config.device, config.precision)
        super().__init__("masked", config, index, images, accelerator, report)
        self.learned = random_autoencoder(config).to(accelerator.device)
        samples = len(self.parts[TRAIN])
        steps = len(batches(samples, config.batch_size, config.seed, 0)) * config.epochs
        optimizer, self.scheduler = _make_optimizer(self.learned, config, steps)
        self.wrapped, self.optimizer = accelerator.prepare(self.learned, optimizer)

    def run_epoch(self, epoch: int) -> dict:
        """Train, and measure the loss on held-out images."""
        return {"train_loss": self._train(epoch), "held_out_loss": self._evaluate()}

    def _train(self, epoch: int) -> float:
        """Train for one epoch; return the mean loss over its batches."""
        config, positions = self.config, self.parts[TRAIN]
        self.wrapped.train()
        draws = EpochDraws(len(positions), config.seed, epoch).to(self.images.device)
        masks = self._masks(positions, epoch)
        recipe = named_recipe(config.augmentation)
        losses = []
        parts = batches(len(positions), config.batch_size, config.seed, epoch)
        pixels = self.images.stream(positions[batch] for batch in parts)
        for batch in shown(parts, f"epoch {epoch + 1}/{config.epochs}"):
            samples = torch.from_numpy(batch)
            views = augment(next(pixels), samples.to(self.images.device), draws, recipe)
            loss = self._loss(views, masks(samples))
            self.optimizer.zero_grad()
            self.accelerator.backward(loss)
            self.optimizer.step()
            if not self.optimizer.step_was_skipped:  # fp16 leaves out steps that overflow
                self.scheduler.step()
            losses.append(loss.detach())
        return finite_mean(torch.stack(losses), epoch, config.lr)

    @torch.no_grad()
    def _evaluate(self) -> float:
        """Return the mean loss on unaugmented images, under the same masks at every call."""
        self.wrapped.eval()
        positions, losses = self.parts[HELD_OUT], []
        # Training stops before this epoch, so its masks are free for the held-out part.
        masks = self._masks(positions, self.config.epochs)
        for samples in torch.arange(len(positions)).split(_EVALUATION_BATCH):
            pixels = normalise(self.images.read(positions[samples.numpy()]))
            losses.append(float(self._loss(pixels, masks(samples))) * len(samples))
        return sum(losses) / len(positions)

    def _masks(self, positions: np.ndarray, epoch: int) -> EpochMasks:
        config = self.config
        return EpochMasks(len(positions), config.num_patches, config.mask_ratio, config.seed, epoch)

    def _loss(self, pixels: Tensor, masks: tuple[Tensor, Tensor]) -> Tensor:
        visible, hidden = (mask.to(self.images.device) for mask in masks)
        patches = patchify(pixels, VIT_SIZES[self.config.backbone]["patch_size"])
        return reconstruction_loss(self.wrapped(pixels, visible), patches, hidden)

    def write_results(self) -> None:
        """Write the autoencoder, and the encoder alone.

        Without the classifier, which was never trained, and belongs to whoever loads the encoder.
        """
        write_weights(self.folder / "autoencoder.safetensors", self.learned)
        write_weights(self.folder / "weights.safetensors", self.learned, "encoder.", "fc.")
