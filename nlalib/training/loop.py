"""One training run: a loop over epochs that can be killed at any moment and goes on."""

import pickle
import shutil
import struct
import time
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nlalib.data.index import VOTE_COLUMNS
from nlalib.data.labels import expressions
from nlalib.data.pixels import read_images
from nlalib.data.splits import HELD_OUT, TEST, TRAIN, class_votes, training_candidates
from nlalib.files import join_tables, write_atomically, write_json, write_table
from nlalib.methods import Method, ModelOutput, TrainingSet, make_method
from nlalib.methods.facts import prediction_facts
from nlalib.metrics import (
    SELECTION_RULES,
    classification_metrics,
    selected_epoch,
    vote_metrics,
)
from nlalib.networks.initial_weights import initialise
from nlalib.networks.normalisation import normalise
from nlalib.networks.registry import build_model
from nlalib.networks.representation import Representation
from nlalib.parameters import RunParameters
from nlalib.training.augmentation import EpochDraws, augment, named_recipe
from nlalib.training.config import RunConfig, environment
from nlalib.training.devices import (
    copy_buffers_of_the_first,
    deterministic_algorithms,
    is_first_process,
    make_accelerator,
    of_all_processes,
    prepare_for_processes,
    share_of,
    started_processes,
)

_EVALUATION_BATCH = 256
# What the NLA paper trains for, and by what its learning rate shrinks each epoch.
PAPER_EPOCHS, PAPER_DECAY = 60, 0.9
_CALIBRATION_IMAGES = 512


def make_optimizer(learner: "Learner", config: RunConfig, steps_per_epoch: int):
    """Return (optimizer, scheduler, whether the scheduler steps after each batch)."""
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    groups = [{"params": list(learner.model.parameters()), "lr": config.lr}]
    own = list(learner.method.parameters())
    if own:
        groups.append({"params": own, "lr": config.lr * learner.method.lr_factor})
    optimizer = kinds[config.optimizer](groups, lr=config.lr, weight_decay=config.weight_decay)
    schedulers = torch.optim.lr_scheduler
    if config.lr_schedule == "one_cycle":
        total = config.epochs * steps_per_epoch
        highest = [group["lr"] for group in groups]
        return optimizer, schedulers.OneCycleLR(optimizer, highest, total_steps=total), True
    gammas = {
        "exponential": PAPER_DECAY,
        "compressed_exponential": PAPER_DECAY ** (PAPER_EPOCHS / config.epochs),
        "constant": 1.0,
    }
    gamma = gammas[config.lr_schedule]
    return optimizer, schedulers.ExponentialLR(optimizer, gamma), False


def batches(
    samples: int, batch_size: int, seed: int, epoch: int, processes: int = 1
) -> list[np.ndarray]:
    """Return the positions of each batch of an epoch, shuffled by (seed, epoch) alone.

    A last batch with less than two images for each process joins the one before: batch
    normalisation needs two.
    """
    order = np.random.default_rng([seed, epoch, 0]).permutation(samples)
    parts = [order[start : start + batch_size] for start in range(0, samples, batch_size)]
    if len(parts) > 1 and len(parts[-1]) < 2 * processes:
        parts[-2:] = [np.concatenate(parts[-2:])]
    return parts


def to_tensor(images: np.ndarray) -> Tensor:
    """Return (N, H, W, 3) uint8 images as a (N, 3, H, W) tensor, channels last in memory."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)


def memory_format(config: RunConfig) -> torch.memory_format:
    """Return how the network's weights lie in memory."""
    return torch.channels_last if config.channels_last else torch.contiguous_format


def calibration_images(images: np.ndarray, training: np.ndarray) -> Tensor:
    """Return unaugmented training images, evenly spread, for initial weights that look at some.

    `training` holds their positions in `images`. The same for every seed and method.
    """
    few = min(_CALIBRATION_IMAGES, len(training))
    spread = training[np.linspace(0, len(training) - 1, few).astype(int)]
    return normalise(to_tensor(read_images(images, spread)))


class Learner(nn.Module):
    """All that learns, the network and the method, behind one `forward` for Accelerate to wrap.

    Parameters
    ----------
    model : torch.nn.Module
        Returns a `Representation`.
    method : Method
    view_order : {"joint", "separate"}
        One forward pass of 2 N images, whose batch statistics both views share, or two passes.
    """

    def __init__(self, model: nn.Module, method: Method, view_order: str):
        super().__init__()
        self.model, self.method, self.view_order = model, method, view_order

    def forward(self, views: Tensor, **batch) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Return the loss, the method's facts, and the detached logits of the first view.

        `views` are (N, 3, H, W); `batch` holds the other fields of `ModelOutput`.
        """
        first, flipped = self._both_views(views)
        output = ModelOutput(
            logits=first.logits.float(),
            logits_flipped=None if flipped is None else flipped.logits.float(),
            features=first.features,
            features_flipped=None if flipped is None else flipped.features,
            feature_map=first.feature_map,
            feature_map_flipped=None if flipped is None else flipped.feature_map,
            classifier=self.model.fc,
            **batch,
        )
        loss, facts = self.method(output)
        return loss, facts, output.logits.detach()

    def _both_views(self, views: Tensor) -> tuple[Representation, Representation | None]:
        """Return what the network makes of the images and, if asked for, of their mirror images."""
        if not self.method.two_views:
            return self.model(views), None
        flipped = views.flip(3)
        if self.view_order == "separate":
            return self.model(views), self.model(flipped)
        both = [part.chunk(2) for part in self.model(torch.cat([views, flipped]))]
        return Representation(*(p[0] for p in both)), Representation(*(p[1] for p in both))

    def predict(self, images: Tensor) -> Tensor:
        """Return the logits, (N, K) float32, by which unseen images are judged."""
        seen = self.model(images)
        output = ModelOutput(
            logits=seen.logits.float(),
            logits_flipped=None,
            labels=None,
            epoch=0,
            epochs=1,
            features=seen.features,
            feature_map=seen.feature_map,
            classifier=self.model.fc,
        )
        return self.method.predict(output).float()


@torch.no_grad()
def predict(
    learner: Learner, images: np.ndarray, positions: np.ndarray, accelerator: Accelerator
) -> np.ndarray:
    """Return class probabilities, (len(positions), K) float32, of unaugmented images.

    Of several processes each predicts its share, and all return the whole.
    """
    learner.eval()
    share = share_of(positions, accelerator)
    # One table, and no tensor kept of each batch, for the reason that `train_epoch` gives.
    probabilities = torch.empty(len(share), learner.model.fc.out_features)
    for start in range(0, len(share), _EVALUATION_BATCH):
        batch = slice(start, start + _EVALUATION_BATCH)
        pixels = normalise(to_tensor(read_images(images, share[batch])).to(accelerator.device))
        with accelerator.autocast():
            logits = learner.predict(pixels)
        probabilities[batch] = logits.softmax(dim=1)
    return np.concatenate(of_all_processes(probabilities.numpy(), accelerator))


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
        With the column `part`, from `nlalib.data.splits.load_dataset`.
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
    OSError
        If the disk is full or the folder cannot be written; what was finished stays.

    Notes
    -----
    A checkpoint is written after each epoch. All random numbers come from (seed, epoch), so a
    run that was killed and started again ends with the same numbers, bit by bit on the CPU.

    With `config.processes` above 1, either this is one of the processes that torchrun or
    `accelerate launch` started, or they are started here. The first one alone writes and reports.
    """
    report = report if report and is_first_process() else lambda line: None
    folder = config.folder
    if config.is_done:
        report(f"already done: {config.run_id}")
        if is_first_process():
            remove_what_resumes(folder)  # where a kill came just after `done`
    elif config.processes > 1 and started_processes() == 1:
        from nlalib.training.launch import train_in_processes  # which itself calls this function

        train_in_processes(config, index, images, report)
    else:
        with (
            config.locked() if is_first_process() else nullcontext(),
            deterministic_algorithms(config.deterministic),
        ):
            _train(config, index, images, report)
    return folder


def _train(
    config: RunConfig, index: pd.DataFrame, images: np.ndarray, report: Callable[[str], None]
) -> None:
    """Do the work of `train`, in a folder that no other run uses."""
    folder = config.folder
    if config.is_done:  # by a process that held the folder until now
        report(f"already done: {config.run_id}")
        return
    accelerator = make_accelerator(config.device, config.precision, config.processes)
    writes = accelerator.is_main_process
    parts = {part: np.flatnonzero(index["part"] == part) for part in (TRAIN, HELD_OUT, TEST)}
    if writes:
        write_json(folder / "config.json", {**asdict(config), "identity": config.identity})
        write_json(folder / "environment.json", environment())
        write_samples(folder, index)
    several = f", {config.processes} processes" if config.processes > 1 else ""
    report(f"device {accelerator.device}, precision {config.precision}{several}")
    model = build_model(config.backbone, config.num_classes, config.seed)
    if config.initial_weights:
        seen = calibration_images(images, parts[TRAIN])
        unused = initialise(model, config.initial_weights, seen)
        report(f"initial weights: {config.initialisation}, without use for {unused or 'nothing'}")
    learner, targets = make_learner(config, index.iloc[parts[TRAIN]], model)
    learner.to(accelerator.device, memory_format=memory_format(config))
    learner = prepare_for_processes(accelerator, learner, learner.method.has_own_layers)
    if config.compile:
        learner.model.compile()  # in place: the names of the weights stay
    steps = len(_batches_of(config, len(parts[TRAIN]), 0))
    optimizer, scheduler, steps_each_batch = make_optimizer(learner, config, steps)
    wrapped, optimizer = accelerator.prepare(learner, optimizer)

    checkpoint = folder / "checkpoint.pt"
    progress = Progress(0, [], [], {})
    if checkpoint.exists():
        state = read_checkpoint(checkpoint, config)
        learner.load_state_dict(state["learned"])
        load_optimization_state(state, optimizer, scheduler, accelerator)
        progress = Progress(**state["progress"])
        report(f"going on after epoch {progress.epochs_done} of {config.epochs}")

    for epoch in range(progress.epochs_done, config.epochs):
        started = time.perf_counter()
        mean_loss, facts = train_epoch(
            config,
            epoch,
            accelerator=accelerator,
            learner=wrapped,
            optimizer=optimizer,
            scheduler=scheduler if steps_each_batch else None,
            images=images,
            positions=parts[TRAIN],
            targets=targets,
        )
        if not steps_each_batch:
            scheduler.step()
        copy_buffers_of_the_first(accelerator, learner)
        probabilities = {
            part: predict(learner, images, parts[part], accelerator) for part in (HELD_OUT, TEST)
        }
        progress.epochs_done = epoch + 1
        progress.metrics.append(
            {
                "epoch": epoch,
                "train_loss": mean_loss,
                "train_accuracy": float((facts["p_gt"] >= facts["p_nn"]).mean()),
                **_metrics_of("validation", index.iloc[parts[HELD_OUT]], probabilities[HELD_OUT]),
                **_metrics_of("test", index.iloc[parts[TEST]], probabilities[TEST]),
            }
        )
        progress.predictions[epoch] = {k: torch.from_numpy(v) for k, v in probabilities.items()}
        _keep_selected(progress)
        progress.seconds.append(time.perf_counter() - started)
        if not writes:
            continue
        write_facts(folder, epoch, index["image_id"].to_numpy()[parts[TRAIN]], facts)
        state = {
            "run_id": config.run_id,
            "learned": learner.state_dict(),
            **optimization_state(optimizer, scheduler, accelerator),
            "progress": asdict(progress),
        }
        write_atomically(checkpoint, lambda path, state=state: torch.save(state, path))
        report(_line(config, progress))

    # What the finished network makes of its own training images, as they are: how far it has fitted
    # their labels. During an epoch they are augmented, and the network changes.
    fitted = predict(learner, images, parts[TRAIN], accelerator)
    progress.predictions[config.epochs - 1][TRAIN] = torch.from_numpy(fitted)
    if writes:
        finish(folder, config, index, parts, progress, learner)
    accelerator.wait_for_everyone()


def _batches_of(config: RunConfig, samples: int, epoch: int) -> list[np.ndarray]:
    return batches(samples, config.batch_size, config.seed, epoch, config.processes)


def optimization_state(optimizer, scheduler, accelerator: Accelerator) -> dict:
    """Return what a checkpoint holds of the optimisation, beside the weights."""
    # Only fp16 scales its gradients.
    scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else None
    return {
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "scaler": scaler,
    }


def load_optimization_state(state: dict, optimizer, scheduler, accelerator: Accelerator) -> None:
    """Put back, in place, what `optimization_state` returned."""
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    if accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(state["scaler"])


def read_checkpoint(path: Path, config: RunParameters, part: str = "progress") -> dict:
    """Return what `path` holds, on the CPU, where the recorded predictions belong.

    `part` is the name of something that a run's checkpoint has.

    Raises
    ------
    ValueError
        If it is damaged or no checkpoint, or was written by another run.
    """
    remedy = f"delete {path} to begin the run anew"
    if not zipfile.is_zipfile(path):  # which torch.save writes, with its directory at the end
        raise ValueError(f"{path.name} of {config.run_id} is cut off or of another kind: {remedy}")
    try:
        with zipfile.ZipFile(path) as archive:
            # PyTorch reads tensors without a look at their check sums.
            damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error) as error:
        raise ValueError(
            f"{path.name} of {config.run_id} is damaged ({error}): {remedy}"
        ) from error
    if damaged:
        raise ValueError(f"{path.name} of {config.run_id} is damaged in {damaged}: {remedy}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path.name} of {config.run_id} does not load: {remedy}") from error
    if not isinstance(state, dict) or not {part, "run_id"} <= set(state):
        raise ValueError(f"{path.name} of {config.run_id} is no checkpoint of a run: {remedy}")
    if state["run_id"] != config.run_id:
        raise ValueError(
            f"{path.name} belongs to {state['run_id']}, not to {config.run_id}: {remedy}"
        )
    return state


def make_learner(
    config: RunConfig, training_rows: pd.DataFrame, model: nn.Module
) -> tuple[Learner, dict[str, Tensor]]:
    """Return what learns, and what it learns from.

    Returns
    -------
    learner : Learner
    targets : dict of Tensor, N rows each
        `labels` and, where the method needs them, `votes` and `candidates`.
    """
    method = make_method(config.method, config.method_settings)
    targets = {"labels": torch.from_numpy(training_rows["label"].to_numpy(np.int64, copy=True))}
    if "votes" in method.needs:
        targets["votes"] = torch.from_numpy(class_votes(training_rows, config.num_classes))
    if "candidates" in method.needs:
        targets["candidates"] = torch.from_numpy(
            training_candidates(config.data, config.candidates, training_rows)
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        method.setup(
            TrainingSet(
                num_classes=config.num_classes, num_features=model.fc.in_features, **targets
            )
        )
    return Learner(model, method, config.view_order), targets


def write_samples(folder: Path, index: pd.DataFrame) -> None:
    """Write `samples.parquet`: part and given label of each image, and the true one if known."""
    known = [c for c in ("image_id", "part", "label", "true_label", "is_flipped") if c in index]
    write_table(folder / "samples.parquet", index[known])


def train_epoch(
    config: RunConfig,
    epoch: int,
    *,
    accelerator: Accelerator,
    learner: nn.Module,
    optimizer,
    scheduler,
    images: np.ndarray,
    positions: np.ndarray,
    targets: dict[str, Tensor],
) -> tuple[float, dict[str, np.ndarray]]:
    """Train for one epoch; return the mean loss and the facts of each sample of `positions`.

    The mean is over batches, of which the last may be smaller. The facts are taken in training
    mode from the augmented image, just as the loss saw it: `p_gt`, `p_nn`, `predicted`,
    `cross_entropy`, and what the method adds (NAW's `weight`). Of several processes each trains
    on its share of every batch, and all return the loss and the facts of the whole.
    """
    learner.train()
    draws = EpochDraws(len(positions), config.seed, epoch)
    recipe = named_recipe(config.augmentation)
    parts = _batches_of(config, len(positions), epoch)
    losses = facts = None
    for step, batch in enumerate(parts):
        share = share_of(batch, accelerator)
        samples = torch.from_numpy(share)
        on_device = samples.to(accelerator.device)
        pixels = to_tensor(read_images(images, positions[share])).to(accelerator.device)
        views = augment(pixels, samples, draws, recipe)
        if not config.channels_last:
            views = views.contiguous()
        loss, batch_facts, logits = learner(
            views,
            epoch=epoch,
            epochs=config.epochs,
            samples=on_device,
            **{name: values[samples].to(accelerator.device) for name, values in targets.items()},
        )
        if accelerator.num_processes > 1:
            # The mean over processes, of losses and of gradients, so is that over the batch.
            loss = loss * (len(share) * accelerator.num_processes / len(batch))
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        given = targets["labels"][samples].to(accelerator.device)
        # A method's own facts replace those of the network's logits.
        batch_facts = {**prediction_facts(logits, given), **batch_facts}
        stacked = torch.stack(list(batch_facts.values()))
        if step == 0:
            # Two tables, and no tensor kept of each step: many small ones between the large ones of
            # a step would fragment the memory, which then grows with the number of images.
            losses = loss.new_zeros(len(parts))
            facts = stacked.new_zeros(len(stacked), len(positions))
        # Left on the device: a copy of each step's would be one more wait for the device.
        losses[step] = loss.detach()
        facts[:, on_device] = stacked
    mean_loss = float(accelerator.reduce(losses, "mean").mean())
    if not np.isfinite(mean_loss):
        raise FloatingPointError(
            f"the loss is {mean_loss} in epoch {epoch}: lower lr ({config.lr}) or use fp32"
        )
    # Each process has filled the columns of its own samples.
    table = accelerator.reduce(facts, "sum").cpu().numpy()
    return mean_loss, dict(zip(batch_facts, table, strict=True))


def _metrics_of(name: str, rows: pd.DataFrame, probabilities: np.ndarray) -> dict[str, float]:
    """Return the metrics of one part, their names preceded by the part's."""
    num_classes = probabilities.shape[1]
    metrics = classification_metrics(rows["label"].to_numpy(), probabilities, num_classes)
    if set(VOTE_COLUMNS) <= set(rows):
        metrics |= vote_metrics(class_votes(rows, num_classes), probabilities)
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
    write_table(folder / "facts" / f"{epoch:04d}.parquet", table)


def finish(
    folder: Path,
    config: RunConfig,
    index: pd.DataFrame,
    parts: dict[str, np.ndarray],
    progress: Progress,
    learner: Learner,
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
    write_table(folder / "predictions.parquet", predictions)

    files = [folder / "facts" / f"{epoch:04d}.parquet" for epoch in range(config.epochs)]
    join_tables(folder / "naw.parquet", files)
    _write_weights(folder / "weights.safetensors", learner.model)
    if learner.method.has_own_layers:
        _write_weights(folder / "method.safetensors", learner.method)
    write_json(folder / "done", {"run_id": config.run_id, "seconds": sum(progress.seconds)})
    remove_what_resumes(folder)


def remove_what_resumes(folder: Path) -> None:
    """Remove from a finished run's folder what only a resumption needs."""
    shutil.rmtree(folder / "facts", ignore_errors=True)
    for left in [folder / "checkpoint.pt", *folder.glob(".*.unfinished")]:
        left.unlink(missing_ok=True)


def _write_weights(path: Path, module: nn.Module) -> None:
    weights = {name: value.contiguous().cpu() for name, value in module.state_dict().items()}
    write_atomically(path, lambda unfinished: save_file(weights, unfinished))


def load_learner(config: RunConfig, training_rows: pd.DataFrame) -> Learner:
    """Return what a finished run learned, on the CPU and in evaluation mode.

    Parameters
    ----------
    config : RunConfig
    training_rows : pandas.DataFrame
        The rows of the run's index whose part is "train".
    """
    learner, _ = make_learner(
        config, training_rows, build_model(config.backbone, config.num_classes, config.seed)
    )
    learner.model.load_state_dict(load_file(config.folder / "weights.safetensors"))
    if (config.folder / "method.safetensors").exists():
        learner.method.load_state_dict(load_file(config.folder / "method.safetensors"))
    return learner.eval()
