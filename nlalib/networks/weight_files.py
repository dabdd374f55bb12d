"""Files of tensors, read without executing anything in them, and what may be wrong with them."""

import struct
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

# Under which of these a PyTorch checkpoint keeps the weights, if it holds more.
_NESTED = ("state_dict", "model_state_dict", "model", "net")
_REMEDY = "download it again"


def read_weights_file(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by their names.

    Parameters
    ----------
    path : pathlib.Path
        safetensors, or a PyTorch file: a state dict, or one under the key `state_dict` as in
        `resnet18_msceleb.pth`. It is never unpickled as code.

    Raises
    ------
    ValueError
        In one line with path, cause and remedy: if the file is empty, cut off, damaged or of
        another kind, or holds more than tensors.
    """
    with path.open("rb") as file:
        beginning = file.read(512).lstrip().lower()
    if not beginning:
        raise ValueError(f"{path} is empty: {_REMEDY}")
    if beginning.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ValueError(
            f"{path} is a web page and no weights file: {_REMEDY}, by the link of the file itself"
        )
    if beginning.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{path} is a pointer of Git LFS and not the file that it stands for: {_REMEDY}, "
            "by `git lfs pull`"
        )
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pytorch(path)
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors or not all(isinstance(name, str) for name in tensors):
        raise ValueError(
            f"{path} holds no weights by name, but {', '.join(map(repr, list(state)[:3]))}; "
            "expected a state dict"
        )
    return {name.removeprefix("module."): value for name, value in tensors.items()}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}): {_REMEDY}") from error


def _read_pytorch(path: Path) -> dict:
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"  # what PyTorch has written since version 1.6
    if is_archive and (damage := archive_damage(path)):
        raise ValueError(f"{path} is {damage}: {_REMEDY}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, where the bytes make no sense
        if "GLOBAL" in str(error) or "Unsupported class" in str(error):
            raise ValueError(
                f"{path} holds more than tensors and is not opened, since that could run code: "
                "save its state dict alone (torch.save(model.state_dict(), ...))"
            ) from error
        raise ValueError(
            f"{path} is no weights file, or one that was cut off ({type(error).__name__}): "
            f"{_REMEDY}"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__}; expected a state dict")
    for key in _NESTED:
        if isinstance(state.get(key), dict):
            return state[key]
    return state


def archive_damage(path: Path) -> str:
    """Return what is wrong with a file that `torch.save` wrote; "" for a sound one.

    PyTorch itself reads tensors without a look at their check sums.
    """
    if not zipfile.is_zipfile(path):  # which has its directory at the end
        return "cut off or of another kind"
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error) as error:
        return f"damaged ({error})"
    return f"damaged in {member}" if member else ""
