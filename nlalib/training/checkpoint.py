"""Checkpoints: what a run needs to go on, written whole and read with care."""

import io
import pickle
from pathlib import Path

import safetensors.torch
import torch
from accelerate import Accelerator
from torch import nn

from nlalib.files import write_atomically
from nlalib.networks.weight_files import archive_damage
from nlalib.parameters import RunParameters


def write_checkpoint(path: Path, state: dict) -> None:
    """Write `state`, of tensors and plain values, atomically.

    Raises
    ------
    OSError
        If the disk is full, a limit of file sizes or a quota is reached, or the folder cannot be
        written; the checkpoint that was there stays.
    """
    # In memory first: PyTorch's own writer hides the number of the system's error.
    content = io.BytesIO()
    torch.save(state, content)
    write_atomically(path, lambda unfinished: unfinished.write_bytes(content.getbuffer()))


def read_checkpoint(path: Path, config: RunParameters) -> dict:
    """Return what `path` holds, on the CPU, where the recorded predictions belong.

    Raises
    ------
    ValueError
        If it is damaged or no checkpoint, or was written by another run.
    """
    remedy = f"delete {path} to begin the run anew"
    if damage := archive_damage(path):
        raise ValueError(f"{path.name} of {config.run_id} is {damage}: {remedy}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path.name} of {config.run_id} does not load: {remedy}") from error
    if not isinstance(state, dict) or not {"progress", "run_id"} <= set(state):
        raise ValueError(f"{path.name} of {config.run_id} is no checkpoint of a run: {remedy}")
    if state["run_id"] != config.run_id:
        raise ValueError(
            f"{path.name} belongs to {state['run_id']}, not to {config.run_id}: {remedy}"
        )
    return state


def optimization_state(optimizer, scheduler, accelerator: Accelerator) -> dict:
    """Return what a checkpoint holds of the optimisation, beside the weights."""
    # Only fp16 scales its gradients.
    scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else None
    return {
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "scaler": scaler,
    }


def load_optimization_state(state: dict, optimizer, scheduler, accelerator: Accelerator) -> None:
    """Put back, in place, what `optimization_state` returned, maybe on another kind of device."""
    saved = state["optimizer"]
    for group, own in zip(saved["param_groups"], optimizer.param_groups, strict=True):
        # Belongs to the device that wrote it: a CPU refuses what a CUDA graph needs.
        group |= {name: own[name] for name in ("capturable", "fused")}
    optimizer.load_state_dict(saved)
    scheduler.load_state_dict(state["scheduler"])
    if accelerator.scaler is not None and state["scaler"] is not None:
        accelerator.scaler.load_state_dict(state["scaler"])


def write_weights(path: Path, module: nn.Module, begins: str = "", without: str = "-") -> None:
    """Write a module's weights as safetensors, atomically, with the mode of other files.

    Parameters
    ----------
    path : pathlib.Path
    module : torch.nn.Module
    begins : str
        Only weights whose names begin so, without this beginning.
    without : str
        Leave out those whose remaining names begin so.
    """
    weights = {
        name.removeprefix(begins): value.contiguous().cpu()
        for name, value in module.state_dict().items()
        if name.startswith(begins) and not name.removeprefix(begins).startswith(without)
    }
    # Not save_file, whose file nobody but its owner may read, and whose errors have no number.
    content = safetensors.torch.save(weights)
    write_atomically(path, lambda unfinished: unfinished.write_bytes(content))
