"""What learns: a network and a method behind one `forward`, and the optimiser that moves them."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from nlalib.data.pixels import read_images
from nlalib.data.splits import class_votes, training_candidates
from nlalib.methods import Method, ModelOutput, TrainingSet, make_method
from nlalib.networks.normalisation import normalise
from nlalib.networks.registry import build_model
from nlalib.networks.representation import Representation
from nlalib.networks.weight_files import read_weights_file
from nlalib.training.batches import to_tensor
from nlalib.training.config import RunConfig

# What the NLA paper trains for, and by what its learning rate shrinks each epoch.
PAPER_EPOCHS, PAPER_DECAY = 60, 0.9
_CALIBRATION_IMAGES = 512
# In a run's folder, of a method with a head of its own.
METHOD_FILE = "method.safetensors"


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
        """Return the loss, the method's records, and the detached logits of the first view.

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
        loss, records = self.method(output)
        return loss, records, output.logits.detach()

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


def load_learner(config: RunConfig, folder: Path | None = None) -> Learner:
    """Return what a finished run learned, on the CPU and in evaluation mode.

    Neither its data set is needed nor, with its `folder`, any file that it started from: those are
    a part of the name by which the folder would be looked for.
    """
    folder = folder or config.folder
    network = build_model(config.backbone, config.num_classes, config.seed)
    network.load_state_dict(read_weights_file(folder / "weights.safetensors"))
    method = make_method(config.method, config.method_settings)
    samples = pd.read_parquet(folder / "samples.parquet").query("part == 'train'")
    labels = torch.from_numpy(samples["label"].to_numpy(np.int64, copy=True))
    # What a method learns from shapes its heads, and no more is asked of it here.
    of_all = torch.ones(len(labels), config.num_classes)
    with torch.random.fork_rng(devices=[]):
        method.setup(
            TrainingSet(
                labels=labels,
                num_classes=config.num_classes,
                num_features=network.fc.in_features,
                votes=of_all,
                candidates=of_all.bool(),
            )
        )
    own = folder / METHOD_FILE
    if own.exists():
        method.load_state_dict(read_weights_file(own))
    return Learner(network, method, config.view_order).eval()


def make_optimizer(
    learner: Learner, config: RunConfig, steps_per_epoch: int, capturable: bool = False
):
    """Return the optimiser and the schedule of its learning rate.

    "one_cycle" moves with each batch, the others with each epoch. A `capturable` optimiser keeps
    its count of steps on the GPU, as a CUDA graph needs it, and is one kernel and not dozens.
    """
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    groups = [{"params": list(learner.model.parameters()), "lr": config.lr}]
    own = list(learner.method.parameters())
    if own:
        groups.append({"params": own, "lr": config.lr * learner.method.lr_factor})
    optimizer = kinds[config.optimizer](
        groups,
        lr=config.lr,
        weight_decay=config.weight_decay,
        capturable=capturable,
        fused=capturable or None,
    )
    schedulers = torch.optim.lr_scheduler
    if config.lr_schedule == "one_cycle":
        total = config.epochs * steps_per_epoch
        highest = [group["lr"] for group in groups]
        return optimizer, schedulers.OneCycleLR(optimizer, highest, total_steps=total)
    gammas = {
        "exponential": PAPER_DECAY,
        "compressed_exponential": PAPER_DECAY ** (PAPER_EPOCHS / config.epochs),
        "constant": 1.0,
    }
    return optimizer, schedulers.ExponentialLR(optimizer, gammas[config.lr_schedule])


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
