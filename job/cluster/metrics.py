"""Metrics: seconds and images per stage, added up over all workers of a run."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from job.storage.retries import take_retries

if TYPE_CHECKING:
    from job.cluster.tracker import Tracker


class StageTimer:
    """Times stages in a worker and reports to the run's tracker; cheap enough to be always on.

    Args:
        tracker: handle of the :class:`job.cluster.tracker.RunTracker` actor; None keeps the
            figures here.
    """

    def __init__(self, tracker: "Tracker | None" = None) -> None:
        self._tracker = tracker
        self._lock = threading.Lock()
        self.seconds: dict[str, float] = {}
        self.images: dict[str, int] = {}

    @contextmanager
    def stage(self, name: str, images: int = 1) -> Iterator[None]:
        """Count the time inside the context, and this many images, to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - started
            with self._lock:
                self.seconds[name] = self.seconds.get(name, 0.0) + elapsed
                self.images[name] = self.images.get(name, 0) + images

    def report(self) -> None:
        """Send what has been added up since the last report, without waiting."""
        if self._tracker is None:
            return
        with self._lock:
            seconds, self.seconds = self.seconds, {}
            images, self.images = self.images, {}
        self._tracker.add.remote(seconds, images, take_retries())

    def note(self, text: str) -> None:
        """Tell the person who watches the run something, once however many workers say it."""
        if self._tracker is not None:
            self._tracker.note.remote(text)

    def __getstate__(self) -> dict[str, Any]:
        return {"_tracker": self._tracker}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_tracker"])  # type: ignore[misc]
