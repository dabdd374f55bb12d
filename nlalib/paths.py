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
    if path.is_absolute():
        return path
    if not (ROOT / "notebooks").is_dir():
        raise FileNotFoundError(
            f"nlalib is installed in {ROOT}, without the project's notebooks and studies: clone "
            "the project and install it there (pip install -e .), or give whole paths"
        )
    return ROOT / path


def display_path(path: str | os.PathLike) -> str:
    """Return `path` relative to the project's root where it lies inside it, else as it is.

    Notebook outputs are committed, so they must not show where somebody keeps the clone.
    """
    path = Path(path)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def figures_folder() -> Path:
    """Return the folder for figures: `NLA_FIGURES` (tests and studies set it), else `figures/`."""
    return _named_folder("NLA_FIGURES", "figures")


def cache_folder() -> Path:
    """Return the folder for decoded images: `NLA_CACHE` if set, else `runs/cache/`."""
    return _named_folder("NLA_CACHE", "runs/cache")


def runs_folder() -> Path:
    """Return the folder for training runs: `NLA_RUNS` if set, else `runs/`."""
    return _named_folder("NLA_RUNS", "runs")


def _named_folder(variable: str, default: str) -> Path:
    folder = os.environ.get(variable, default)
    if not folder:
        raise ValueError(f"{variable} is empty: name a folder by it, or unset it for {default}/")
    return resolve(folder)
