"""Tracker: what all workers of a run have done so far, added up by an actor beside the driver."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import ParamSpec, Protocol, TypeVar, cast

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from job.cluster.ledger import Ledger
from job.cluster.outage import Outage, Verdict
from job.rows import Fault

P = ParamSpec("P")
R = TypeVar("R")


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


class RemoteMethod(Protocol[P, R]):
    """A method of an actor, which answers later."""

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> "ray.ObjectRef[R]":
        """Call it, without waiting."""


class Tracker(Protocol):
    """A handle of the run's :class:`RunTracker`, as the driver and its workers hold it."""

    arrive: RemoteMethod[[str], None]
    begin: RemoteMethod[[str, list[int]], tuple[int, list[int], bool]]
    end: RemoteMethod[[str, list[int]], None]
    hang: RemoteMethod[[str, list[int]], None]
    stop: RemoteMethod[[], None]
    read: RemoteMethod[[str, list[int], dict[int, Fault]], None]
    outage: RemoteMethod[[], Verdict | None]
    note: RemoteMethod[[str], None]
    add: RemoteMethod[[dict[str, float], dict[str, int], int], None]
    commit: RemoteMethod[[int, dict[str, int]], None]
    snapshot: RemoteMethod[[], Snapshot]


class RunTracker:
    """Adds up what workers report; an actor for as long as the run, see :func:`start_tracker`."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._commits = 0
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
        """See :meth:`job.cluster.ledger.Ledger.begin`; and whether the run is coming to an end."""
        self._begun = True
        return *self._ledger.begin(stage, ids), self._stopping or self._outage.ends_run

    def end(self, stage: str, ids: list[int]) -> None:
        """See :meth:`job.cluster.ledger.Ledger.end`."""
        self._ledger.end(stage, ids)

    def hang(self, stage: str, ids: list[int]) -> None:
        """See :meth:`job.cluster.ledger.Ledger.hang`."""
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

    def add(self, seconds: dict[str, float], images: dict[str, int], retries: int) -> None:
        """Count time and images to stages, and requests to storage that were made again."""
        now = time.monotonic()
        for stage, spent in seconds.items():
            first = self._spans.get(stage, (now - spent, now))[0]
            self._spans[stage] = (min(first, now - spent), now)
        self._seconds.update(seconds)
        self._images.update(images)
        self._retries += retries

    def commit(self, maps: int, errors: dict[str, int]) -> None:
        """Be told how many maps, and errors of each kind, are committed by now."""
        self._last = time.monotonic() - self._started
        self._maps, self._errors = maps, Counter(errors)
        if self._first is None:
            self._first = self._last, self._maps + self._errors.total()
        self._commits += 1

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
            if self._commits > 1:
                between = max(self._last - total.first_map, 1e-9)
                total.steady = (total.done - total.at_first) / between
        return total


def start_tracker() -> Tracker:
    """A tracker on the driver's own machine, so that losing a worker node does not lose it.

    A soft affinity would not do: Ray keeps even actors without CPUs off a head that has none.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0)(RunTracker).options(scheduling_strategy=here)
    return cast(Tracker, actor.remote())


def ask(tracker: Tracker) -> Snapshot:
    """What a run has done by now.

    Raises:
        RayError: the tracker does not answer.
    """
    return ray.get(tracker.snapshot.remote(), timeout=10)
