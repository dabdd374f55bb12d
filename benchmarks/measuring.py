"""How the benchmarks measure: variants in turns, in one process, and what machine it was."""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

RESULTS = Path(__file__).parent / "results"


# With one thread on the CPU, the processor's own time: other programs on the machine do not count.
CLOCK = time.perf_counter if torch.cuda.is_available() else time.process_time


def in_turns(
    variants: dict[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = CLOCK,
) -> dict[str, list[float]]:
    """Return the seconds of each variant in each round, after one round that warms up.

    The variants take turns, so that a busy moment of the machine hits all alike.
    """
    seconds = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, run in variants.items():
            started = clock()
            run()
            if number:
                seconds[name].append(clock() - started)
    return seconds


def compared(seconds: dict[str, list[float]], base: str, images: int) -> pd.DataFrame:
    """Return medians, and the ratio to `base` within each round: its median and quartiles.

    A ratio above 1 is slower than `base`.
    """
    rows = []
    for name, values in seconds.items():
        ratios = [one / other for one, other in zip(values, seconds[base], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        rows.append(
            {
                "variant": name,
                "seconds": statistics.median(values),
                "images_per_second": images / statistics.median(values),
                "compared_with": base,
                "time_ratio": middle,
                "ratio_lower_quartile": low,
                "ratio_upper_quartile": high,
                "rounds": len(values),
            }
        )
    return pd.DataFrame(rows)


def machine() -> str:
    """Describe what it ran on, in words that name no machine."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    lines = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    lines = {key.strip(): value.strip() for key, value in lines.items()}
    flags = set(lines.get("flags", "").split())
    units = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{lines.get('model name', 'unknown processor')}, {os.cpu_count()} cores, "
        f"{' '.join(units) or 'no vector units known'}{gpu}; {torch.get_num_threads()} thread; "
        f"torch {torch.__version__}; load {os.getloadavg()[0]:.0f}"
    )


def record(name: str, table: pd.DataFrame) -> None:
    """Print a table, and write it with the machine to `results/<name>.csv`."""
    table = table.assign(machine=machine())
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / f"{name}.csv", index=False, float_format="%.4g")
    print(f"\n{name}: {table['machine'].iloc[0]}")
    show(table.drop(columns="machine"))


def show(table: pd.DataFrame) -> None:
    """Print a table, with three digits."""
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3g}"), flush=True)
