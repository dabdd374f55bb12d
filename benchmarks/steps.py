"""One training step: ours against the bare minimum, precisions, batches, networks, recording.

The bare minimum is the network's forward and backward pass and Adam on tensors that are in memory
already. Ours is `nlalib.training.loop.train_epoch` over one batch: it reads the stored images,
augments, computes the method's loss and records numbers of each sample.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from measuring import compared, in_turns, record
from torch.nn import functional

from nlalib.methods import make_method
from nlalib.methods.nla.weights import naw_weights
from nlalib.methods.recorded import prediction_records
from nlalib.networks.registry import build_model
from nlalib.training.batches import DeviceImages
from nlalib.training.config import RunConfig
from nlalib.training.devices import deterministic_algorithms, make_accelerator
from nlalib.training.learner import Learner, make_optimizer
from nlalib.training.loop import train_epoch
from nlalib.training.recording import CudaRecorder, RecordedStep

SMALL = "resnet10_narrow16_stride2"  # the network of the grids
CONFIG = RunConfig(method="nla", optimizer="adam", lr=1.0e-4, weight_decay=0.0, device="auto")


def config_of(
    network: str, pixels: int, batch: int, precision: str = "fp32", **changes
) -> RunConfig:
    """Return `CONFIG` with another network, size and batch, and what else is given."""
    given = {"backbone": network, "image_size": pixels, "batch_size": batch}
    return replace(CONFIG, **given, precision=precision, **changes)


def labels_of(images: int) -> torch.Tensor:
    return torch.arange(images) % 7


def our_epoch(
    config: RunConfig, images: np.ndarray, graph: bool = False, kept: bool | None = None
) -> Callable[[], None]:
    """Return a function that trains for one epoch on the images, by the library's loop."""
    accelerator = make_accelerator(config.device, config.precision)
    device = accelerator.device
    network = build_model(config.backbone, 7, 0)
    learner = Learner(network, make_method(config.method), config.view_order)
    learner.to(device, memory_format=torch.channels_last)
    if config.compile:
        learner.model.compile()
    optimizer, _ = make_optimizer(learner, config, 1, capturable=graph)
    wrapped, optimizer = accelerator.prepare(learner, optimizer)
    recorded = RecordedStep(CudaRecorder(), learner, print) if graph else None
    stored = DeviceImages(images, device, kept)
    targets = {"labels": labels_of(len(images)).to(device)}

    def epoch():
        with deterministic_algorithms(config.deterministic):
            train_epoch(
                config,
                1,
                accelerator=accelerator,
                learner=wrapped,
                optimizer=optimizer,
                scheduler=None,
                images=stored,
                positions=np.arange(len(images)),
                targets=targets,
                recorded=recorded,
            )

    return epoch


def bare_step(
    config: RunConfig,
    batch: int,
    optimizer=torch.optim.Adam,
    backward: bool = True,
    memory_format: torch.memory_format = torch.channels_last,
):
    """Return a function that makes one bare step on both views of a batch, or some parts."""
    accelerator = make_accelerator(config.device, config.precision)
    model = build_model(config.backbone, 7, 0)
    model.to(accelerator.device, memory_format=memory_format)
    optimizer = optimizer(model.parameters(), lr=config.lr) if optimizer else None
    views = torch.randn(2 * batch, 3, config.image_size, config.image_size)
    views = views.to(accelerator.device, memory_format=memory_format)
    labels = labels_of(batch).to(accelerator.device)
    # Not `accelerator.autocast`, which follows the precision of the accelerator made last.
    in_bf16 = config.precision == "bf16"
    kind = accelerator.device.type

    def step():
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=in_bf16):
            logits = model(views).logits[:batch].float()
        loss = functional.cross_entropy(logits, labels)
        if backward:
            model.zero_grad()
            loss.backward()
        if optimizer:
            optimizer.step()
        float(logits[0, 0].detach())  # wait for the device

    return step


def random_images(number: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, size, size, 3), dtype=np.uint8)


def stored_images(number: int, size: int) -> np.ndarray:
    """Return as many as a memory-mapped array, as a run reads them; the file is unlinked."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file, random_images(number, size))
        file.flush()
        return np.load(file.name, mmap_mode="r")


def against_the_bare_minimum(quick: bool) -> None:
    """(a) and (c): ResNet-18 at three sizes, fp32 and bf16."""
    tables = []
    for size, batch in ((224, 4 if quick else 32), (112, 16 if quick else 32), (48, 32)):
        images = random_images(batch, size)
        variants = {}
        for precision in ("fp32", "bf16"):
            config = config_of("resnet18", size, batch, precision)
            variants[f"bare {precision}"] = bare_step(config, batch)
            variants[f"nla {precision}"] = our_epoch(config, images)
        seconds = in_turns(variants, 3 if quick else 9)
        table = pd.concat(
            [
                compared({k: seconds[k] for k in ("bare fp32", "nla fp32")}, "bare fp32", batch),
                compared({k: seconds[k] for k in ("bare bf16", "nla bf16")}, "bare bf16", batch),
                compared({k: seconds[k] for k in ("nla fp32", "nla bf16")}, "nla fp32", batch),
            ]
        )
        table = table[table["variant"] != table["compared_with"]]
        tables.append(table.assign(network="resnet18", pixels=size, batch=batch))
    record("step_against_bare", pd.concat(tables))


def batches_and_networks(quick: bool) -> None:
    """(d) and small networks: images (of two views) a second for `nla` at 48 pixels."""
    small, others = SMALL, ("resnet18_narrow16", "resnet18_narrow32", "resnet18")
    kinds = [(small, batch, p) for batch in (32, 64, 128, 256) for p in ("fp32", "bf16")]
    kinds += [(network, batch, "bf16") for network in others for batch in (32, 128)]
    number = 256
    if quick:
        kinds, number = [*kinds[:6], kinds[8]], 128
    images, variants = random_images(number, 48), {}
    for network, batch, precision in kinds:
        config = config_of(network, 48, batch, precision, augmentation="affine")
        variants[f"{network}, batch {batch}, {precision}"] = our_epoch(config, images)
    seconds = in_turns(variants, 4 if quick else 6)
    table = compared(seconds, f"{small}, batch 32, fp32", number)
    record("batches_and_networks", table.assign(method="nla", pixels=48))


def what_bounds_small_images(quick: bool) -> None:
    """Parts of a step of `nla` at 48 pixels and batch 32, and what was tried to make it faster."""
    tables = []
    for network in (SMALL, "resnet18"):
        config = config_of(network, 48, 32, augmentation="affine")
        variants = {
            "bare step": bare_step(config, 32),
            "forward and backward": bare_step(config, 32, optimizer=None),
            "forward": bare_step(config, 32, optimizer=None, backward=False),
            "fused Adam": bare_step(config, 32, optimizer=partial(torch.optim.Adam, fused=True)),
            "Adam, a loop over tensors": bare_step(
                config, 32, optimizer=partial(torch.optim.Adam, foreach=False)
            ),
            "not channels-last": bare_step(config, 32, memory_format=torch.contiguous_format),
            "bf16": bare_step(replace(config, precision="bf16"), 32),
            "nla, the whole step": our_epoch(config, random_images(32, 48)),
        }
        seconds = in_turns(variants, 10 if quick else 20)
        tables.append(compared(seconds, "bare step", 32).assign(network=network))
    record("bounds_of_small_images", pd.concat(tables).assign(pixels=48, batch=32))


def cost_of_records(quick: bool) -> None:
    """What recording numbers of each sample costs, as a share of the whole step."""
    rows = []
    for network, batch in ((SMALL, 32), ("resnet18_narrow16", 64)):
        config = config_of(network, 48, batch)
        step = our_epoch(config, random_images(batch, 48))
        device = make_accelerator(config.device, config.precision).device
        logits, labels = torch.randn(batch, 7).to(device), labels_of(batch).to(device)
        kept = []

        def records(logits=logits, labels=labels, kept=kept):
            for _ in range(20):
                found = prediction_records(logits, labels)
                found["weight"] = naw_weights(logits, labels, epoch=1, epochs=9)
                kept.append(torch.stack(list(found.values())))
            kept.clear()

        seconds = in_turns({"step": step, "records": records}, 10 if quick else 30)
        pairs = zip(seconds["records"], seconds["step"], strict=True)
        shares = sorted(one / 20 / other for one, other in pairs)
        rows.append(
            {
                "network": network,
                "batch": batch,
                "pixels": 48,
                "records_share_of_step": shares[len(shares) // 2],
                "lower_quartile": shares[len(shares) // 4],
                "upper_quartile": shares[3 * len(shares) // 4],
                "rounds": len(shares),
            }
        )
    record("cost_of_records", pd.DataFrame(rows))


def cost_of_determinism(quick: bool) -> None:
    """What the parameter `deterministic` costs a step of `nla`, on the device that there is."""
    tables = []
    for network, size in (("resnet18", 112), ("resnet18", 48), (SMALL, 48)):
        for precision in ("fp32", "bf16"):
            config = config_of(network, size, 32, precision, augmentation="released")
            images = random_images(32, size)
            variants = {"any": our_epoch(config, images)}
            variants["deterministic"] = our_epoch(replace(config, deterministic=True), images)
            seconds = in_turns(variants, 5 if quick else 15)
            table = compared(seconds, "any", 32).query("variant == 'deterministic'")
            tables.append(table.assign(network=network, pixels=size, precision=precision, batch=32))
    record("cost_of_determinism", pd.concat(tables))


def share_of_loading(quick: bool) -> None:
    """What reading the stored images costs, as a share of an epoch after the first."""
    from nlalib.training import batches as training

    rows, plain = [], training.read_images
    for network, size, number in ((SMALL, 48, 512), ("resnet18", 112, 64), ("resnet18", 224, 64)):
        number = number // 2 if quick else number
        # The faster the rest, the larger the share of reading.
        config = config_of(network, size, 32, "bf16")
        epoch, spent = our_epoch(config, stored_images(number, size)), []

        def timed(images, positions, spent=spent):
            started = time.perf_counter()  # also waiting for the disk is reading
            chosen = plain(images, positions)
            spent.append(time.perf_counter() - started)
            return chosen

        training.read_images = timed
        try:
            epoch()
            shares = []
            for _ in range(3 if quick else 10):
                spent.clear()
                started = time.perf_counter()
                epoch()
                shares.append(sum(spent) / (time.perf_counter() - started))
        finally:
            training.read_images = plain
        shares.sort()
        rows.append(
            {
                "network": network,
                "pixels": size,
                "precision": config.precision,
                "batch": config.batch_size,
                "loading_share_of_epoch": shares[len(shares) // 2],
                "smallest": shares[0],
                "largest": shares[-1],
                "rounds": len(shares),
            }
        )
    record("share_of_loading", pd.DataFrame(rows))
