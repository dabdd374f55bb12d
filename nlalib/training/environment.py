"""What a run ran on, as far as it can be told: no record of it ever stops a run."""

import json
import os
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from nlalib.paths import ROOT

_PACKAGES = (
    *("torch", "torchvision", "numpy", "accelerate", "scikit-learn"),
    # By whichever name it comes: without windows in images for GPUs.
    *("opencv-python", "opencv-python-headless", "opencv-contrib-python"),
)
# On which the last bits of a result depend.
_COMPARED = ("threads", "device", "processor", "packages")


def environment(device: str) -> dict:
    """Return what a run on `device` runs on: versions, machine, threads, commit of the project.

    Of packages, those that are installed. The commit is None where the project is no git clone
    or git is not installed.
    """
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": _processor_name(),
        "threads": torch.get_num_threads(),
        "device": device,
        "cuda_device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cuda": torch.version.cuda,
        "tf32": torch.backends.cudnn.allow_tf32,
        "commit": _commit(),
        "packages": _versions(),
    }


def changes_since(file: Path, now: dict) -> str:
    """Return in what `now` differs from the environment that `file` records; "" if in nothing.

    Only what the last bits of a result depend on is compared. A file that is missing or damaged
    tells of no change.
    """
    before = _recorded(file)
    on_cards = before.get("device") == now["device"] == "cuda"
    compared = [*_COMPARED, *(["cuda_device"] if on_cards else [])]
    told = [
        f"{name} {before[name]}, now {now[name]}"
        for name in compared
        if name in before and before[name] != now[name]
    ]
    return "; ".join(told)


def begun_with(file: Path) -> str:
    """Return what the record of a run that went on elsewhere says of that; "" where nothing."""
    return _recorded(file).get("begun_with", "")


def _recorded(file: Path) -> dict:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return {}


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _commit() -> str | None:
    try:
        finished = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},  # a study's runs look side by side
        )
    except OSError:  # git is not installed
        return None
    return finished.stdout.strip() or None


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
