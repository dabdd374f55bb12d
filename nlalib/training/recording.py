"""A training step as one CUDA graph: recorded once an epoch, and then played again and again.

A step of a small network is hundreds of small kernels, and launching them one by one takes longer
than they do. A graph launches all of them at once. What it plays are the same kernels on the same
places in memory, so a step reads its batch from places of its own, and whatever it changes (the
weights, what a method remembers) must be changed in place.

The first steps are ordinary ones: they are part of the training all the same, they let the
libraries choose algorithms and the optimiser make its state, and they show whether the step leaves
everything in its place. Each later epoch begins with one ordinary step: a method may do something
new there, and has to show again that it leaves everything in its place.
"""

from collections.abc import Callable, Sequence

import torch
from accelerate.utils import DistributedType
from torch import Tensor, nn

_ORDINARY_STEPS = 3  # of a run, before the first recording
Step = Callable[..., Sequence[Tensor]]


class CudaRecorder:
    """Records on a stream of its own; all graphs of a run share one pool of memory."""

    def __init__(self):
        self._stream = torch.cuda.Stream()
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, step: Step, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Do the step once, as it is."""
        here = torch.cuda.current_stream()
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            outputs = step(*inputs)
        here.wait_stream(self._stream)
        return outputs

    def record(
        self, step: Step, inputs: Sequence[Tensor]
    ) -> tuple[Callable[[], None], Sequence[Tensor]]:
        """Return what plays the step on the values that `inputs` then hold, and its outputs."""
        graph = torch.cuda.CUDAGraph()
        # Within the stream, so that a recording that fails leaves the current one as it was. Only
        # calls of this thread are refused while it records: a notebook has others.
        with (
            torch.cuda.stream(self._stream),
            torch.cuda.graph(
                graph,
                pool=self._pool,
                stream=self._stream,
                capture_error_mode="thread_local",
            ),
        ):
            outputs = step(*inputs)

        def play(_reads_and_writes=(step, inputs)) -> None:
            # A graph knows addresses alone: what lies there has to live as long as it does.
            graph.replay()

        return play, outputs


class RecordedStep:
    """Does a step, by playing its recording where there is one.

    Parameters
    ----------
    recorder : CudaRecorder
        In tests something that makes the same calls on the CPU.
    learned : torch.nn.Module
        What the step changes.
    report : callable
        Gets one line if the step cannot be recorded; it is then done in the ordinary way.
    """

    def __init__(self, recorder: CudaRecorder, learned: nn.Module, report: Callable[[str], None]):
        self._recorder, self._learned, self._report = recorder, learned, report
        self.refused = ""
        self.played = 0  # steps, since `begin`
        self._ordinary_left = _ORDINARY_STEPS

    def begin(self, step: Step) -> None:
        """Begin an epoch, with its own `step`: from batch tensors to tensors that are its outputs.

        What it may depend on beside its inputs stays the same for the epoch.
        """
        self._step, self.played = step, 0
        self._ordinary_left = max(self._ordinary_left, 1)
        self._places: list[Tensor] = []
        self._play = self._outputs = None

    def __call__(self, *inputs: Tensor) -> Sequence[Tensor]:
        """Do the step on a batch; the outputs hold until the next call."""
        if self.refused:
            return self._step(*inputs)
        if self._ordinary_left:
            return self._ordinary_step(inputs)
        if self._play is None:
            self._record(inputs)
        shapes = [place.shape for place in self._places]
        if self.refused or shapes != [given.shape for given in inputs]:  # the last batch
            return self._step(*inputs)
        for place, given in zip(self._places, inputs, strict=True):
            place.copy_(given)
        self._play()
        self.played += 1
        return self._outputs

    def _ordinary_step(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        before = self._tensors()
        outputs = self._recorder.warm_up(self._step, inputs)
        moved = [name for name, tensor in self._tensors().items() if tensor is not before[name]]
        if moved:
            self._refuse(f"the step puts a new tensor in the place of {moved[0]}")
        self._ordinary_left -= 1
        return outputs

    def _tensors(self) -> dict[str, Tensor]:
        return dict([*self._learned.named_parameters(), *self._learned.named_buffers()])

    def _record(self, inputs: Sequence[Tensor]) -> None:
        self._places = [given.clone() for given in inputs]
        try:
            self._play, self._outputs = self._recorder.record(self._step, self._places)
        except RuntimeError as error:
            self._refuse(str(error).partition("\n")[0])

    def _refuse(self, cause: str) -> None:
        self.refused = cause
        self._report(f"steps are not recorded as a CUDA graph, but done one by one: {cause}")


def cannot_be_recorded(config, accelerator) -> str:
    """Return why the steps of a run are not recorded at all; "" if they are.

    Parameters
    ----------
    config : RunConfig
    accelerator : accelerate.Accelerator
    """
    if accelerator.device.type != "cuda":
        return "a graph is for CUDA"
    if config.cuda_graph == "off":
        return "cuda_graph is 'off'"
    if accelerator.distributed_type != DistributedType.NO:
        return "there are several processes"
    if config.precision == "fp16":
        return "fp16 looks at each step's gradients before it takes it"
    if config.lr_schedule == "one_cycle":
        return "the schedule 'one_cycle' changes the optimiser with each step"
    return ""
