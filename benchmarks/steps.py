"""One training step: ours against the bare minimum, precisions, batches, networks, recording.

The bare minimum is the network's forward and backward pass and Adam on tensors that are in memory
already. Ours is `nlalib.training.train_epoch` over one batch: it reads the stored images, augments,
computes the method's loss and records the facts of each sample.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from measuring import CLOCK, compared, in_turns, record
from torch.nn import functional

from nlalib.methods import make_method
from nlalib.methods.facts import prediction_facts
from nlalib.models import build_model
from nlalib.naw import naw_weights
from nlalib.runs import RunConfig
from nlalib.training import Learner, make_accelerator, train_epoch

CONFIG = RunConfig(method="nla", optimizer="adam", lr=1.0e-4, device="auto")


def labels_of(images: int) -> torch.Tensor:
    return torch.arange(images) % 7


def our_step(config: RunConfig, images: np.ndarray):
    """Return a function that makes one epoch of the images by the library's loop."""
    accelerator = make_accelerator(config.device, config.precision)
    learner = Learner(
        build_model(config.backbone, 7, 0), make_method(config.method), config.view_order
    ).to(accelerator.device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(learner.parameters(), lr=config.lr)
    learner, optimizer = accelerator.prepare(learner, optimizer)

    def step():
        train_epoch(
            config,
            1,
            accelerator=accelerator,
            learner=learner,
            optimizer=optimizer,
            scheduler=None,
            images=images,
            positions=np.arange(len(images)),
            targets={"labels": labels_of(len(images))},
        )

    return step


def bare_step(config: RunConfig, batch: int):
    """Return a function that makes one bare step on both views of a batch."""
    accelerator = make_accelerator(config.device, config.precision)
    model = build_model(config.backbone, 7, 0)
    model.to(accelerator.device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    views = torch.randn(2 * batch, 3, config.image_size, config.image_size)
    views = views.to(accelerator.device, memory_format=torch.channels_last)
    labels = labels_of(batch).to(accelerator.device)

    def step():
        with accelerator.autocast():
            logits = model(views).logits[:batch].float()
        optimizer.zero_grad()
        functional.cross_entropy(logits, labels).backward()
        optimizer.step()
        float(logits[0, 0].detach())  # wait for the device

    return step


def random_images(number: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, size, size, 3), dtype=np.uint8)


def against_the_bare_minimum(quick: bool) -> None:
    """(a) and (c): ResNet-18 at three sizes, fp32 and bf16."""
    tables = []
    for size, batch in ((224, 4 if quick else 32), (112, 16 if quick else 32), (48, 32)):
        images = random_images(batch, size)
        variants = {}
        for precision in ("fp32", "bf16"):
            config = replace(CONFIG, backbone="resnet18", image_size=size, precision=precision)
            config = replace(config, batch_size=batch)
            variants[f"bare {precision}"] = bare_step(config, batch)
            variants[f"nla {precision}"] = our_step(config, images)
        seconds = in_turns(variants, 3 if quick else 15)
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
    networks = ("resnet10_narrow16_stride2", "resnet18_narrow16", "resnet18_narrow32", "resnet18")
    pairs = [("resnet10_narrow16_stride2", batch) for batch in (32, 64, 128, 256)]
    pairs += [(network, 32) for network in networks[1:]]
    number = 256
    if quick:
        pairs, number = [*pairs[:3], pairs[4]], 128
    images, variants = random_images(number, 48), {}
    for network, batch in pairs:
        config = replace(CONFIG, backbone=network, batch_size=batch, augmentation="affine")
        variants[f"{network}, batch {batch}"] = our_step(config, images)
    seconds = in_turns(variants, 4 if quick else 9)
    base = f"{networks[0]}, batch 32"
    table = compared(seconds, base, number)
    record("batches_and_networks", table.assign(method="nla", pixels=48, precision="fp32"))


def cost_of_the_facts(quick: bool) -> None:
    """What recording the facts of each sample costs, as a share of the whole step."""
    rows = []
    for network, batch in (("resnet10_narrow16_stride2", 32), ("resnet18_narrow16", 64)):
        config = replace(CONFIG, backbone=network, batch_size=batch)
        step = our_step(config, random_images(batch, 48))
        logits, labels, kept = torch.randn(batch, 7), labels_of(batch), []

        def facts(logits=logits, labels=labels, kept=kept):
            for _ in range(20):
                found = prediction_facts(logits, labels)
                found["weight"] = naw_weights(logits, labels, epoch=1, epochs=9)
                kept.append(torch.stack(list(found.values())))
            kept.clear()

        seconds = in_turns({"step": step, "facts": facts}, 10 if quick else 30)
        pairs = zip(seconds["facts"], seconds["step"], strict=True)
        shares = sorted(one / 20 / other for one, other in pairs)
        rows.append(
            {
                "network": network,
                "batch": batch,
                "pixels": 48,
                "facts_share_of_step": shares[len(shares) // 2],
                "lower_quartile": shares[len(shares) // 4],
                "upper_quartile": shares[3 * len(shares) // 4],
                "rounds": len(shares),
            }
        )
    record("cost_of_facts", pd.DataFrame(rows))


def share_of_loading(quick: bool) -> None:
    """What reading the stored images costs, as a share of an epoch after the first."""
    from nlalib import training

    rows, plain = [], training.read_images
    for network, size in (("resnet10_narrow16_stride2", 48), ("resnet18", 112)):
        number = 256 if size == 48 else 16 if quick else 64
        config = replace(CONFIG, backbone=network, batch_size=min(32, number), image_size=size)
        epoch, spent = our_step(config, random_images(number, size)), []

        def timed(images, positions, spent=spent):
            started = CLOCK()
            chosen = plain(images, positions)
            spent.append(CLOCK() - started)
            return chosen

        training.read_images = timed
        try:
            epoch()
            shares = []
            for _ in range(3 if quick else 10):
                spent.clear()
                started = CLOCK()
                epoch()
                shares.append(sum(spent) / (CLOCK() - started))
        finally:
            training.read_images = plain
        shares.sort()
        rows.append(
            {
                "network": network,
                "pixels": size,
                "batch": config.batch_size,
                "loading_share_of_epoch": shares[len(shares) // 2],
                "smallest": shares[0],
                "largest": shares[-1],
                "rounds": len(shares),
            }
        )
    record("share_of_loading", pd.DataFrame(rows))
