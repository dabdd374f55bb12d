"""What the loss of NLA costs, relative to a training step of ResNet-18 at 112 pixels, batch 32.

python benchmarks/loss_cost.py

The step is forward of both views, cross-entropy of the one, backward and Adam. The loss is
`nla_loss` on logits of that batch, forward and backward, in each version. Beside it stands plain
cross-entropy, which any method pays.
"""

import time
from functools import partial

import torch
from measuring import compared, in_turns, show
from torch.nn import functional

from nlalib.methods.nla.loss import nla_loss
from nlalib.networks.registry import build_model

BATCH, SIZE, CLASSES, ROUNDS = 32, 112, 7, 9
REPEATS = 10  # of a loss in each round, as one alone is too short
STEP = "step of two views"
VERSIONS = ("paper", "released_2025_05", "v_naw", "released_2025_03")


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2 * BATCH, 3, SIZE, SIZE, generator=generator)
    labels = torch.randint(0, CLASSES, (BATCH,), generator=generator)
    views = 3 * torch.randn(2, BATCH, CLASSES, generator=generator)
    model = build_model("resnet18", CLASSES, 0)
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(images).logits[:BATCH], labels).backward()
        optimizer.step()

    def repeat(loss) -> None:
        for _ in range(REPEATS):
            logits, flipped = (view.clone().requires_grad_() for view in views)
            loss(logits, flipped).backward()

    nla = partial(nla_loss, labels=labels, epoch=5, epochs=60)
    losses = {f"nla, {variant}": partial(nla, variant=variant) for variant in VERSIONS}
    losses["cross-entropy"] = lambda logits, flipped: functional.cross_entropy(logits, labels)
    variants = {STEP: step} | {name: partial(repeat, loss) for name, loss in losses.items()}
    seconds = in_turns(variants, ROUNDS, time.perf_counter)
    for name in losses:
        seconds[name] = [value / REPEATS for value in seconds[name]]
    show(compared(seconds, STEP, BATCH))


if __name__ == "__main__":
    main()
