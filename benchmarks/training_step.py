"""What NLA's loss, augmentation and bookkeeping add to the bare step of the network.

python benchmarks/training_step.py

The bare step is forward, cross-entropy, backward and optimiser on tensors in memory. Ratios of
medians from interleaved rounds in one process; a ratio of 1.05 means 5 % slower.
"""

import statistics
import time

import numpy as np
import torch
from torch.nn import functional

from nlalib.augmentation import EpochDraws, augment, named_recipe
from nlalib.losses import nla_loss
from nlalib.models import build_model
from nlalib.naw import naw_weights
from nlalib.training import to_tensor, two_view_logits

BATCH, SIZE, ROUNDS = 64, 48, 12


def main() -> None:
    generator = np.random.default_rng(0)
    images = to_tensor(generator.integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8))
    labels = torch.from_numpy(generator.integers(0, 7, BATCH))
    samples, draws = torch.arange(BATCH), EpochDraws(BATCH, 0, 0)
    model = build_model("resnet18_narrow16", 7, 0).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters())
    views = augment(images, samples, draws, named_recipe("affine"))
    both = torch.cat([views, views.flip(3)])
    schedule = {"epoch": 1, "epochs": 10}

    def step(loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def bare_one():
        step(functional.cross_entropy(model(views), labels))

    def bare_two():
        step(functional.cross_entropy(model(both)[:BATCH], labels))

    def ours(two_views):
        seen = augment(images, samples, draws, named_recipe("affine"))
        logits, flipped = two_view_logits(model, seen, two_views, "joint")
        if two_views:
            step(nla_loss(logits, flipped, labels, **schedule))
            naw_weights(logits.detach(), labels, **schedule)
        else:
            step(functional.cross_entropy(logits, labels))

    variants = {
        "bare, one view": bare_one,
        "ce": lambda: ours(False),
        "bare, two views": bare_two,
        "nla": lambda: ours(True),
    }
    seconds = {name: [] for name in variants}
    for round_number in range(ROUNDS + 2):
        for name, run in variants.items():
            started = time.perf_counter()
            run()
            if round_number >= 2:  # the first two warm up
                seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"ce  / bare step of one view:  {median['ce'] / median['bare, one view']:.2f}")
    print(f"nla / bare step of two views: {median['nla'] / median['bare, two views']:.2f}")
    print(f"nla / ce:                     {median['nla'] / median['ce']:.2f}")


if __name__ == "__main__":
    main()
