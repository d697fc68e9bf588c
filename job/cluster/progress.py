"""Progress: what all workers have done so far, and one line about it now and then."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TextIO

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from job.cluster.guard import Ledger
from job.cluster.outage import Outage, Verdict
from job.redact import redact
from job.rows import Fault
from job.wording import counted, duration

Style = Literal["auto", "bar", "lines", "none"]
_TELLING = 5.0  # seconds from the first maps on: several predictors have their first together


@dataclass
class Snapshot:
    """What a run has done up to a moment.

    Attributes:
        maps: images that got a map.
        errors: images that did not, by kind.
        seconds: time spent in each stage, added over all workers.
        images: images that went through each stage.
        notes: what workers had to say, each once.
        spans: seconds from the first to the last report of each stage.
        retries: requests to storage that were made again.
        first_map: seconds until the first maps were written; 0 when none were.
        at_first: images that were done by then.
        under_way: seconds since then.
        steady: images per second from then on; 0 when all were written at once.
        arrived: predictors that have found a place, with their model loaded or not.
        begun: whether images have begun to be loaded.
    """

    maps: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    images: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    spans: dict[str, float] = field(default_factory=dict)
    retries: int = 0
    first_map: float = 0.0
    at_first: int = 0
    under_way: float = 0.0
    steady: float = 0.0
    arrived: int = 0
    begun: bool = False

    @property
    def done(self) -> int:
        return self.maps + self.errors.total()


Describe = Callable[[Snapshot], str]


def _nothing_awaited(snapshot: Snapshot) -> str:
    return ""


@ray.remote(num_cpus=0)
class RunTracker:
    """Adds up what workers report; lives beside the driver for as long as the run."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._committed: dict[int, tuple[int, dict[str, int]]] = {}
        self._maps = 0
        self._errors: Counter[str] = Counter()
        self._first: tuple[float, int] | None = None
        self._last = 0.0
        self._seconds: Counter[str] = Counter()
        self._images: Counter[str] = Counter()
        self._notes: dict[str, None] = {}
        self._spans: dict[str, tuple[float, float]] = {}
        self._retries = 0
        self._ledger = Ledger()
        self._stopping = False
        self._arrived: set[str] = set()
        self._begun = False
        self._outage = Outage()

    def arrive(self, worker: str) -> None:
        """A predictor has found a place; one that starts anew, on the same or another node, counts
        once."""
        self._arrived.add(worker)

    def begin(self, stage: str, ids: list[int]) -> tuple[int, list[int], bool]:
        """See :meth:`job.cluster.guard.Ledger.begin`; and whether the run is coming to an end."""
        self._begun = True
        return *self._ledger.begin(stage, ids), self._stopping or self._outage.ends_run

    def end(self, stage: str, ids: list[int]) -> None:
        """See :meth:`job.cluster.guard.Ledger.end`."""
        self._ledger.end(stage, ids)

    def hang(self, stage: str, ids: list[int]) -> None:
        """See :meth:`job.cluster.guard.Ledger.hang`."""
        self._ledger.hang(stage, ids)

    def stop(self) -> None:
        """Let nothing new begin."""
        self._stopping = True

    def read(self, node: str, read: list[int], faults: dict[int, Fault]) -> None:
        """See :meth:`job.cluster.outage.Outage.count`."""
        self._outage.count(node, read, faults)

    def outage(self) -> Verdict | None:
        """See :meth:`job.cluster.outage.Outage.verdict`."""
        return self._outage.verdict()

    def note(self, text: str) -> None:
        """Keep what a worker has to say."""
        self._notes[text] = None

    def add(self, seconds: dict[str, float], images: dict[str, int], retries: int = 0) -> None:
        """Count time and images to stages, and requests to storage that were made again."""
        now = time.monotonic()
        for stage, spent in seconds.items():
            first = self._spans.get(stage, (now - spent, now))[0]
            self._spans[stage] = (min(first, now - spent), now)
        self._seconds.update(seconds)
        self._images.update(images)
        self._retries += retries

    def commit(self, task: int, maps: int, errors: dict[str, int]) -> None:
        """Count a write task; one that was retried counts once."""
        elapsed = time.monotonic() - self._started
        if self._first is None:
            self._first = elapsed, maps + sum(errors.values())
        if task not in self._committed:
            self._last = elapsed
        earlier_maps, earlier_errors = self._committed.get(task, (0, {}))
        self._maps += maps - earlier_maps
        self._errors.update(errors)
        self._errors.subtract(earlier_errors)
        self._committed[task] = (maps, errors)

    def commits(self) -> dict[int, tuple[int, dict[str, int]]]:
        """Maps and errors of each write task; whether its record was renamed, storage knows."""
        return self._committed

    def snapshot(self) -> Snapshot:
        """Everything reported so far."""
        total = Snapshot(seconds=self._seconds, images=self._images, notes=list(self._notes))
        total.spans = {stage: last - first for stage, (first, last) in self._spans.items()}
        total.retries = self._retries
        total.arrived, total.begun = len(self._arrived), self._begun
        total.maps, total.errors = self._maps, +self._errors
        if self._first is not None:
            total.first_map, total.at_first = self._first
            total.under_way = time.monotonic() - self._started - total.first_map
            if len(self._committed) > 1:
                between = max(self._last - total.first_map, 1e-9)
                total.steady = (total.done - total.at_first) / between
        return total


def start_tracker() -> Any:
    """A tracker on the driver's own machine, so that losing a worker node does not lose it.

    A soft affinity would not do: Ray keeps even actors without CPUs off a head that has none.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return RunTracker.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]


def ask(tracker: Any) -> Snapshot:
    """What a run has done by now.

    Raises:
        RayError: the tracker does not answer.
    """
    snapshot: Snapshot = ray.get(tracker.snapshot.remote(), timeout=10)
    return snapshot


@contextmanager
def watching(
    tracker: Any,
    remaining: int,
    style: Style,
    stream: TextIO | None = None,
    every: float = 5.0,
    describe: Describe = _nothing_awaited,
) -> Iterator[None]:
    """Within the context, show how far the run is: a live bar on a terminal, lines elsewhere.

    Args:
        tracker: the run's tracker.
        remaining: images this run has to do.
        style: ``auto`` takes a bar on a terminal and lines elsewhere.
        stream: where to show it, standard error by default.
        every: seconds between lines.
        describe: what the run is waiting for, if anything.
    """
    out = stream or sys.stderr
    if style == "auto":
        style = "bar" if out.isatty() else "lines"
    if style == "none":
        yield
        return
    stop = threading.Event()
    if style == "bar":
        show, every = _show_bar, min(every, 0.5)
    else:
        show = _show_lines
    looks = _looks(tracker, every, describe, stop)
    thread = threading.Thread(
        target=show, args=(looks, remaining, out), daemon=True, name="progress"
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5)


def line(snapshot: Snapshot, remaining: int, elapsed: float, waiting: str = "") -> str:
    """One line about a run: done of total, images/s, time left, what it waits for, errors."""
    share = 100 * snapshot.done // remaining if remaining else 100
    parts = [f"{snapshot.done:,} of {counted(remaining, 'image')} ({share} %)"]
    if snapshot.done and elapsed > 0:
        rate = _rate(snapshot, elapsed)
        parts.append(f"{rate:.1f} images/s")
        parts.append(f"{duration((remaining - snapshot.done) / rate)} left")
    if waiting or not snapshot.done:
        parts.append(waiting or "starting up")
    failed = snapshot.errors.total()
    if failed:
        parts.append(f"{failed:,} error{'s' if failed > 1 else ''}")
    return ", ".join(parts)


def _rate(snapshot: Snapshot, elapsed: float) -> float:
    """Images per second; without start-up, which does not come again, once that can be told."""
    later = snapshot.done - snapshot.at_first
    is_telling = later and snapshot.under_way >= _TELLING
    return later / snapshot.under_way if is_telling else snapshot.done / elapsed


def _looks(
    tracker: Any, every: float, describe: Describe, stop: threading.Event
) -> Iterator[tuple[Snapshot, str]]:
    """What has been done and what is waited for, now and then."""
    while not stop.wait(every):
        try:
            snapshot = ask(tracker)
            waiting = describe(snapshot)
        except (ray.exceptions.RayError, TimeoutError, ConnectionError):
            continue  # a missed line is no reason to end anything
        yield snapshot, waiting


def _show_lines(looks: Iterable[tuple[Snapshot, str]], remaining: int, out: TextIO) -> None:
    started = time.monotonic()
    told = 0
    for snapshot, waiting in looks:
        now = line(snapshot, remaining, time.monotonic() - started, waiting)
        for text in (*snapshot.notes[told:], now):
            print(redact(text), file=out, flush=True)
        told = len(snapshot.notes)


def _show_bar(looks: Iterable[tuple[Snapshot, str]], remaining: int, out: TextIO) -> None:
    from tqdm import tqdm

    with tqdm(total=remaining, unit="images", file=out, leave=False, dynamic_ncols=True) as bar:
        told = 0
        for snapshot, waiting in looks:
            for note in snapshot.notes[told:]:
                bar.write(redact(note), file=out)
            told = len(snapshot.notes)
            failed = f"{snapshot.errors.total()} errors" if snapshot.errors else ""
            bar.set_postfix_str(", ".join(filter(None, [redact(waiting), failed])))
            bar.update(snapshot.done - bar.n)
