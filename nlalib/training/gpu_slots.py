"""The GPUs of a machine, shared out among runs that start side by side.

python -m nlalib.training.gpu_slots --gpus 0,1 [--wanted 1] [--runs-per-gpu 1] -- COMMAND ...

waits until as many GPUs as wanted have a slot free, lets COMMAND see them alone by
CUDA_VISIBLE_DEVICES, and frees them when it ends. A slot is a lock file in the folder of runs, so
that all studies of a machine count the same ones; it ends with the process that holds it.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nlalib.files import locked
from nlalib.paths import runs_folder

_PAUSE = 1.0  # seconds between two looks


@contextmanager
def gpus_taken(
    gpus: Sequence[str], wanted: int, runs_per_gpu: int, folder: Path
) -> Iterator[list[str]]:
    """Hold a slot of as many GPUs as wanted; wait until they are free.

    All that are wanted or none, so that no two runs wait for each other.

    Parameters
    ----------
    gpus : sequence of str
        As CUDA_VISIBLE_DEVICES names them.
    wanted, runs_per_gpu : int
        How many GPUs one run needs, and how many runs one GPU takes.
    folder : pathlib.Path
        Of the lock files; other machines may see it too.

    Yields
    ------
    list of str
        The GPUs.

    Raises
    ------
    ValueError
        If more are wanted than there are, or a GPU takes no run.
    """
    gpus = list(dict.fromkeys(gpus))
    if not 0 < wanted <= len(gpus):
        raise ValueError(f"{wanted} GPUs are wanted of {len(gpus)} ({', '.join(gpus)})")
    if runs_per_gpu < 1:
        raise ValueError(f"runs_per_gpu is {runs_per_gpu}; a GPU takes at least one run")
    while True:
        with ExitStack() as held:
            taken: list[str] = []
            # The first slot of all GPUs before the second of any, so that the load is even.
            for slot in range(runs_per_gpu):
                for gpu in gpus:
                    if gpu in taken or len(taken) == wanted:
                        continue
                    file = folder / f".gpu-{socket.gethostname()}-{gpu}-{slot}"
                    try:
                        held.enter_context(locked(file, busy="taken"))
                    except RuntimeError:
                        continue
                    taken.append(gpu)
            if len(taken) == wanted:
                yield taken
                return
        time.sleep(_PAUSE)


def main(arguments: Sequence[str]) -> int:
    """Run a command with GPUs of its own; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m nlalib.training.gpu_slots")
    parser.add_argument("--gpus", required=True, help="of this machine, separated by commas")
    parser.add_argument("--wanted", type=int, default=1)
    parser.add_argument("--runs-per-gpu", type=int, default=1)
    parser.add_argument("command", nargs="+")
    given = parser.parse_args(arguments)
    gpus = given.gpus.split(",")
    with gpus_taken(gpus, given.wanted, given.runs_per_gpu, runs_folder()) as taken:
        process = subprocess.Popen(
            given.command,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(taken)},
            close_fds=False,  # the shell may have opened a pipe for the command
        )
        # An interrupt from the keyboard reaches the command as well, which then ends by itself.
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        status = process.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
