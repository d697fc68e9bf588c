"""Outage ending: a run that storage keeps from its images ends, in a sentence."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray

from job.cluster.outage import GRACE, Verdict
from job.cluster.tracker import Tracker
from job.errors import StorageError


def this_node() -> str:
    """The node that this process is on, as messages name it."""
    node = ray.get_runtime_context().get_node_id()
    return f"{ray.util.get_node_ip_address()} ({node[:8]})"


@contextmanager
def ending_on_outage(tracker: Tracker, is_stopped: Callable[[], bool]) -> Iterator[None]:
    """Around the work of a run: it is no success when images could not be read.

    Args:
        tracker: handle of the run's :class:`job.cluster.tracker.RunTracker`.
        is_stopped: whether somebody has told the run to stop, which it then says instead.

    Raises:
        StorageError: why, and what to do.
    """
    try:
        yield
    except Exception as error:
        verdict = _verdict(tracker)
        if verdict is None or not verdict.ends_run:
            raise
        raise StorageError(verdict.sentence) from error
    verdict = _verdict(tracker)
    if verdict is not None and (verdict.ends_run or not is_stopped()):
        raise StorageError(verdict.sentence)


def end_if_due(tracker: Tracker) -> None:
    """In a worker of a run that begins nothing new: end it at once when its time is over.

    Raises:
        StorageError: an outage ends the run, and what was in flight has had its time.
    """
    verdict = ray.get(tracker.outage.remote())
    if verdict is not None and verdict.ends_run and verdict.seconds > GRACE:
        raise StorageError(verdict.sentence)


def _verdict(tracker: Tracker) -> Verdict | None:
    try:
        return ray.get(tracker.outage.remote(), timeout=30)
    except (ray.exceptions.RayError, TimeoutError):
        return None  # Ray itself is gone, and says so
