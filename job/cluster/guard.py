"""Guard: an image that kills or holds up the process working on it costs a row, not the run.

A process that dies takes its task along, and Ray starts the task again. The run's tracker remembers
which images were begun and never ended; those are then done one at a time, and an image that takes
a process down alone, again, is given up. A stage that hangs is ended by ending its process.
"""

import faulthandler
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import ray

from job.cluster.tracker import Tracker
from job.errors import ImageError
from job.wording import counted

T = TypeVar("T")

# Deaths of a process with this image as its only one, after which the image is to blame. The first
# may be a coincidence: a lost node, the kernel short of memory.
DEATHS = 2
# What Ray may start again of one task: more than every image of it could use up.
TASK_RETRIES = 256


_LOOK_EVERY = 0.2  # seconds
_LAST_RESORT = 5.0  # seconds after a timeout that has not been noticed


class _Company:
    """Who works in this process: several threads together, or one alone.

    A process that dies while an image is worked on alone is blamed on that image, so no other
    thread may be at work then.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._together = 0
        self._is_alone = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Work beside others, when nobody is alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_alone)
            self._together += 1
        try:
            yield
        finally:
            with self._changed:
                self._together -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Work when all others have ended; they wait."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_alone)
            self._is_alone = True
            self._changed.wait_for(lambda: not self._together)
        try:
            yield
        finally:
            with self._changed:
                self._is_alone = False
                self._changed.notify_all()


_company = _Company()


class StoppingError(Exception):
    """The run is coming to an end: begin nothing new."""


class Guard:
    """Looks after one stage in a worker.

    Args:
        stage: its name, as error rows have it.
        tracker: handle of the run's :class:`job.cluster.tracker.RunTracker`; None guards nothing.
        timeout: seconds that one image, or one batch of them, may take.
        asks: how many times to wait for the tracker's answer; None for always. In an actor only a
            process that has just started can meet what another has died on.
        stops: whether nothing new begins here once the run is coming to an end.
    """

    def __init__(
        self,
        stage: str,
        tracker: Tracker | None = None,
        timeout: float = 300.0,
        *,
        asks: int | None = None,
        stops: bool = False,
    ) -> None:
        self._stage = stage
        self._tracker = tracker
        self._timeout = timeout
        self._asks = asks
        self._asked = 0
        self._stops = stops

    def arrive(self) -> None:
        """Tell the tracker that this worker has found a place, whatever comes of it."""
        if self._tracker is not None:
            self._tracker.arrive.remote(ray.get_runtime_context().get_actor_id() or "driver")

    def over(
        self, ids: Sequence[int], work: Callable[[Sequence[int]], Sequence[T]]
    ) -> list[T | ImageError]:
        """Work on images; after a death, on one at a time.

        Args:
            ids: of the images.
            work: takes positions in ``ids`` and returns as many outcomes.

        Returns:
            The outcomes in order, or why an image was given up.

        Raises:
            StoppingError: the run is coming to an end.
        """
        everything = range(len(ids))
        tracker = self._tracker
        if tracker is None:
            return list(work(everything))
        before, hung = self._begin(tracker, ids)
        if not before and not hung:
            with _company.shared():
                outcomes: list[T | ImageError] = list(work(everything))
        else:
            outcomes = [
                self._late()
                if ids[position] in hung
                else self._alone(tracker, ids[position], position, work)
                for position in everything
            ]
        tracker.end.remote(self._stage, list(ids))
        return outcomes

    def _alone(
        self,
        tracker: Tracker,
        number: int,
        position: int,
        work: Callable[[Sequence[int]], Sequence[T]],
    ) -> T | ImageError:
        alone = f"{self._stage} alone"
        with _company.alone():
            before, _, _ = ray.get(tracker.begin.remote(alone, [number]))
            if before >= DEATHS:
                # Not ended: the next image may kill this task, and then this is not tried again.
                return ImageError(
                    "crashed", f"the process working on it died, {counted(before, 'time')}"
                )
            (outcome,) = work([position])
            tracker.end.remote(alone, [number])
            return outcome

    def _late(self) -> ImageError:
        message = f"took longer than {self._timeout:g} s; raise --image-timeout if that is expected"
        return ImageError("timed_out", message, retryable=True)

    def _begin(self, tracker: Tracker, ids: Sequence[int]) -> tuple[int, list[int]]:
        answer = tracker.begin.remote(self._stage, list(ids))
        self._asked += 1
        if self._asks is not None and self._asked > self._asks:
            return 0, []
        before, hung, stopping = ray.get(answer)
        if stopping and self._stops:
            tracker.end.remote(self._stage, list(ids))
            raise StoppingError
        return before, hung

    @contextmanager
    def watching(self, ids: Sequence[int], name: str) -> Iterator[None]:
        """Within the context, the process is ended if it takes longer than the timeout.

        Args:
            ids: of the images that are worked on.
            name: how to call them to a person.
        """
        if self._tracker is None:
            yield
            return
        watch = _Watch(time.monotonic() + self._timeout, self, list(ids), name)
        _watchdog.add(watch)
        try:
            yield
        finally:
            _watchdog.remove(watch)

    def give_up(self, ids: Sequence[int], name: str) -> None:
        """Tell the tracker which images hold up this stage, and end this process."""
        text = f"{self._stage} of {name} took longer than {self._timeout:g} s: given up"
        try:
            if self._tracker is not None:
                hang = self._tracker.hang.remote(self._stage, list(ids))
                ray.get([hang, self._tracker.note.remote(text)])
        finally:
            faulthandler.dump_traceback()
            os._exit(70)


@dataclass(eq=False)
class _Watch:
    deadline: float
    guard: Guard
    ids: list[int]
    name: str


class _Watchdog:
    """One thread per process that looks at what is being worked on."""

    def __init__(self) -> None:
        self._watches: list[_Watch] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, watch: _Watch) -> None:
        with self._lock:
            self._watches.append(watch)
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, daemon=True, name="watchdog")
                self._thread.start()

    def remove(self, watch: _Watch) -> None:
        with self._lock:
            self._watches.remove(watch)

    def _look(self) -> None:
        while True:
            time.sleep(_LOOK_EVERY)
            now = time.monotonic()
            with self._lock:
                deadlines = [watch.deadline for watch in self._watches]
                late = next((watch for watch in self._watches if watch.deadline < now), None)
            if deadlines:
                # Code that never lets go of the interpreter stops this thread as well; the timer
                # is none of the interpreter's. It says nothing to the tracker: the process crashed.
                faulthandler.dump_traceback_later(max(deadlines) - now + _LAST_RESORT, exit=True)
            else:
                faulthandler.cancel_dump_traceback_later()
            if late is not None:
                late.guard.give_up(late.ids, late.name)


_watchdog = _Watchdog()
