"""Comparison: the architectures of batch inference side by side, on the same images and model."""

import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import ray

from job import artifacts, pipeline
from job.architectures import (
    map_batches,
    notebook_batch_predictor,
    prediction_alone,
    ray_actors,
    ray_tasks,
    sequential,
)
from job.checkpoint import Checkpoint
from job.config import JobConfig
from job.errors import JobError
from job.kernels.png import decode_map
from job.listing import list_objects
from job.resources import Cluster, allot
from job.session import cluster_session
from job.storage import StorageOptions, locate

if TYPE_CHECKING:
    from job.forward import Precision

# Float32 ways may differ from sequential inference in no more pixels than this.
PARITY = 1e-5
PRECISIONS: tuple["Precision", ...] = ("float32", "bfloat16")


@dataclass(frozen=True)
class Timing:
    """One architecture over all images.

    Attributes:
        name: the architecture.
        seconds: from start to the last map, model loading included.
        first_map: seconds until the first map was there.
        steady: images per second from the first maps on, or over all where all came at once.
        peak_memory: bytes of all processes together, at most.
        agreement: share of pixels that equal sequential inference.
    """

    name: str
    seconds: float
    first_map: float
    steady: float
    peak_memory: int
    agreement: float


@dataclass(frozen=True)
class Comparison:
    """All architectures over the same images.

    Attributes:
        images: how many, repeats counted.
        model: name of the model.
        timings: in the order they ran.
        environment: versions and hardware.
    """

    images: int
    model: str
    timings: list[Timing]
    environment: dict[str, Any] = field(default_factory=dict)

    def speedup(self, timing: Timing, against: str) -> float:
        """Steady state of one architecture over that of another."""
        other = next(other for other in self.timings if other.name == against)
        return timing.steady / other.steady

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


BASELINE = "BatchPredictor, as in the notebook"
CAREFUL = "map_batches, stock processor"


def compare(
    source: str,
    model: str,
    *,
    images: int,
    options: StorageOptions | None = None,
    rounds: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """Run every architecture over the images of a folder, repeated up to a number.

    Args:
        source: a folder or prefix of images that all can be decoded.
        model: as ``--model`` takes it.
        images: images to run over; those of the source again and again.
        options: what fsspec needs for the source.
        rounds: times to run each; the median by steady state counts.
        say: is told what runs now.

    Raises:
        JobError: an architecture's maps differ from sequential inference.
    """
    place = locate(source, options)
    paths = [found.path for found in list_objects(source, options)]
    files = [bytes(place.fs.cat_file(path)) for path in paths]
    work = [files[number % len(files)] for number in range(images)]
    checkpoint = Checkpoint.from_model(model, storage_options=options)
    reference = [maps for _, maps in sequential(files, checkpoint)]
    timings = []
    with cluster_session():
        ways: dict[str, Callable[[], Iterable[tuple[int, np.ndarray]]]] = {
            "sequential": lambda: sequential(work, checkpoint),
            "Ray tasks": lambda: ray_tasks(work, checkpoint),
            "Ray actors": lambda: ray_actors(work, checkpoint),
            BASELINE: lambda: notebook_batch_predictor(work, checkpoint),
            CAREFUL: lambda: map_batches(work, checkpoint),
        }
        for name, way in ways.items():
            say(f"{name} …")
            timings.append(_median([timed(name, way, reference, images) for _ in range(rounds)]))
        for precision in PRECISIONS:
            name = f"this job, {precision}"
            say(f"{name} …")
            runs = [_job(name, work, model, precision, reference, options) for _ in range(rounds)]
            timings.append(_median(runs))
            name = f"its predictors alone, {precision}"
            say(f"{name} …")
            way = partial(prediction_alone, work, checkpoint, precision, _workers(images))
            timings.append(_median([timed(name, way, reference, images) for _ in range(rounds)]))
    return Comparison(images, model, timings, _environment())


def timed(
    name: str,
    way: Callable[[], Iterable[tuple[int, np.ndarray]]],
    reference: Sequence[np.ndarray],
    images: int,
) -> Timing:
    """Run an architecture over all images, and compare every map.

    Args:
        name: the architecture.
        way: yields (number of the image, map) as maps arrive.
        reference: the maps of sequential inference; image n has that of n modulo their number.
        images: how many there are.

    Raises:
        JobError: maps are missing, or differ where float32 must not.
    """
    arrivals, same, pixels = [], 0, 0
    with _peak_memory() as memory:
        started = time.perf_counter()
        for number, found in way():
            arrivals.append(time.perf_counter() - started)
            expected = reference[number % len(reference)]
            same += int((found == expected).sum())
            pixels += expected.size
    if len(arrivals) != images:
        raise JobError(f"{name}: {len(arrivals)} maps of {images} images")
    if "bfloat16" not in name:
        _check_parity(name, same / pixels)
    return Timing(name, arrivals[-1], arrivals[0], steady_rate(arrivals), memory[0], same / pixels)


def _job(
    name: str,
    work: Sequence[bytes],
    model: str,
    precision: str,
    reference: Sequence[np.ndarray],
    options: StorageOptions | None,
) -> Timing:
    """The real job, over files in a folder of its own."""
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "images"
        source.mkdir()
        for number, data in enumerate(work):
            (source / f"{number:06d}.jpg").write_bytes(data)
        output = Path(directory) / "output"
        config = JobConfig(
            input=str(source),
            output=str(output),
            model=model,
            precision=precision,
            storage_options=options or {},
            progress="none",
        )
        with _peak_memory() as memory:
            receipt = pipeline.run(config)
        same = pixels = 0
        for table in artifacts.tables(locate(str(output)), "maps", ["id", "map"]):
            for row in table.to_pylist():
                expected = reference[row["id"] % len(reference)]
                same += int((decode_map(row["map"]["bytes"]) == expected).sum())
                pixels += expected.size
    if receipt.maps != len(work):
        raise JobError(f"{name}: {receipt.maps} maps of {len(work)} images")
    if precision == "float32":
        _check_parity(name, same / pixels)
    steady = receipt.steady or receipt.images_per_second
    return Timing(name, receipt.seconds, receipt.first_map, steady, memory[0], same / pixels)


def _workers(images: int) -> int:
    """As many predictors as the job takes here."""
    return allot(JobConfig(input="-", output="-"), Cluster.now(), images).workers


def _check_parity(name: str, agreement: float) -> None:
    if agreement < 1 - PARITY:
        raise JobError(
            f"{name}: {1 - agreement:.2e} of the pixels differ from sequential inference, more than"
            f" {PARITY:.0e}; its speed says nothing"
        )


def steady_rate(arrivals: Sequence[float]) -> float:
    """Images per second after the first maps, which may arrive several at a time.

    Args:
        arrivals: seconds from the start to each map, ascending.

    Returns:
        The rate after the first arrivals; over everything, when there are no later ones.
    """
    later = [arrival for arrival in arrivals if arrival > arrivals[0] + 0.25]
    if not later:
        return len(arrivals) / arrivals[-1]
    return len(later) / (arrivals[-1] - arrivals[0])


def _median(runs: list[Timing]) -> Timing:
    return sorted(runs, key=lambda run: run.steady)[len(runs) // 2]


@contextmanager
def _peak_memory() -> Iterator[list[int]]:
    """Watch the memory of this process and of all Ray workers on this machine."""
    peak, stop = [_memory_now()], threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            peak[0] = max(peak[0], _memory_now())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _memory_now() -> int:
    total = 0
    for process in [psutil.Process(), *psutil.process_iter(["name"])]:
        try:
            if process.pid == psutil.Process().pid or process.name().startswith("ray::"):
                memory = process.memory_info()
                total += memory.rss - getattr(memory, "shared", 0)
        except psutil.Error:
            continue
    return total


def _environment() -> dict[str, Any]:
    from importlib import metadata

    return {
        "cpus": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "cluster": {
            name: amount
            for name, amount in ray.cluster_resources().items()
            if name in ("CPU", "GPU")
        }
        if ray.is_initialized()
        else {},
        **{name: metadata.version(name) for name in ("ray", "torch", "transformers")},
    }
