"""Guard: an image that kills or holds up the process working on it costs a row, not the run.

A process that dies takes its task along, and Ray starts the task again. The run's tracker remembers
which images were begun and never ended; those are then done one at a time, and an image that takes
a process down alone, again, is given up. A stage that hangs is ended by ending its process.
"""

import faulthandler
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import ray

from job.cluster import watchdog
from job.cluster.shared_lock import SharedLock
from job.cluster.tracker import Tracker
from job.errors import ImageError
from job.wording import counted

T = TypeVar("T")

# Deaths of a process with this image as its only one, after which the image is to blame. The first
# may be a coincidence: a lost node, the kernel short of memory.
DEATHS = 2
# What Ray may start again of one task: more than every image of it could use up.
TASK_RETRIES = 256

# A process that dies while an image is worked on alone is blamed on that image, so no other thread
# may be at work then.
_at_work = SharedLock()


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
            with _at_work.shared():
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
        with _at_work.exclusive():
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
        with watchdog.watching(self._timeout, lambda: self.give_up(list(ids), name)):
            yield

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
