"""Watchdog: work that takes too long is given up, whatever its own thread is stuck in."""

import faulthandler
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_LOOK_EVERY = 0.2  # seconds
_LAST_RESORT = 5.0  # seconds after a timeout that has not been noticed


@contextmanager
def watching(seconds: float, give_up: Callable[[], None]) -> Iterator[None]:
    """Within the context, something is called once it takes longer than it may.

    Args:
        seconds: that it may take.
        give_up: ends the process; called in a thread of its own. A process whose interpreter is
            stuck cannot call it, and is ended without.
    """
    watch = _Watch(time.monotonic() + seconds, give_up)
    _watchdog.add(watch)
    try:
        yield
    finally:
        _watchdog.remove(watch)


@dataclass(eq=False)
class _Watch:
    deadline: float
    give_up: Callable[[], None]


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
                late.give_up()


_watchdog = _Watchdog()
