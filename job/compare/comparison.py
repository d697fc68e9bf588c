"""Comparison: the architectures of batch inference side by side, on the same images and model."""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median_high
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import ray

from job import pipeline
from job.cluster.address import find_place
from job.cluster.data_settings import quiet_data
from job.cluster.resources import Cluster, plan_resources
from job.cluster.session import cluster_session
from job.compare.baselines import (
    Maps,
    map_batches,
    notebook_batch_predictor,
    prediction_alone,
    ray_actors,
    ray_tasks,
    sequential,
)
from job.config import JobConfig
from job.errors import ConfigError, ImageError, JobError, StorageError
from job.images.decode import decode
from job.inputs.manifest import list_images
from job.inputs.opening import open_input
from job.models.checkpoint import Checkpoint
from job.results.maps import class_ids, read_maps
from job.rows import Listed
from job.storage.location import StorageOptions
from job.storage.opening import locate
from job.storage.refusals import STORAGE_ERRORS, explain
from job.wording import counted

if TYPE_CHECKING:
    from job.models.forward import Precision

# Fewer maps after the first say little of a steady state.
_SETTLED = 16
# A map that comes no later than this after the first came with it, seconds.
_TOGETHER = 0.25
# Float32 ways may differ from sequential inference in no more pixels than this.
PARITY = 1e-5
BASELINE = "BatchPredictor, as in the notebook"
CAREFUL = "map_batches, stock processor"
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
        settled: whether enough maps came after the first for a steady state.
        precision: what matrix products were computed in.
        is_whole_job: whether it is this job, from files to files.
    """

    name: str
    seconds: float
    first_map: float
    steady: float
    peak_memory: int
    agreement: float
    settled: bool = True
    precision: "Precision" = "float32"
    is_whole_job: bool = False


@dataclass(frozen=True)
class Comparison:
    """All architectures over the same images, in rounds: one after another, and all over again.

    Attributes:
        images: how many, repeats counted.
        model: name of the model.
        rounds: every round's timings, in the order they ran.
        environment: versions and hardware.
    """

    images: int
    model: str
    rounds: list[list[Timing]]
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def timings(self) -> list[Timing]:
        """Each architecture's median by steady state (of two the faster), with its least peak.

        Memory that Ray's workers keep from one architecture counts with the next.
        """
        medians = []
        for timings in zip(*self.rounds, strict=True):
            median = sorted(timings, key=lambda timing: timing.steady)[len(timings) // 2]
            least = min(timing.peak_memory for timing in timings)
            settled = all(timing.settled for timing in timings)
            medians.append(replace(median, peak_memory=least, settled=settled))
        return medians

    def speedup(self, name: str, against: str) -> float:
        """Steady state of one architecture over another's in the same round, the median of them.

        A machine that is slow for a while is so for both.
        """
        return median_high(_steady(name, ran) / _steady(against, ran) for ran in self.rounds)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        speedups = {timing.name: self.speedup(timing.name, BASELINE) for timing in self.timings}
        medians = [asdict(timing) for timing in self.timings]
        return {**asdict(self), "timings": medians, "speedups": speedups}


def _steady(name: str, timings: Sequence[Timing]) -> float:
    return next(timing.steady for timing in timings if timing.name == name)


def compare(
    source: str,
    model: str,
    *,
    images: int,
    options: StorageOptions | None = None,
    rounds: int = 1,
    address: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """Run every architecture over the images of a folder, repeated up to a number.

    Args:
        source: a folder, prefix or glob of images that all can be decoded.
        model: as ``--model`` takes it.
        images: images to run over; those of the source again and again.
        options: what fsspec needs for the source.
        rounds: times to run all of them, one after another.
        address: the Ray to run on, as ``--address`` takes it.
        say: is told what runs now.

    Raises:
        ConfigError: no image or no round was asked for.
        StorageError: there are no images, or one cannot be read or decoded.
        JobError: an architecture's maps differ from sequential inference.
    """
    for name, number in (("--images", images), ("--rounds", rounds)):
        if number < 1:
            raise ConfigError(f"{name} {number}: give a number from 1 on")
    files = _images(source, options)
    ray_place = find_place(address)
    say(f"{ray_place}")
    work = [files[number % len(files)] for number in range(images)]
    checkpoint = Checkpoint.from_model(model, storage_options=options)
    reference = [maps for _, maps in sequential(files, checkpoint)]
    done: list[list[Timing]] = []
    with cluster_session(ray_place), quiet_data():
        ways = _ways(work, model, checkpoint, reference, options)
        for turn in range(rounds):
            done.append([])
            for name, way in ways.items():
                say(f"round {turn + 1} of {rounds}: {name} …")
                done[-1].append(way())
        return Comparison(images, model, done, _environment())


def _images(source: str, options: StorageOptions | None) -> list[bytes]:
    """The images of a folder, each of which has been decoded once."""
    opened = open_input(source, options)
    listed, _ = list_images(opened)
    files = []
    for uri in listed["uri"].to_pylist():
        try:
            files.append(opened.fetch(Listed(uri, None, None)))
            decode(files[-1])
        except (*STORAGE_ERRORS, ImageError) as error:
            reason = error.message if isinstance(error, ImageError) else explain(error)
            raise StorageError(
                f"{uri}: {reason}. Every image that is compared must be one that can be decoded"
            ) from error
    return files


def _ways(
    work: Sequence[bytes],
    model: str,
    checkpoint: Checkpoint,
    reference: Sequence[np.ndarray],
    options: StorageOptions | None,
) -> dict[str, Callable[[], Timing]]:
    """What to run and time, by name, in this order."""
    architectures: dict[str, Callable[[], Maps]] = {
        "sequential": lambda: sequential(work, checkpoint),
        "Ray tasks": lambda: ray_tasks(work, checkpoint),
        "Ray actors": lambda: ray_actors(work, checkpoint),
        BASELINE: lambda: notebook_batch_predictor(work, checkpoint),
        CAREFUL: lambda: map_batches(work, checkpoint),
    }
    ways: dict[str, Callable[[], Timing]] = {
        name: partial(timed, name, way, reference, len(work)) for name, way in architectures.items()
    }
    workers = _workers(len(work))
    for precision in PRECISIONS:
        name = f"this job, {precision}"
        ways[name] = partial(_job, name, work, model, precision, reference, options)
        name = f"its predictors alone, {precision}"
        alone = partial(prediction_alone, work, checkpoint, precision, workers)
        ways[name] = partial(timed, name, alone, reference, len(work), precision)
    return ways


def timed(
    name: str,
    way: Callable[[], Maps],
    reference: Sequence[np.ndarray],
    images: int,
    precision: "Precision" = "float32",
) -> Timing:
    """Run an architecture over all images, and compare every map.

    Args:
        name: the architecture.
        way: yields (number of the image, map) as maps arrive.
        reference: the maps of sequential inference; image n has that of n modulo their number.
        images: how many there are.
        precision: what matrix products are computed in.

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
        raise JobError(f"{name}: {counted(len(arrivals), 'map')} of {counted(images, 'image')}")
    if precision == "float32":
        _check_parity(name, same / pixels)
    return Timing(
        name,
        arrivals[-1],
        arrivals[0],
        steady_rate(arrivals),
        memory[0],
        same / pixels,
        _later(arrivals) >= _SETTLED,
        precision,
    )


def _job(
    name: str,
    work: Sequence[bytes],
    model: str,
    precision: "Precision",
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
        for row in read_maps(locate(str(output)), ["id", "uri", "map"]):
            expected = reference[row["id"] % len(reference)]
            same += int((class_ids(row) == expected).sum())
            pixels += expected.size
    if receipt.maps != len(work):
        raise JobError(f"{name}: {counted(receipt.maps, 'map')} of {counted(len(work), 'image')}")
    if precision == "float32":
        _check_parity(name, same / pixels)
    steady = receipt.steady or receipt.images_per_second
    # Maps come a file at a time; a receipt has no steady rate where all came in one.
    later = receipt.maps - receipt.allotment["images_per_file"] if receipt.steady else 0
    return Timing(
        name,
        receipt.seconds,
        receipt.first_map,
        steady,
        memory[0],
        same / pixels,
        later >= _SETTLED,
        precision,
        is_whole_job=True,
    )


def _workers(images: int) -> int:
    """As many predictors as the job takes here, of those that there is room for now."""
    return max(
        1, plan_resources(JobConfig(input="-", output="-"), Cluster.now(), images).workers_now
    )


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
    later = _later(arrivals)
    if not later:
        return len(arrivals) / arrivals[-1]
    return later / (arrivals[-1] - arrivals[0])


def _later(arrivals: Sequence[float]) -> int:
    """How many maps came after the first ones."""
    return sum(arrival > arrivals[0] + _TOGETHER for arrival in arrivals)


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
