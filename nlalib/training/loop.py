"""The loop over batches: an epoch of training with labels, and predictions."""

from itertools import repeat

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from nlalib.methods.recorded import prediction_records
from nlalib.networks.normalisation import normalise
from nlalib.training.augmentation import EpochDraws, augment, named_recipe
from nlalib.training.batches import DeviceImages, batches
from nlalib.training.config import RunConfig
from nlalib.training.devices import share_of
from nlalib.training.learner import Learner
from nlalib.training.progress_bar import shown
from nlalib.training.recording import RecordedStep

_EVALUATION_BATCH = 256


def batches_of(config: RunConfig, labels: Tensor, epoch: int) -> list[np.ndarray]:
    """Return the batches of an epoch, as positions among the training images."""
    balanced = labels.cpu().numpy() if config.sampler == "balanced" else None
    return batches(len(labels), config.batch_size, config.seed, epoch, config.processes, balanced)


def train_epoch(
    config: RunConfig,
    epoch: int,
    *,
    accelerator: Accelerator,
    learner: nn.Module,
    optimizer,
    scheduler,
    images: DeviceImages,
    positions: np.ndarray,
    targets: dict[str, Tensor],
    recorded: RecordedStep | None = None,
) -> tuple[float, dict[str, np.ndarray]]:
    """Train for one epoch; return the mean loss and the records of each sample of `positions`.

    The mean is over batches, of which the last may be smaller. The records are taken in training
    mode from the augmented image, just as the loss saw it: `p_gt`, `p_nn`, `predicted`,
    `cross_entropy`, and what the method adds (NAW's `weight`); of an image that a balanced sampler
    has drawn more than once the last draw's, and NaN for one that it has left out. Of several
    processes each trains on its share of every batch, and all return the loss and the records of
    the whole.

    Parameters
    ----------
    scheduler
        The schedule of the learning rate; None for none.
    positions : numpy.ndarray, (N,) int64
        Of the training images, in `images`.
    targets : dict of Tensor
        On the device, N rows each.
    recorded : RecordedStep, optional
        Plays the step as a CUDA graph.
    """
    learner.train()
    device, processes = accelerator.device, accelerator.num_processes
    draws = EpochDraws(len(positions), config.seed, epoch).to(device)
    recipe = named_recipe(config.augmentation)
    places = torch.from_numpy(positions).to(device)
    names: list[str] = []
    parts = batches_of(config, targets["labels"], epoch)
    shares = [share_of(batch, accelerator) for batch in parts]
    # Taken to the device at once: a copy of each batch's would wait for the step before.
    order = torch.from_numpy(np.concatenate(shares)).to(device)
    # A balanced sampler draws an image more than once, and each draw is augmented afresh: its batch
    # says which draws of the epoch they are, where else it says which samples.
    is_balanced = config.sampler == "balanced"
    drawn = torch.arange(len(order), device=device) if is_balanced else order

    def step(batch: Tensor, pixels: Tensor | None = None, share: float = 1.0):
        """Learn from one batch; what it needs beside the batch lies on the device already."""
        samples = order[batch] if is_balanced else batch
        pixels = images.gather(places[samples]) if pixels is None else pixels
        views = augment(pixels, batch, draws, recipe)
        if not config.channels_last:
            views = views.contiguous()
        given = {name: values[samples] for name, values in targets.items()}
        loss, records, logits = learner(
            views, epoch=epoch, epochs=config.epochs, samples=samples, **given
        )
        if processes > 1:
            # The mean over processes, of losses and of gradients, so is that over the batch.
            loss = loss * share
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        # A method's own records replace those of the network's logits.
        records = {**prediction_records(logits, given["labels"]), **records}
        names[:] = records
        return loss.detach(), torch.stack(list(records.values()))

    if recorded is not None:
        recorded.begin(step)
    do = step if recorded is None else recorded
    pixels = repeat(()) if images.are_kept else images.stream(positions[s] for s in shares)
    losses = table = None
    each_batch = scheduler is not None and config.lr_schedule == "one_cycle"
    taken = False
    words = f"epoch {epoch + 1}/{config.epochs}"
    each = drawn.split([len(s) for s in shares])
    for number, (whole, batch) in enumerate(shown(zip(parts, each, strict=True), words)):
        inputs = (batch,) if images.are_kept else (batch, next(pixels))
        if processes > 1:
            loss, records = step(batch, *inputs[1:], share=len(batch) * processes / len(whole))
        else:
            loss, records = do(*inputs)
        # fp16 leaves out a step whose gradients overflow, the first one as a rule.
        taken |= not optimizer.step_was_skipped
        if each_batch and not optimizer.step_was_skipped:
            scheduler.step()
        if table is None:
            # Two tables, and no tensor kept of each step: many small ones between the large ones of
            # a step would fragment the memory, which then grows with the number of images.
            losses = loss.new_zeros(len(parts))
            table = records.new_zeros((len(records), len(drawn) if is_balanced else len(positions)))
        # Left on the device: a copy of each step's would be one more wait for the device.
        losses[number] = loss
        table[:, batch] = records
    if scheduler is not None and not each_batch and taken:
        scheduler.step()
    mean_loss = finite_mean(accelerator.reduce(losses, "mean"), epoch, config.lr)
    # Each process has filled the columns of its own samples.
    table = accelerator.reduce(table, "sum").cpu().numpy()
    if is_balanced:
        of_draws, table = table, np.full((len(table), len(positions)), np.nan, dtype=table.dtype)
        table[:, order.cpu().numpy()] = of_draws  # the last draw of each image stays
    return mean_loss, dict(zip(names, table, strict=True))


def finite_mean(losses: Tensor, epoch: int, lr: float) -> float:
    """Return the mean of an epoch's losses; FloatingPointError if it is not finite."""
    mean = float(losses.mean())
    if not np.isfinite(mean):
        raise FloatingPointError(
            f"the loss is {mean} in epoch {epoch}: lower lr ({lr}) or use fp32"
        )
    return mean


@torch.no_grad()
def predict(
    learner: Learner,
    images: np.ndarray | DeviceImages,
    positions: np.ndarray,
    accelerator: Accelerator,
) -> np.ndarray:
    """Return class probabilities, (len(positions), K) float32, of unaugmented images.

    Of several processes each predicts its share, and all return the whole.
    """
    learner.eval()
    if not isinstance(images, DeviceImages):
        images = DeviceImages(images, accelerator.device, kept=False)
    share = share_of(positions, accelerator)
    # One table, and no tensor kept of each batch, for the reason that `train_epoch` gives.
    probabilities = torch.empty(len(share), learner.model.fc.out_features)
    starts = range(0, len(share), _EVALUATION_BATCH)
    groups = [share[start : start + _EVALUATION_BATCH] for start in starts]
    for start, pixels in zip(starts, images.stream(groups), strict=True):
        with accelerator.autocast():
            logits = learner.predict(normalise(pixels))
        probabilities[start : start + len(pixels)] = logits.softmax(dim=1)
    return np.concatenate(gather_object([probabilities.numpy()]))
