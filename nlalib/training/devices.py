"""Devices and processes: a run knows of them what stands here, on top of Accelerate.

A run in several processes is one run: every process takes its share of each batch, and
DistributedDataParallel averages the gradients, weighted so that they are those of the whole
batch's mean loss. Batch normalisation takes the statistics of the whole batch on GPUs
(`SyncBatchNorm`) and of each process's share on the CPU, where PyTorch has no such layer. A term
of a loss that compares samples with each other sees one share.

No other processes load images: the loop reads the stored array itself, and its random numbers
belong to samples and epochs, so there is no number of workers to depend on. In fp32 CUDA may
compute convolutions in TF32, as is PyTorch's default.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    is_tensorboard_available,
)
from torch import nn

from nlalib.paths import runs_folder

# What `deterministic_algorithms` needs of cuBLAS, which reads it once, at its first use.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
_PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def started_processes() -> int:
    """Return as how many processes torchrun or `accelerate launch` started this program."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this is the process that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def require_device(device: str) -> None:
    """Raise RuntimeError, with the reason, if "cuda" is asked for and there is none."""
    if device != "cuda" or torch.cuda.is_available():
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if torch.version.cuda is None:
        cause = "this PyTorch was built without CUDA"
    elif visible is not None and not visible.strip(" ,"):
        cause = "CUDA_VISIBLE_DEVICES is empty, which hides all of them"
    else:
        try:
            torch.cuda.init()  # says more than is_available: no driver, or one that is too old
            cause = "it finds none"
        except (RuntimeError, AssertionError) as error:
            cause = str(error).strip().partition("\n")[0]
    raise RuntimeError(
        f"device is 'cuda' but PyTorch finds no CUDA device ({cause}); use 'auto' or 'cpu'"
    )


def _require_answer(device: torch.device) -> None:
    """Raise RuntimeError if the GPU does not compute, for example since another program has it."""
    if device.type != "cuda":
        return
    try:
        torch.zeros(1, device=device).add_(1).item()
    except RuntimeError as error:
        raise RuntimeError(
            f"{device} does not compute ({str(error).strip().partition(chr(10))[0]}): another "
            "program may have it for itself (see nvidia-smi). Wait for it, name another GPU by "
            "CUDA_VISIBLE_DEVICES, or set device to 'cpu'"
        ) from error


def make_accelerator(
    device: str, precision: str, processes: int = 1, logger: str = ""
) -> Accelerator:
    """Return the Accelerator that owns device and precision.

    "auto" leaves the choice to Accelerate: CUDA where there is one, else Apple's GPU, else the CPU.

    Parameters
    ----------
    device, precision : str
    processes : int
    logger : {"", "tensorboard"}
        To which `Accelerator.log` writes each epoch's metrics, under `logs` in the folder of runs.

    Raises
    ------
    RuntimeError
        If "cuda" is asked for and there is none, or it does not compute; if the program was
        started as another number of processes than `processes`, or as more than there are devices;
        if the logger's package is not installed.
    ValueError
        If "fp16" is asked for without a GPU.
    """
    require_device(device)
    if logger == "tensorboard" and not is_tensorboard_available():
        raise RuntimeError(
            "logger is 'tensorboard', which is not installed: pip install tensorboard, or leave "
            "logger empty"
        )
    if started_processes() != processes:
        raise RuntimeError(
            f"started as {started_processes()} processes, but processes is {processes}: start as "
            "many, e.g. by `torchrun --nproc-per-node`, or set the parameter"
        )
    on_cpu = device == "cpu" or (processes > 1 and not torch.cuda.is_available())
    local = int(os.environ.get("LOCAL_WORLD_SIZE", str(processes)))
    if processes > 1 and not on_cpu and local > torch.cuda.device_count():
        raise RuntimeError(
            f"{local} processes on a machine with {torch.cuda.device_count()} CUDA devices: "
            "start one a device, or set device to 'cpu'"
        )
    AcceleratorState._reset_state(reset_partial_state=True)  # one process may train several times
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision=_PRECISIONS[precision],
        log_with=logger or None,
        project_dir=runs_folder() / "logs" if logger else None,
    )
    _require_answer(accelerator.device)
    if precision == "fp16" and not accelerator.native_amp:
        # Accelerate would go on in fp32, without a word.
        raise ValueError(
            f"precision is 'fp16', which {accelerator.device.type!r} does not compute in; use "
            "'bf16' or 'fp32', or a GPU"
        )
    return accelerator


def prepare_for_processes(accelerator: Accelerator, learner: nn.Module, own_layers: bool):
    """Return the learner made ready for the processes that there are.

    `own_layers` tells whether the method has parameters, which may be idle in some epochs.
    """
    if accelerator.num_processes > 1 and accelerator.device.type != "cpu":
        learner = nn.SyncBatchNorm.convert_sync_batchnorm(learner)
    # Also a single process, if torchrun has started it, is wrapped by Accelerate.
    if accelerator.distributed_type != DistributedType.NO:
        accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=own_layers)
    return learner


def share_of(positions: np.ndarray, accelerator: Accelerator) -> np.ndarray:
    """Return this process's part of `positions`; parts differ by one at most."""
    return np.array_split(positions, accelerator.num_processes)[accelerator.process_index]


def copy_buffers_of_the_first(accelerator: Accelerator, module: nn.Module) -> None:
    """Give all processes the buffers (running means) of the first, in place."""
    if accelerator.num_processes > 1:
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, 0)


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Let PyTorch choose algorithms on CUDA that give the same bits twice, at some cost of speed.

    It warns of an operation that has none. On the CPU results repeat without it, and it costs some
    percent of a step; a GPU has not been measured: `python -m benchmarks determinism` does so.
    """
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    searches = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)
        torch.backends.cudnn.benchmark = searches
