"""All benchmarks of training: python -m benchmarks [--quick] [NAME ...]."""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in a study: one thread a run
sys.path.insert(0, str(Path(__file__).parent))

import epochs
import gpu
import memory
import side_by_side
import steps


def growth(quick: bool) -> None:
    numbers = [1000, 4000, 16_000] + [64_000] * (not quick)
    rounds = 1 if quick else 3
    memory.growth(48, numbers, epochs=6, rounds=rounds)
    memory.growth(48, numbers[1:], epochs=3, network=steps.SMALL, rounds=rounds)
    memory.growth(112, numbers + [memory.AFFECTNET] * (not quick), epochs=3)


BENCHMARKS = {
    "step": steps.against_the_bare_minimum,
    "networks": steps.batches_and_networks,
    "bounds": steps.what_bounds_small_images,
    "threads": side_by_side.threads,
    "records": steps.cost_of_records,
    "determinism": steps.cost_of_determinism,
    "loading": steps.share_of_loading,
    "epoch": epochs.whole_epoch,
    "growth": growth,
    "cuda": gpu.everything,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="small batches and few rounds")
    given = parser.parse_args()
    unknown = sorted(set(given.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    for name in given.names or BENCHMARKS:
        BENCHMARKS[name](given.quick)


if __name__ == "__main__":
    main()
