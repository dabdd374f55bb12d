"""What the loss of NLA costs, relative to a training step of ResNet-18 at 112 pixels, batch 32.

python benchmarks/loss_cost.py

The step is forward of both views, cross-entropy of the one, backward and Adam. The loss is
`nla_loss` on logits of that batch, forward and backward, in each version. Beside it stands plain
cross-entropy, which any method pays. Rounds are interleaved in one process; of each round the
ratio to that round's step is taken, and printed are the ratios' median and quartiles.
"""

import statistics
import time

import torch
from torch.nn import functional

from nlalib.methods.nla.loss import nla_loss
from nlalib.networks.registry import build_model

BATCH, SIZE, CLASSES, ROUNDS, WARM_UP, REPEATS = 32, 112, 7, 9, 1, 10
VERSIONS = ("paper", "released_2025_05", "v_naw", "released_2025_03")


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2 * BATCH, 3, SIZE, SIZE, generator=generator)
    labels = torch.randint(0, CLASSES, (BATCH,), generator=generator)
    views = 3 * torch.randn(2, BATCH, CLASSES, generator=generator)
    model = build_model("resnet18", CLASSES, 0)
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> float:
        started = time.perf_counter()
        optimizer.zero_grad()
        functional.cross_entropy(model(images).logits[:BATCH], labels).backward()
        optimizer.step()
        return time.perf_counter() - started

    def cost(loss) -> float:
        """Seconds of one forward and backward, a mean over repeats: one alone is too short."""
        started = time.perf_counter()
        for _ in range(REPEATS):
            logits, flipped = (view.clone().requires_grad_() for view in views)
            loss(logits, flipped).backward()
        return (time.perf_counter() - started) / REPEATS

    def nla(variant: str):
        return lambda logits, flipped: nla_loss(
            logits, flipped, labels, epoch=5, epochs=60, variant=variant
        )

    losses = {f"nla, {variant}": nla(variant) for variant in VERSIONS}
    losses["cross-entropy"] = lambda logits, flipped: functional.cross_entropy(logits, labels)
    steps, ratios = [], {name: [] for name in losses}
    for round_number in range(ROUNDS + WARM_UP):
        seconds = step()
        shares = {name: cost(loss) / seconds for name, loss in losses.items()}
        if round_number >= WARM_UP:
            steps.append(seconds)
            for name, share in shares.items():
                ratios[name].append(share)
    print(f"step of two views: median {statistics.median(steps):.3f} s, {ROUNDS} rounds")
    print("loss, as a share of the step      median   quartiles")
    for name, values in ratios.items():
        low, median, high = statistics.quantiles(values, n=4)
        print(f"{name:<30} {median:>9.3%}   {low:.3%} to {high:.3%}")


if __name__ == "__main__":
    main()
