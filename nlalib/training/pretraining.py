"""Masked pre-training as a run: its parameters, its loop, and the encoder it leaves behind.

A run's folder `runs/<run_id>/` holds `config.json`, `environment.json`, `metrics.csv` (one row an
epoch), `timing.csv`, `autoencoder.safetensors` (encoder and decoder, to draw reconstructions),
`weights.safetensors` (the encoder, for `RunConfig.initial_weights`), and last of all `done`.
No label reaches the loss. The labels take part in which images are read: a class-balanced choice
of subsets and held-out images, and what the label rule drops.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from nlalib.data.choice import DataChoice
from nlalib.data.pixels import read_images
from nlalib.data.splits import HELD_OUT, TRAIN
from nlalib.files import write_atomically, write_json
from nlalib.networks.masked_autoencoder import (
    EpochMasks,
    MaskedAutoencoder,
    patchify,
    reconstruction_loss,
    visible_patches,
)
from nlalib.networks.normalisation import normalise
from nlalib.networks.vision_transformer import VIT_SIZES, build_vit
from nlalib.parameters import RunParameters, parameter
from nlalib.paths import display_path
from nlalib.training.augmentation import EpochDraws, augment, named_recipe
from nlalib.training.config import RunConfig, environment, of_aligned_images
from nlalib.training.loop import (
    batches,
    load_optimization_state,
    make_accelerator,
    optimization_state,
    read_checkpoint,
    remove_what_resumes,
    to_tensor,
)

# Raise it when a change of the code changes results, so that old runs are not taken for new ones.
RESULTS_VERSION = 1
_EVALUATION_BATCH = 256
_BETAS = (0.9, 0.95)  # of AdamW, as in He et al. 2022
_WARM_UP = 0.1  # share of the steps in which the learning rate rises


@dataclass(frozen=True)
class PretrainConfig(RunParameters):
    """The parameters of a pre-training run, with the defaults of `05_masked_pretraining.ipynb`.

    The test images only serve the probe.
    """

    dataset: str = parameter("rendered")
    data_root: str = parameter("", identity=False)
    label_rule: str = parameter("argmax")
    num_classes: int = parameter(7)
    train_images: int = parameter(1500)
    test_images: int = parameter(400, identity=False)
    data_seed: int = parameter(0)
    held_out: float = parameter(0.1)
    backbone: str = parameter("vit_tiny_patch6", choices=VIT_SIZES)
    mask_ratio: float = parameter(0.75)
    decoder_width: int = parameter(64)
    decoder_depth: int = parameter(2)
    epochs: int = parameter(8, at_least=1)
    batch_size: int = parameter(32, at_least=2)
    lr: float = parameter(2.0e-3, at_least=0)
    weight_decay: float = parameter(0.05, at_least=0)
    augmentation: str = parameter("flip")
    precision: str = parameter("fp32", choices=("fp32", "bf16", "fp16"))
    seed: int = parameter(0, at_least=0)
    device: str = parameter("auto", identity=False, choices=("auto", "cpu", "cuda"))

    def check(self) -> None:
        """Refuse what does not go together."""
        _ = self.data
        named_recipe(self.augmentation)
        visible_patches(self.num_patches, self.mask_ratio)
        if self.decoder_width < 4 or self.decoder_width % 4 or self.decoder_depth < 0:
            raise ValueError(
                f"decoder of width {self.decoder_width} and depth {self.decoder_depth}; the width "
                "must be a positive multiple of 4, the depth at least 0"
            )

    @property
    def data(self) -> DataChoice:
        """Which images the run sees, for `nlalib.data.splits.load_dataset`."""
        return self.share(DataChoice)

    @property
    def image_size(self) -> int:
        """Side of the images that the backbone takes, pixels."""
        return VIT_SIZES[self.backbone]["image_size"]

    @property
    def num_patches(self) -> int:
        """Patches of an image."""
        return (self.image_size // VIT_SIZES[self.backbone]["patch_size"]) ** 2

    @property
    def identity(self) -> dict:
        """What changes the result: the parameters without places and devices."""
        aligned = of_aligned_images(self.data)
        return {**self.of_identity, **aligned, "results_version": RESULTS_VERSION}

    @property
    def label(self) -> str:
        """What stands in the run's name for people."""
        return f"masked-seed{self.seed}"


def pretraining_table(config: PretrainConfig) -> pd.DataFrame:
    """Return what a finished run and its linear probe found, one row a number.

    Parameters
    ----------
    config : PretrainConfig

    Returns
    -------
    pandas.DataFrame
        Columns `run_id`, `epoch` (from 0), `metric`, `value`: `train_loss` and `held_out_loss` of
        each epoch, and of the last one the probe's `probe_accuracy`, `probe_reference` (of the
        encoder before training), `probe_difference` with the bounds `probe_low` and `probe_high`,
        and the penalties chosen for both, `probe_penalty` and `probe_reference_penalty`.

    Raises
    ------
    FileNotFoundError
        If the run is not done, or was never probed.
    """
    probe = config.folder / "probe.csv"
    if not (config.is_done and probe.is_file()):
        raise FileNotFoundError(
            f"{config.run_id} is not done, or not probed: run 05_masked_pretraining to its end"
        )
    losses = pd.read_csv(config.folder / "metrics.csv").melt("epoch", var_name="metric")
    found = pd.read_csv(probe).add_prefix("probe_").melt(var_name="metric")
    found.insert(0, "epoch", config.epochs - 1)
    table = pd.concat([losses, found], ignore_index=True)
    table.insert(0, "run_id", config.run_id)
    return table


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
        If another process is training in the run's folder, or "cuda" is asked for in vain.
    FloatingPointError
        If an epoch's mean loss is not finite.
    ValueError
        If the folder's checkpoint is damaged, or of another run.

    Notes
    -----
    A checkpoint is written after each epoch. All random numbers come from (seed, epoch, sample),
    so a run that was killed ends with the same numbers, bit by bit on the CPU.
    """
    report = report or (lambda line: None)
    with config.locked():
        if config.is_done:
            report(f"already done: {config.run_id}")
            remove_what_resumes(config.folder)  # where a kill came just after `done`
        else:
            _pretrain(config, index, images, report)
    return config.folder


def _pretrain(
    config: PretrainConfig, index: pd.DataFrame, images: np.ndarray, report: Callable[[str], None]
) -> None:
    """Do the work of `pretrain`, in a folder that no other process uses."""
    folder = config.folder
    write_json(folder / "config.json", {**asdict(config), "identity": config.identity})
    write_json(folder / "environment.json", environment())
    parts = {part: np.flatnonzero(index["part"] == part) for part in (TRAIN, HELD_OUT)}
    accelerator = make_accelerator(config.device, config.precision)
    autoencoder = random_autoencoder(config).to(accelerator.device)
    steps = len(batches(len(parts[TRAIN]), config.batch_size, config.seed, 0)) * config.epochs
    optimizer, scheduler = make_optimizer(autoencoder, config, steps)
    model, optimizer = accelerator.prepare(autoencoder, optimizer)

    checkpoint = folder / "checkpoint.pt"
    rows: list[dict] = []
    if checkpoint.exists():
        state = read_checkpoint(checkpoint, config, "rows")
        autoencoder.load_state_dict(state["autoencoder"])
        load_optimization_state(state, optimizer, scheduler, accelerator)
        rows = state["rows"]
        report(f"going on after epoch {len(rows)} of {config.epochs}")

    for epoch in range(len(rows), config.epochs):
        started = time.perf_counter()
        train_loss = pretrain_epoch(
            config,
            epoch,
            accelerator=accelerator,
            model=model,
            optimizer=optimizer,
            scheduler=scheduler,
            images=images,
            positions=parts[TRAIN],
        )
        held_out_loss = evaluate(config, model, images, parts[HELD_OUT], accelerator.device)
        rows.append({"epoch": epoch, "train_loss": train_loss, "held_out_loss": held_out_loss})
        rows[-1]["seconds"] = time.perf_counter() - started
        state = {
            "run_id": config.run_id,
            "autoencoder": autoencoder.state_dict(),
            **optimization_state(optimizer, scheduler, accelerator),
            "rows": rows,
        }
        write_atomically(checkpoint, lambda path, state=state: torch.save(state, path))
        left = np.mean([row["seconds"] for row in rows]) * (config.epochs - epoch - 1) / 60
        report(
            f"masked seed {config.seed}: epoch {epoch + 1}/{config.epochs}, loss {train_loss:.3f}, "
            f"held out {held_out_loss:.3f}, {left:.1f} min left"
        )
    _finish(config, rows, autoencoder)


def pretrain_epoch(
    config: PretrainConfig,
    epoch: int,
    *,
    accelerator,
    model: nn.Module,
    optimizer,
    scheduler,
    images: np.ndarray,
    positions: np.ndarray,
) -> float:
    """Train for one epoch; return the mean loss over its batches."""
    model.train()
    draws = EpochDraws(len(positions), config.seed, epoch)
    masks = EpochMasks(len(positions), config.num_patches, config.mask_ratio, config.seed, epoch)
    recipe = named_recipe(config.augmentation)
    losses = []
    for batch in batches(len(positions), config.batch_size, config.seed, epoch):
        samples = torch.from_numpy(batch)
        pixels = to_tensor(read_images(images, positions[batch])).to(accelerator.device)
        views = augment(pixels, samples, draws, recipe)
        visible, hidden = (mask.to(accelerator.device) for mask in masks(samples))
        loss = _loss(config, model(views, visible), views, hidden)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
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
    config: PretrainConfig, model: nn.Module, images: np.ndarray, positions: np.ndarray, device
) -> float:
    """Return the mean loss on unaugmented images, under the same masks at every call."""
    model.eval()
    # Training stops before this epoch, so its masks are free for the held-out part.
    masks = EpochMasks(
        len(positions), config.num_patches, config.mask_ratio, config.seed, config.epochs
    )
    losses = []
    for samples in torch.arange(len(positions)).split(_EVALUATION_BATCH):
        pixels = normalise(to_tensor(read_images(images, positions[samples.numpy()])).to(device))
        visible, hidden = (mask.to(device) for mask in masks(samples))
        loss = _loss(config, model(pixels, visible), pixels, hidden)
        losses.append(float(loss) * len(samples))
    return sum(losses) / len(positions)


def _loss(config: PretrainConfig, predicted, pixels, hidden):
    side = VIT_SIZES[config.backbone]["patch_size"]
    return reconstruction_loss(predicted, patchify(pixels, side), hidden)


def _finish(config: PretrainConfig, rows: list[dict], autoencoder: MaskedAutoencoder) -> None:
    """Write what the run reports, `done` last, and remove what only a resumption needs."""
    folder, table = config.folder, pd.DataFrame(rows)
    metrics, timing = table.drop(columns="seconds"), table[["epoch", "seconds"]]
    write_atomically(folder / "metrics.csv", lambda path: metrics.to_csv(path, index=False))
    write_atomically(folder / "timing.csv", lambda path: timing.to_csv(path, index=False))
    state = {name: value.contiguous().cpu() for name, value in autoencoder.state_dict().items()}
    # The classifier was never trained, and belongs to whoever loads the encoder.
    encoder = {
        name.removeprefix("encoder."): value
        for name, value in state.items()
        if name.startswith("encoder.") and not name.startswith("encoder.fc.")
    }
    for file, content in {"autoencoder": state, "weights": encoder}.items():
        write_atomically(
            folder / f"{file}.safetensors", lambda path, content=content: save_file(content, path)
        )
    write_json(folder / "done", {"run_id": config.run_id, "seconds": float(timing.seconds.sum())})
    remove_what_resumes(folder)
