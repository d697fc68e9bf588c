"""Clock: the time by which a run holds its OUTPUT; a simulation has one of its own."""

import threading
import time
from collections.abc import Callable
from typing import Protocol


class Ticking(Protocol):
    """Something done again and again until it is stopped."""

    def stop(self) -> None:
        """Do it no more; returns when a turn that is going on has come to its end."""


class Clock:
    """The clock of this machine."""

    def now(self) -> float:
        """Seconds since some moment; never set back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def every(self, seconds: float, action: Callable[[], object], name: str) -> Ticking:
        """Do something every so many seconds from now on, in a thread.

        Args:
            seconds: between the end of a turn and the next.
            action: raises nothing.
            name: of the thread.
        """
        return _Thread(seconds, action, name)


class _Thread:
    def __init__(self, seconds: float, action: Callable[[], object], name: str) -> None:
        self._seconds = seconds
        self._action = action
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name=name)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            self._action()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join()
