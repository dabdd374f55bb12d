"""Masked pre-training: its run, and the encoder it leaves behind.

No label reaches the loss. The labels take part in which images are read: a class-balanced choice
of subsets and held-out images, and what the label rule drops.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn

from nlalib.data.content import compare_content, record_content
from nlalib.data.splits import HELD_OUT, TRAIN
from nlalib.networks.masked_autoencoder import (
    EpochMasks,
    MaskedAutoencoder,
    patchify,
    reconstruction_loss,
)
from nlalib.networks.normalisation import normalise
from nlalib.networks.vision_transformer import VIT_SIZES, build_vit
from nlalib.paths import display_path
from nlalib.training.augmentation import EpochDraws, augment, named_recipe
from nlalib.training.batches import DeviceImages, batches
from nlalib.training.checkpoint import write_weights
from nlalib.training.config import RunConfig
from nlalib.training.devices import make_accelerator, require_device
from nlalib.training.pretrain_config import PretrainConfig
from nlalib.training.progress_bar import shown
from nlalib.training.resumable import ResumableRun, already_done

_EVALUATION_BATCH = 256
_BETAS = (0.9, 0.95)  # of AdamW, as in He et al. 2022
_WARM_UP = 0.1  # share of the steps in which the learning rate rises


def random_encoder(config: PretrainConfig) -> nn.Module:
    """Return the encoder before any training, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_vit(config.num_classes, config.backbone)


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
    images = ("dataset", "data_root", "label_rule", "num_classes", "train_images", "test_images")
    images += ("data_seed", "held_out", "image_size", "backbone")
    shared = {name: getattr(config, name) for name in images} | training
    weights = display_path(config.folder / "weights.safetensors")
    return {
        "random": RunConfig(**shared),
        "pre-trained": RunConfig(**shared, initial_weights=weights),
    }


def make_optimizer(autoencoder: nn.Module, config: PretrainConfig, steps: int):
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
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.lr, total_steps=steps, pct_start=_WARM_UP, cycle_momentum=False
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
    RuntimeError
        If another process is training in the run's folder, if the device that is asked for is not
        there or is taken, or if it has no memory left.
    Interrupted, FloatingPointError, ValueError, OSError
        As `nlalib.training.resumable.ResumableRun.go`.

    Notes
    -----
    A checkpoint is written after each epoch. All random numbers come from (seed, epoch, sample),
    so a run that was killed ends with the same numbers, bit by bit on the CPU.
    """
    report = report or (lambda line: None)
    require_device(config.device)  # also where there is nothing left to do
    compare_content(config.folder, index, images)
    with config.locked():
        if config.is_done:
            already_done(config, report)
        else:
            accelerator = make_accelerator(config.device, config.precision)
            PretrainingRun(config, index, images, accelerator, report).go()
    return config.folder


class PretrainingRun(ResumableRun):
    """One masked autoencoder on one set: its epochs, and the folder they leave.

    `learned` is the autoencoder.
    """

    def __init__(
        self,
        config: PretrainConfig,
        index: pd.DataFrame,
        images: np.ndarray,
        accelerator: Accelerator,
        report: Callable[[str], None],
    ):
        super().__init__(config, accelerator, report)
        self.write_beginning()
        record_content(self.folder, index, images)
        self.parts = {part: np.flatnonzero(index["part"] == part) for part in (TRAIN, HELD_OUT)}
        self.images = DeviceImages(images, accelerator.device)
        self.learned = random_autoencoder(config).to(accelerator.device)
        samples = len(self.parts[TRAIN])
        steps = len(batches(samples, config.batch_size, config.seed, 0)) * config.epochs
        optimizer, self.scheduler = make_optimizer(self.learned, config, steps)
        self.wrapped, self.optimizer = accelerator.prepare(self.learned, optimizer)

    def run_epoch(self, epoch: int) -> dict:
        """Train, and measure the loss on held-out images."""
        train_loss = pretrain_epoch(
            self.config,
            epoch,
            accelerator=self.accelerator,
            model=self.wrapped,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            images=self.images,
            positions=self.parts[TRAIN],
        )
        held_out_loss = evaluate(self.config, self.wrapped, self.images, self.parts[HELD_OUT])
        return {"train_loss": train_loss, "held_out_loss": held_out_loss}

    def line(self) -> str:
        """Return what is said of the last epoch."""
        config, last, done = self.config, self.progress.metrics[-1], self.progress.epochs_done
        return (
            f"masked seed {config.seed}: epoch {done}/{config.epochs}, "
            f"loss {last['train_loss']:.3f}, held out {last['held_out_loss']:.3f}, "
            f"{self.progress.minutes_left(config.epochs):.1f} min left"
        )

    def write_results(self) -> None:
        """Write the autoencoder, and the encoder alone.

        Without the classifier, which was never trained, and belongs to whoever loads the encoder.
        """
        write_weights(self.folder / "autoencoder.safetensors", self.learned)
        write_weights(self.folder / "weights.safetensors", self.learned, "encoder.", "fc.")


def pretrain_epoch(
    config: PretrainConfig,
    epoch: int,
    *,
    accelerator: Accelerator,
    model: nn.Module,
    optimizer,
    scheduler,
    images: DeviceImages,
    positions: np.ndarray,
) -> float:
    """Train for one epoch; return the mean loss over its batches."""
    model.train()
    draws = EpochDraws(len(positions), config.seed, epoch).to(accelerator.device)
    masks = EpochMasks(len(positions), config.num_patches, config.mask_ratio, config.seed, epoch)
    recipe = named_recipe(config.augmentation)
    losses = []
    parts = batches(len(positions), config.batch_size, config.seed, epoch)
    pixels = images.stream(positions[batch] for batch in parts)
    for batch in shown(parts, f"epoch {epoch + 1}/{config.epochs}"):
        samples = torch.from_numpy(batch)
        views = augment(next(pixels), samples.to(accelerator.device), draws, recipe)
        visible, hidden = (mask.to(accelerator.device) for mask in masks(samples))
        loss = _loss(config, model(views, visible), views, hidden)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        if not optimizer.step_was_skipped:  # fp16 leaves out a step whose gradients overflow
            scheduler.step()
        losses.append(loss.detach())
    mean_loss = float(torch.stack(losses).mean())
    if not np.isfinite(mean_loss):
        raise FloatingPointError(
            f"the loss is {mean_loss} in epoch {epoch}: lower lr ({config.lr}) or use fp32"
        )
    return mean_loss


@torch.no_grad()
def evaluate(
    config: PretrainConfig, model: nn.Module, images: DeviceImages, positions: np.ndarray
) -> float:
    """Return the mean loss on unaugmented images, under the same masks at every call."""
    model.eval()
    # Training stops before this epoch, so its masks are free for the held-out part.
    masks = EpochMasks(
        len(positions), config.num_patches, config.mask_ratio, config.seed, config.epochs
    )
    losses = []
    for samples in torch.arange(len(positions)).split(_EVALUATION_BATCH):
        pixels = normalise(images.read(positions[samples.numpy()]))
        visible, hidden = (mask.to(images.device) for mask in masks(samples))
        loss = _loss(config, model(pixels, visible), pixels, hidden)
        losses.append(float(loss) * len(samples))
    return sum(losses) / len(positions)


def _loss(config: PretrainConfig, predicted, pixels, hidden):
    side = VIT_SIZES[config.backbone]["patch_size"]
    return reconstruction_loss(predicted, patchify(pixels, side), hidden)
