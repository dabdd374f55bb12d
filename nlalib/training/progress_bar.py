"""A bar that moves inside an epoch, for whoever sits in front of it."""

import os
import sys
from collections.abc import Iterable, Iterator

from tqdm import tqdm

from nlalib.training.devices import is_first_process

# Shorter than the line of text that follows each epoch and takes its place.
_FORMAT = "{desc} {percentage:3.0f}% |{bar:20}| {remaining} left"


def shown(steps: Iterable, words: str) -> Iterator:
    """Yield the steps, and show how far they are where somebody looks on.

    That is in a terminal, and in a notebook that is open in JupyterLab. A notebook that is run by
    papermill, nbconvert or nbval gets no bar, nor does anything where TQDM_DISABLE is set.
    """
    steps = list(steps)
    quiet = bool(os.environ.get("TQDM_DISABLE")) or not somebody_looks_on()
    # On the same stream as the lines of text, so that a notebook shows one output and not many.
    return iter(
        tqdm(
            steps,
            desc=words,
            disable=quiet,
            leave=False,
            file=sys.stdout,
            bar_format=_FORMAT,
            mininterval=0.3,
        )
    )


def somebody_looks_on() -> bool:
    """Whether this is a terminal or a notebook that is open, and the process that writes."""
    if not is_first_process():
        return False
    # The Jupyter server names a kernel's notebook; programs that execute notebooks do not.
    return sys.stdout.isatty() or bool(os.environ.get("JPY_SESSION_NAME"))
