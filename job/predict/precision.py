"""Precision: what to compute in, chosen by measurement on a worker like those to come."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from job.cluster.resources import ResourcePlan
from job.models.checkpoint import Checkpoint

if TYPE_CHECKING:
    from job.models.forward import Precision

# Half precision moves some pixels: it has to pay for that.
WORTH = 1.15
# Images per predictor after which compiling has paid for itself on a GPU: an estimate, nobody has
# measured it yet. On CPUs the folded network is faster as it is (BENCHMARKS.md).
COMPILE_FROM = 50_000


def worth_compiling(remaining: int, resources: ResourcePlan) -> bool:
    """Whether compiling pays for itself over what each predictor has to do."""
    return bool(resources.gpus_per_worker) and remaining / resources.workers >= COMPILE_FROM


def choose_precision(
    checkpoint: Checkpoint,
    resources: ResourcePlan,
    wait_for_place: Callable[[], None] = lambda: None,
) -> "tuple[Precision, str]":
    """Run the model both ways on a worker like those to come.

    Args:
        checkpoint: the model.
        resources: what such a worker asks for.
        wait_for_place: waits until the cluster has room for such a worker.

    Returns:
        The precision to use, and one line that says why.
    """
    task = ray.remote(_seconds_by_precision).options(
        num_cpus=resources.cpus_per_worker, num_gpus=resources.gpus_per_worker
    )
    wait_for_place()
    seconds = ray.get(task.remote(checkpoint, bool(resources.gpus_per_worker), resources.threads))
    half = min((name for name in seconds if name != "float32"), key=lambda name: seconds[name])
    gain = seconds["float32"] / seconds[half]
    if gain >= WORTH:
        return half, f"precision {half}: {gain:.1f} times as fast as float32 here"
    return "float32", f"precision float32: {half} is no more than {gain:.1f} times as fast here"


def _seconds_by_precision(
    checkpoint: Checkpoint, use_gpu: bool, threads: int
) -> "dict[Precision, float]":
    """Seconds per image of a forward pass in each precision, the median of five."""
    import torch

    from job.models.forward import fast
    from job.models.loading import load_model, on_device
    from job.models.normalise import Normaliser

    torch.set_num_threads(threads)
    model, image_processor = load_model(checkpoint)
    model = on_device(model, use_gpu)
    # Some models take no other size than that which their processor makes.
    grey = np.full((512, 512, 3), 128, np.uint8)
    size = Normaliser(image_processor, model.device)([grey]).shape[1:]
    pixels = torch.randn((32 if use_gpu else 1, *size), device=model.device)
    halves: tuple[Precision, ...] = ("bfloat16", "float16") if use_gpu else ("bfloat16",)
    seconds: dict[Precision, float] = {}
    for precision in ("float32", *halves):
        forward = fast(model, precision)
        taken = pixels.to(forward.takes)
        seconds[precision] = _median_seconds(forward.scores, taken) / len(pixels)
    return seconds


def _median_seconds(scores: Any, pixels: Any) -> float:
    import torch

    samples = []
    with torch.inference_mode():
        for _ in range(6):
            started = time.perf_counter()
            scores(pixels)
            if pixels.is_cuda:
                torch.cuda.synchronize()
            samples.append(time.perf_counter() - started)
    return float(np.median(samples[1:]))
