"""A run with labels: what it is made of, what an epoch leaves, what the finished run writes."""

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pandas as pd
import torch

from nlalib.data.index import VOTE_COLUMNS
from nlalib.data.splits import HELD_OUT, TEST, TRAIN, class_votes
from nlalib.files import join_tables
from nlalib.metrics import (
    ONE_EPOCH_RULES,
    classification_metrics,
    picked_epochs,
    vote_metrics,
)
from nlalib.networks.initial_weights import initialise
from nlalib.networks.registry import build_model
from nlalib.training.checkpoint import write_weights
from nlalib.training.config import RunConfig
from nlalib.training.devices import (
    copy_buffers_of_the_first,
    make_accelerator,
    prepare_for_processes,
)
from nlalib.training.learner import (
    METHOD_FILE,
    calibration_images,
    make_learner,
    make_optimizer,
    memory_format,
)
from nlalib.training.loop import batches_of, predict, train_epoch
from nlalib.training.recording import CudaRecorder, RecordedStep, cannot_be_recorded
from nlalib.training.records import (
    check_epoch_records,
    epoch_file,
    write_epoch_records,
    write_predictions,
    write_samples,
)
from nlalib.training.resumable import ResumableRun


class TrainingRun(ResumableRun):
    """One network, one method, one set: from the initial weights to the run's folder.

    Parameters
    ----------
    config : RunConfig
    index : pandas.DataFrame
        With the column `part`.
    images : numpy.ndarray, (len(index), size, size, 3) uint8
    report : callable
        Gets lines of text.
    """

    told: ClassVar = {
        "loss": "train_loss",
        "held out": "validation_overall_accuracy",
        "test": "test_overall_accuracy",
    }

    def __init__(
        self,
        config: RunConfig,
        index: pd.DataFrame,
        images: np.ndarray,
        report: Callable[[str], None],
    ):
        accelerator = make_accelerator(
            config.device, config.precision, config.processes, config.logger
        )
        kept = None if config.images_on_device == "auto" else False
        super().__init__(config.method, config, index, images, accelerator, report, kept)
        if config.logger:
            accelerator.init_trackers(config.run_id)
        if self.writes:
            write_samples(self.folder, index)
        device = accelerator.device
        obstacle = cannot_be_recorded(config, accelerator)
        report(self._how(obstacle))
        model = build_model(config.backbone, config.num_classes, config.seed)
        if config.initial_weights:
            seen = calibration_images(images, self.parts[TRAIN])
            unused = initialise(model, config.initial_weights, seen)
            unused = f"without use for {unused or 'nothing'}"
            report(f"initial weights: {config.initialisation}, {unused}")
        learner, targets = make_learner(config, index.iloc[self.parts[TRAIN]], model)
        self.targets = {name: values.to(device) for name, values in targets.items()}
        learner.to(device, memory_format=memory_format(config))
        self.learned = prepare_for_processes(accelerator, learner, learner.method.has_own_layers)
        if config.compile:
            self.learned.model.compile()  # in place: the names of the weights stay
        steps = len(batches_of(config, targets["labels"], 0))
        optimizer, self.scheduler = make_optimizer(
            self.learned, config, steps, capturable=not obstacle and device.type == "cuda"
        )
        self.wrapped, self.optimizer = accelerator.prepare(self.learned, optimizer)
        self.recorded = None
        if not obstacle:
            self.recorded = RecordedStep(CudaRecorder(), self.learned, report)

    def _how(self, obstacle: str) -> str:
        config, device = self.config, self.accelerator.device
        several = f", {config.processes} processes" if config.processes > 1 else ""
        line = f"device {device}, precision {config.precision}{several}"
        if device.type != "cuda":
            return line
        name = torch.cuda.get_device_name(device)
        tf32 = ", convolutions in TF32" if torch.backends.cudnn.allow_tf32 else ""
        where = "on it" if self.images.are_kept else "brought to it batch by batch"
        steps = f"one by one ({obstacle})" if obstacle else "recorded as a CUDA graph each epoch"
        return f"{line} ({name}{tf32}), images {where}, steps {steps}"

    def run_epoch(self, epoch: int) -> dict:
        """Train and evaluate; return the row of metrics."""
        mean_loss, self.records = train_epoch(
            self.config,
            epoch,
            accelerator=self.accelerator,
            learner=self.wrapped,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            images=self.images,
            positions=self.parts[TRAIN],
            targets=self.targets,
            recorded=self.recorded,
        )
        copy_buffers_of_the_first(self.accelerator, self.learned)
        probabilities = {part: self._predict(part, epoch) for part in (HELD_OUT, TEST)}
        self.progress.predictions[epoch] = {
            part: torch.from_numpy(values) for part, values in probabilities.items()
        }
        seen = ~np.isnan(self.records["p_gt"])  # all of them, but for a balanced sampler
        fits = self.records["p_gt"][seen] >= self.records["p_nn"][seen]
        return {
            "train_loss": mean_loss,
            "train_accuracy": float(fits.mean()),
            **self._metrics("validation", HELD_OUT, probabilities[HELD_OUT]),
            **self._metrics("test", TEST, probabilities[TEST]),
        }

    def _predict(self, part: str, epoch: int) -> np.ndarray:
        """Return the probabilities of a part; FloatingPointError if one is not finite."""
        found = predict(self.learned, self.images, self.parts[part], self.accelerator)
        if not np.isfinite(found).all():
            raise FloatingPointError(
                f"what the network predicts of the part {part!r} is not finite in epoch {epoch}: "
                f"lower lr ({self.config.lr}) or use fp32"
            )
        return found

    def _metrics(self, name: str, part: str, probabilities: np.ndarray) -> dict[str, float]:
        """Return the metrics of one part, their names preceded by `name`."""
        rows, num_classes = self.index.iloc[self.parts[part]], self.config.num_classes
        metrics = classification_metrics(rows["label"].to_numpy(), probabilities, num_classes)
        if set(VOTE_COLUMNS) <= set(rows):
            metrics |= vote_metrics(class_votes(rows, num_classes), probabilities)
        return {f"{name}_{metric}": value for metric, value in metrics.items()}

    def keep_predictions(self) -> None:
        """Drop predictions of epochs that no selection rule can pick any more."""
        selected = set(selected_epochs(pd.DataFrame(self.progress.metrics)).values())
        kept = {e: p for e, p in self.progress.predictions.items() if e in selected}
        self.progress.predictions = kept

    def write_records(self, epoch: int) -> None:
        """Write the epoch's records of the training images."""
        names = self.index["image_id"].to_numpy()[self.parts[TRAIN]]
        write_epoch_records(self.folder, epoch, names, self.records)

    def check_records(self, epochs: int) -> None:
        """Look at the records of the first `epochs` epochs."""
        if self.writes:
            check_epoch_records(self.folder, epochs, len(self.parts[TRAIN]))

    def write_results(self) -> None:
        """Write predictions, records and weights.

        Also what the finished network makes of its own training images, as they are: how far it
        has fitted their labels. During an epoch they are augmented, and the network changes.
        """
        fitted = torch.from_numpy(self._predict(TRAIN, self.config.epochs - 1))
        if not self.writes:
            return
        epochs = self.config.epochs
        self.progress.predictions[epochs - 1][TRAIN] = fitted
        write_predictions(self.folder, self.index, self.parts, self.progress.predictions)
        files = [epoch_file(self.folder, epoch) for epoch in range(epochs)]
        join_tables(self.folder / "naw.parquet", files)
        write_weights(self.folder / "weights.safetensors", self.learned.model)
        if self.learned.method.has_own_layers:
            write_weights(self.folder / METHOD_FILE, self.learned.method)


def selected_epochs(metrics: pd.DataFrame) -> dict[str, int]:
    """Return the epoch that each rule picks by overall accuracy that picks a single one."""
    return {rule: picked_epochs(metrics, rule)[0] for rule in ONE_EPOCH_RULES}
