"""Every location the project reads or writes, in one place.

Parameters hold paths relative to the project's root, so that a notebook gives the same
result under papermill (which runs in the caller's folder), nbval and JupyterLab (which run
in the notebook's folder).
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def resolve(path: str | os.PathLike) -> Path:
    """Return `path` as an absolute path; a relative one counts from the project's root."""
    path = Path(path).expanduser()
    return path if path.is_absolute() else ROOT / path


def display_path(path: str | os.PathLike) -> str:
    """Return `path` relative to the project's root where it lies inside it, else as it is.

    Notebook outputs are committed, so they must not show where somebody keeps the clone.
    """
    path = Path(path)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def figures_folder() -> Path:
    """Return the folder for figures: `NLA_FIGURES` (tests and studies set it), else `figures/`."""
    return resolve(os.environ.get("NLA_FIGURES", "figures"))


def cache_folder() -> Path:
    """Return the folder for decoded images: `NLA_CACHE` if set, else `runs/cache/`."""
    return resolve(os.environ.get("NLA_CACHE", "runs/cache"))


def runs_folder() -> Path:
    """Return the folder for training runs: `NLA_RUNS` if set, else `runs/`."""
    return resolve(os.environ.get("NLA_RUNS", "runs"))
