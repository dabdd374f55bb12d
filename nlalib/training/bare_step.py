"""What a card could do at most: a network's bare step, with nothing around it.

Forward of both views of each image, cross-entropy, backward and the optimiser, on tensors that lie
on the device. Played as one CUDA graph nothing waits for launches: no epoch of a network that is
not compiled can be faster.
"""

import time
from collections.abc import Callable

import torch
from torch.nn import functional

from nlalib.methods import make_method
from nlalib.networks.registry import build_model
from nlalib.training.config import RunConfig
from nlalib.training.devices import make_accelerator
from nlalib.training.learner import Learner, make_optimizer, memory_format
from nlalib.training.recording import CudaRecorder

_STEPS = 50


def bare_steps(config: RunConfig, steps: int, graph: bool) -> Callable[[], None]:
    """Return a function that makes bare steps with a run's network, optimiser and precision.

    Parameters
    ----------
    config : RunConfig
        Its precision is "fp32" or "bf16".
    steps : int
        How many at each call, which waits for the device.
    graph : bool
        Whether they are played as a CUDA graph.
    """
    accelerator = make_accelerator(config.device, config.precision)
    device = accelerator.device
    network = build_model(config.backbone, config.num_classes, config.seed)
    network.to(device, memory_format=memory_format(config))
    learner = Learner(network, make_method("ce", {}), config.view_order)
    optimizer, _ = make_optimizer(learner, config, 1, capturable=graph)
    views = 2 if make_method(config.method, config.method_settings).two_views else 1
    shape = (views * config.batch_size, 3, config.image_size, config.image_size)
    images = torch.randn(shape, device=device).to(memory_format=memory_format(config))
    labels = torch.arange(config.batch_size, device=device) % config.num_classes
    in_bf16 = config.precision == "bf16"

    def step():
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=in_bf16):
            logits = network(images).logits[: len(labels)].float()
        loss = functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return (loss.detach(),)

    play, outputs = step, None
    if graph:
        recorder = CudaRecorder()
        for _ in range(3):
            recorder.warm_up(step, [])
        play, outputs = recorder.record(step, [])

    def several():
        for _ in range(steps):
            last = play()
        float((outputs or last)[0])

    return several


def most_images_per_second(config: RunConfig) -> float:
    """Return how many training images a second the bare step could take on this CUDA device."""
    several = bare_steps(config, _STEPS, graph=True)
    several()
    started = time.perf_counter()
    several()
    return _STEPS * config.batch_size / (time.perf_counter() - started)
