"""One training run: a loop over epochs that can be killed at any moment and goes on."""

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from nlalib.augmentation import EpochDraws, augment, named_recipe, normalise
from nlalib.datasets import HELD_OUT, TEST, TRAIN
from nlalib.evaluation import SELECTION_RULES, classification_metrics, selected_epoch
from nlalib.labels import expressions
from nlalib.methods import Method, ModelOutput, make_method
from nlalib.models import build_model, load_backbone
from nlalib.naw import label_and_nearest_negative
from nlalib.paths import resolve
from nlalib.runs import RunConfig, environment, locked, write_atomically, write_json

_PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
_EVALUATION_BATCH = 256


def make_accelerator(device: str, precision: str) -> Accelerator:
    """Return the Accelerator that owns device and precision.

    "auto" leaves the choice to Accelerate: CUDA where there is one, else Apple's GPU, else the CPU.

    Raises
    ------
    RuntimeError
        If "cuda" is asked for and there is none, or if started as several processes.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("device is 'cuda' but PyTorch finds no CUDA device; use 'auto' or 'cpu'")
    AcceleratorState._reset_state(reset_partial_state=True)  # one process may train several times
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=_PRECISIONS[precision])
    if accelerator.num_processes > 1:
        raise RuntimeError(
            f"started as {accelerator.num_processes} processes, but a run is one process yet: "
            "start it plainly, and use several devices for several runs"
        )
    return accelerator


def make_optimizer(parameters, config: RunConfig, steps_per_epoch: int):
    """Return (optimizer, scheduler, whether the scheduler steps after each batch)."""
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    optimizer = kinds[config.optimizer](parameters, lr=config.lr, weight_decay=config.weight_decay)
    schedulers = torch.optim.lr_scheduler
    if config.lr_schedule == "one_cycle":
        total = config.epochs * steps_per_epoch
        return optimizer, schedulers.OneCycleLR(optimizer, config.lr, total_steps=total), True
    gamma = 0.9 if config.lr_schedule == "exponential" else 1.0
    return optimizer, schedulers.ExponentialLR(optimizer, gamma), False


def batches(samples: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the positions of each batch of an epoch, shuffled by (seed, epoch) alone.

    A last batch of one image joins the one before: batch normalisation needs two.
    """
    order = np.random.default_rng([seed, epoch, 0]).permutation(samples)
    parts = [order[start : start + batch_size] for start in range(0, samples, batch_size)]
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [np.concatenate(parts[-2:])]
    return parts


def to_tensor(images: np.ndarray) -> Tensor:
    """Return (N, H, W, 3) uint8 images as a (N, 3, H, W) tensor, channels last in memory."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)


def two_view_logits(
    model: nn.Module, views: Tensor, two_views: bool, view_order: str
) -> tuple[Tensor, Tensor | None]:
    """Return the logits of the images and, where asked for, of their mirror images, float32.

    Parameters
    ----------
    views : Tensor, (N, 3, H, W)
    view_order : {"joint", "separate"}
        One forward pass of 2 N images, whose batch statistics both views share, or two passes.
    """
    if not two_views:
        return model(views).float(), None
    flipped = views.flip(3)
    if view_order == "separate":
        return model(views).float(), model(flipped).float()
    return model(torch.cat([views, flipped])).float().chunk(2)


@torch.no_grad()
def predict(model: nn.Module, images: np.ndarray, positions: np.ndarray, device) -> np.ndarray:
    """Return class probabilities, (len(positions), K) float32, of unaugmented images."""
    model.eval()
    parts = []
    for start in range(0, len(positions), _EVALUATION_BATCH):
        chosen = positions[start : start + _EVALUATION_BATCH]
        pixels = normalise(to_tensor(images[chosen]).to(device))
        parts.append(model(pixels).float().softmax(dim=1).cpu())
    return torch.cat(parts).numpy()


@dataclass
class Progress:
    """What a checkpoint holds beside weights: everything that the finished run will report."""

    epochs_done: int
    metrics: list[dict]
    seconds: list[float]
    predictions: dict[int, dict[str, Tensor]]  # epoch -> part -> probabilities, selected ones


def train(
    config: RunConfig,
    index: pd.DataFrame,
    images: np.ndarray,
    report: Callable[[str], None] | None = None,
) -> Path:
    """Train one network and write its run folder; go on where a killed run stopped.

    Parameters
    ----------
    config : RunConfig
    index : pandas.DataFrame
        With the column `part`, from `nlalib.datasets.load_dataset`.
    images : numpy.ndarray, (len(index), size, size, 3) uint8
        The decoded images, from `nlalib.images.image_array`.
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

    Notes
    -----
    A checkpoint is written after each epoch. All random numbers come from (seed, epoch), so a
    run that was killed and started again ends with the same numbers, bit by bit on the CPU.
    """
    report = report or (lambda line: None)
    folder = config.folder
    with locked(folder):
        if config.is_done:
            report(f"already done: {config.run_id}")
        else:
            _train(config, index, images, report)
    return folder


def _train(
    config: RunConfig, index: pd.DataFrame, images: np.ndarray, report: Callable[[str], None]
) -> None:
    """Do the work of `train`, in a folder that no other process uses."""
    folder = config.folder
    write_json(folder / "config.json", {**asdict(config), "identity": config.identity})
    write_json(folder / "environment.json", environment())

    parts = {part: np.flatnonzero(index["part"] == part) for part in (TRAIN, HELD_OUT, TEST)}
    labels = torch.from_numpy(index["label"].to_numpy(np.int64, copy=True))
    accelerator = make_accelerator(config.device, config.precision)
    report(f"device {accelerator.device}, precision {config.precision}")
    model = build_model(config.backbone, config.num_classes, config.seed)
    if config.initial_weights:
        unused = load_backbone(model, resolve(config.initial_weights))
        report(f"initial weights: {config.initialisation}, without use for {unused or 'nothing'}")
    method = make_method(config.method, config.method_settings)
    learned = nn.ModuleDict({"model": model, "method": method})
    learned.to(accelerator.device, memory_format=torch.channels_last)
    steps = len(batches(len(parts[TRAIN]), config.batch_size, config.seed, 0))
    optimizer, scheduler, steps_each_batch = make_optimizer(learned.parameters(), config, steps)
    model, optimizer = accelerator.prepare(model, optimizer)

    checkpoint = folder / "checkpoint.pt"
    progress = Progress(0, [], [], {})
    if checkpoint.exists():
        # On the CPU, where the recorded predictions belong; the rest moves as it is loaded.
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        learned.load_state_dict(state["learned"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        if accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(state["scaler"])
        progress = Progress(**state["progress"])
        report(f"going on after epoch {progress.epochs_done} of {config.epochs}")

    for epoch in range(progress.epochs_done, config.epochs):
        started = time.perf_counter()
        mean_loss, facts = train_epoch(
            config,
            epoch,
            accelerator=accelerator,
            model=model,
            method=method,
            optimizer=optimizer,
            scheduler=scheduler if steps_each_batch else None,
            images=images,
            labels=labels,
            positions=parts[TRAIN],
        )
        if not steps_each_batch:
            scheduler.step()
        probabilities = {
            part: predict(model, images, parts[part], accelerator.device)
            for part in (HELD_OUT, TEST)
        }
        progress.epochs_done = epoch + 1
        progress.metrics.append(
            {
                "epoch": epoch,
                "train_loss": mean_loss,
                "train_accuracy": float((facts["p_gt"] >= facts["p_nn"]).mean()),
                **_metrics_of("validation", labels, parts[HELD_OUT], probabilities[HELD_OUT]),
                **_metrics_of("test", labels, parts[TEST], probabilities[TEST]),
            }
        )
        progress.predictions[epoch] = {k: torch.from_numpy(v) for k, v in probabilities.items()}
        _keep_selected(progress)
        progress.seconds.append(time.perf_counter() - started)
        write_facts(folder, epoch, index["image_id"].to_numpy()[parts[TRAIN]], facts)
        state = {
            "learned": learned.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            # Only fp16 scales its gradients.
            "scaler": accelerator.scaler.state_dict() if accelerator.scaler is not None else None,
            "progress": asdict(progress),
        }
        write_atomically(checkpoint, lambda path, state=state: torch.save(state, path))
        report(_line(config, progress))

    finish(folder, config, index, parts, progress, learned["model"])


def train_epoch(
    config: RunConfig,
    epoch: int,
    *,
    accelerator: Accelerator,
    model: nn.Module,
    method: Method,
    optimizer,
    scheduler,
    images: np.ndarray,
    labels: Tensor,
    positions: np.ndarray,
) -> tuple[float, dict[str, np.ndarray]]:
    """Train for one epoch; return the mean loss and the facts of each sample of `positions`.

    The mean is over batches, of which the last may be smaller. The facts are taken in training
    mode from the augmented image, just as the loss saw it: `p_gt`, `p_nn`, `cross_entropy`, and
    what the method adds (NAW's `weight`).
    """
    model.train()
    draws = EpochDraws(len(positions), config.seed, epoch)
    recipe = named_recipe(config.augmentation)
    seen, losses, facts = [], [], []
    for batch in batches(len(positions), config.batch_size, config.seed, epoch):
        rows = positions[batch]
        target = labels[rows].to(accelerator.device)
        pixels = to_tensor(images[rows]).to(accelerator.device)
        views = augment(pixels, torch.from_numpy(batch), draws, recipe)
        logits, flipped = two_view_logits(model, views, method.two_views, config.view_order)
        loss, batch_facts = method(ModelOutput(logits, flipped, target, epoch, config.epochs))
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        with torch.no_grad():
            p_gt, p_nn = label_and_nearest_negative(logits, target)
            cross_entropy = functional.cross_entropy(logits, target, reduction="none")
        basic = {"p_gt": p_gt, "p_nn": p_nn, "cross_entropy": cross_entropy}
        # Left on the device: copying each step would make the step wait for the device.
        seen.append(batch)
        losses.append(loss.detach())
        facts.append(torch.stack(list({**basic, **batch_facts}.values())))
    mean_loss = float(torch.stack(losses).mean())
    if not np.isfinite(mean_loss):
        raise FloatingPointError(
            f"the loss is {mean_loss} in epoch {epoch}: lower lr ({config.lr}) or use fp32"
        )
    order = np.argsort(np.concatenate(seen))
    table = torch.cat(facts, dim=1).cpu().numpy()[:, order]
    return mean_loss, dict(zip([*basic, *batch_facts], table, strict=True))


def _metrics_of(
    name: str, labels: Tensor, positions: np.ndarray, probabilities: np.ndarray
) -> dict[str, float]:
    """Return the metrics of one part, their names preceded by the part's."""
    metrics = classification_metrics(
        labels.numpy()[positions], probabilities, probabilities.shape[1]
    )
    return {f"{name}_{metric}": value for metric, value in metrics.items()}


def selected_epochs(metrics: pd.DataFrame) -> dict[str, int]:
    """Return the epoch that each selection rule picks by overall accuracy."""
    return {rule: selected_epoch(metrics, rule) for rule in SELECTION_RULES}


def _keep_selected(progress: Progress) -> None:
    """Drop predictions of epochs that no selection rule can pick any more."""
    selected = set(selected_epochs(pd.DataFrame(progress.metrics)).values())
    progress.predictions = {e: p for e, p in progress.predictions.items() if e in selected}


def _line(config: RunConfig, progress: Progress) -> str:
    last = progress.metrics[-1]
    left = np.mean(progress.seconds) * (config.epochs - progress.epochs_done)
    return (
        f"{config.method} seed {config.seed}: epoch {progress.epochs_done}/{config.epochs}, "
        f"loss {last['train_loss']:.3f}, validation {last['validation_overall_accuracy']:.3f}, "
        f"test {last['test_overall_accuracy']:.3f}, {left / 60:.1f} min left"
    )


def write_facts(folder: Path, epoch: int, image_ids: np.ndarray, facts: dict) -> None:
    """Write one epoch's facts; `finish` joins the epochs into `naw.parquet`."""
    table = pd.DataFrame({"epoch": np.int16(epoch), "image_id": image_ids, **facts})
    path = folder / "facts" / f"{epoch:04d}.parquet"
    write_atomically(path, lambda unfinished: table.to_parquet(unfinished, index=False))


def finish(
    folder: Path,
    config: RunConfig,
    index: pd.DataFrame,
    parts: dict[str, np.ndarray],
    progress: Progress,
    model: nn.Module,
) -> None:
    """Write what the run reports, `done` last, and remove what only a resumption needs."""
    metrics = pd.DataFrame(progress.metrics)
    timing = pd.DataFrame({"epoch": metrics["epoch"], "seconds": progress.seconds})
    write_atomically(folder / "metrics.csv", lambda path: metrics.to_csv(path, index=False))
    write_atomically(folder / "timing.csv", lambda path: timing.to_csv(path, index=False))

    names = [f"p_{name}" for name in expressions(config.num_classes)]
    tables = []
    for epoch, probabilities in sorted(progress.predictions.items()):
        for part, values in probabilities.items():
            columns = index.iloc[parts[part]][["image_id", "part", "label"]]
            table = pd.DataFrame(values.numpy(), columns=names, index=columns.index)
            tables.append(pd.concat([columns, table], axis=1).assign(epoch=epoch))
    predictions = pd.concat(tables)
    write_atomically(
        folder / "predictions.parquet", lambda path: predictions.to_parquet(path, index=False)
    )

    files = [folder / "facts" / f"{epoch:04d}.parquet" for epoch in range(config.epochs)]
    facts = pd.concat([pd.read_parquet(file) for file in files])
    write_atomically(folder / "naw.parquet", lambda path: facts.to_parquet(path, index=False))
    weights = {name: value.contiguous().cpu() for name, value in model.state_dict().items()}
    write_atomically(folder / "weights.safetensors", lambda path: save_file(weights, path))
    write_json(folder / "done", {"run_id": config.run_id, "seconds": sum(progress.seconds)})
    shutil.rmtree(folder / "facts")
    (folder / "checkpoint.pt").unlink()
    for left_by_a_kill in folder.glob(".*.unfinished"):
        left_by_a_kill.unlink()
