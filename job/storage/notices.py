"""Notices: storage that keeps a person waiting is told about within seconds, and now and then.

A process says nothing until :func:`tell_with` has told it whom to tell: of what workers wait for,
the run's progress tells.
"""

import asyncio
import threading
import time
from collections.abc import Callable

# Seconds between two lines.
_AGAIN = 30.0
# An answer that has begun may be long: seconds until that is told.
_ARRIVING = 15.0
# A sender is not late that takes a second for so many bytes.
_UPLOAD = 1_000_000

_say: Callable[[str], None] | None = None
_soon = 4.0
_last = -_AGAIN
_telling = threading.Lock()


def tell_with(say: Callable[[str], None] | None, soon: float = 4.0) -> None:
    """Tell a person from now on.

    Args:
        say: is told each line; None to tell nobody.
        soon: seconds without an answer after which there is one.
    """
    global _say, _soon, _last
    with _telling:
        _say, _soon, _last = say, soon, -_AGAIN


def _tell(line: str) -> bool:
    """Say it, unless something was said a moment ago."""
    global _last
    with _telling:
        now = time.monotonic()
        if _say is None or now - _last < _AGAIN:
            return False
        _last = now
        _say(line)
        return True


class Watch:
    """Looks at one request of an event loop, with all its attempts.

    Args:
        place: names who is asked.
        attempts: how many there may be.
        size: bytes that are sent.
    """

    def __init__(self, place: Callable[[], str], attempts: int, size: int = 0) -> None:
        self._place = place
        self._attempts = attempts
        self._attempt = 1
        self._reason = ""
        self._has_told = False
        self._began = time.monotonic()
        self._answered: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        if _say is not None:
            self._look_in(_soon + size / _UPLOAD)

    def answered(self) -> None:
        """An answer has begun to come."""
        self._answered = time.monotonic()

    def failed(self, attempt: int, reason: str) -> None:
        """An attempt has failed, and another one follows."""
        self._attempt, self._reason, self._answered = attempt + 1, reason, None

    def over(self, *, well: bool) -> None:
        """The request has been answered, or given up."""
        if self._timer is not None:
            self._timer.cancel()
        if self._has_told and well and _say is not None:
            _say(f"{self._place()} answers")

    def _look_in(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        now = time.monotonic()
        if self._answered is not None and now - self._answered < _ARRIVING:
            self._look_in(self._answered + _ARRIVING - now)
            return
        reason = self._reason or "nothing came. Check the endpoint and the network"
        self._has_told |= _tell(
            f"retrying {self._place()}: no answer for {now - self._began:.0f} s, attempt"
            f" {self._attempt} of {self._attempts} (--storage-attempts, --storage-timeout):"
            f" {reason}"
        )
        self._look_in(_AGAIN)


class waiting_for:  # noqa: N801 - a context manager
    """Within the context, tells what is waited for unless it is soon over.

    Args:
        what: the place that does not answer.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._over = threading.Event()
        self._began = time.monotonic()

    def __enter__(self) -> "waiting_for":
        if _say is not None:
            threading.Thread(target=self._watch, name="waiting", daemon=True).start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.over()

    def over(self) -> None:
        """It has answered."""
        self._over.set()

    def _watch(self) -> None:
        # A second later than the client of S3, which knows more and so comes first.
        pause = _soon + 1
        while not self._over.wait(pause):
            _tell(f"{self._what}: nothing yet after {time.monotonic() - self._began:.0f} s")
            pause = _AGAIN
