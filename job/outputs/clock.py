"""Clock: the time by which a run holds its OUTPUT; a simulation has one of its own."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

# Seconds that a turn which is going on has to end.
_TO_END = 2.0


class Ticking(Protocol):
    """Something done again and again until it is stopped."""

    def stop(self) -> None:
        """Do it no more; a turn that is going on has a little time to come to its end."""


class Clock:
    """The clock of this machine."""

    def now(self) -> float:
        """Seconds since some moment; never set back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def every(self, seconds: float, action: Callable[[], object], name: str) -> Ticking:
        """Do something every so many seconds from now on, in threads.

        A turn that takes longer does not keep the next from its time, up to three of them.

        Args:
            seconds: from turn to turn.
            action: raises nothing.
            name: of the threads.
        """
        return _Turns(seconds, action, name)


class _Turns:
    _AT_ONCE = 3

    def __init__(self, seconds: float, action: Callable[[], object], name: str) -> None:
        self._seconds = seconds
        self._action = action
        self._name = name
        self._stop = threading.Event()
        self._going_on: list[threading.Thread] = []
        self._thread = self._start(self._run)

    def _start(self, target: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=target, daemon=True, name=self._name)
        thread.start()
        return thread

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            self._going_on = [turn for turn in self._going_on if turn.is_alive()]
            if len(self._going_on) < self._AT_ONCE:
                self._going_on.append(self._start(self._action))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        for turn in self._going_on:
            turn.join(_TO_END)
