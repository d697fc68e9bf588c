"""Stopping: what SIGTERM, Ctrl-C and a hang-up do to a run, from its first second to its last."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from job.cluster.submission import WAIT_VARIABLE, seconds_to_stop
from job.console import say
from job.errors import StoppedError, causes

TOLD = "told to stop; what is committed stays, the same command goes on"

# Seconds to leave in order (last receipt, lock, Ray), after which the process ends outright.
_LEAVING = 10.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopSignal:
    """Whether somebody has told the run to stop.

    A run that is at work when the first SIGTERM comes stops beginning new images; one that is
    still starting up, one that takes too long to finish, and any on Ctrl-C ends at once: by a
    StoppedError in the main thread, which leaves every context in order.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._is_at_work = False
        self._holds_nothing = False
        self._has_let_go = False
        self._grace_ends = 0.0
        self._stderr = 2
        self._ending = threading.Lock()
        self._releases: list[Callable[[], None]] = []

    @property
    def was_given(self) -> bool:
        return self._asked.is_set()

    def install(self) -> None:
        """Answer signals from now on; only the main thread may call this.

        A signal that is ignored (``nohup``, a shell's background) stays so.
        """
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    def take_charge(self) -> None:
        """Answer signals in a process that is this program's own, whatever its main thread does.

        The main thread may be in code that never comes back or swallows the StoppedError, as Ray's
        does at places: a thread tries again, and ends the process outright when nothing helps.
        Until :meth:`hold`, there is nothing to leave in order, and it ends outright at once.
        """
        # Ray's start has standard error elsewhere for a while; the last line has to reach it.
        with contextlib.suppress(OSError):
            self._stderr = os.dup(2)
        self._holds_nothing = True
        told, tell = os.pipe()
        os.set_blocking(tell, False)
        signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(told,), daemon=True, name="signals").start()
        self.install()

    def hold(self) -> None:
        """From now on there are contexts that have to be left in order."""
        self._holds_nothing = False

    def let_go(self) -> None:
        """The last word is said, and the process about to end: signals change nothing any more."""
        self._has_let_go = True
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) == self._on_signal:
                    signal.signal(number, signal.SIG_IGN)

    def releasing(self, release: Callable[[], None]) -> None:
        """Have this called as well when the process ends outright."""
        self._releases.append(release)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._holds_nothing:
            self._end_outright()
            return
        is_first = not self.was_given
        self._asked.set()
        waits = self._is_at_work and is_first and number != signal.SIGINT
        if not waits and not _is_leaving():
            raise StoppedError(TOLD)

    @contextmanager
    def finishing(self, begin_nothing_new: Callable[[], None], grace: float) -> Iterator[None]:
        """Within the context, a SIGTERM lets what is in flight come to its end.

        Args:
            begin_nothing_new: called once, in a thread, when the signal comes.
            grace: seconds from then on, after which the context is left by a StoppedError. Fewer
                in a submitted job that Ray would kill before.
        """
        wanted, grace = grace, grace_before_kill(grace)
        done = threading.Event()

        def wait_for_the_end() -> None:
            while not self._asked.wait(0.2):
                if done.is_set():
                    return
            self._grace_ends = time.monotonic() + grace
            # In a thread of its own: it writes to storage, which may take longer than the grace.
            threading.Thread(target=begin_nothing_new, daemon=True, name="stop").start()
            if grace < wanted:
                say(
                    f"Ray kills this job {seconds_to_stop():g} s after it was told to stop:"
                    f" {grace:g} s are for the images in flight. {WAIT_VARIABLE} in the runtime"
                    " environment makes it more"
                )
            if not done.wait(grace):
                os.kill(os.getpid(), signal.SIGTERM)  # the second one ends the main thread's work

        thread = threading.Thread(target=wait_for_the_end, daemon=True, name="stopping")
        thread.start()
        self._is_at_work = True
        try:
            yield
        except BaseException as error:
            # Ray makes a KeyboardInterrupt of it in its C++, and wraps it at other places.
            known = isinstance(error, KeyboardInterrupt) or any(
                isinstance(behind, StoppedError) for behind in causes(error)
            )
            if not (self.was_given and known):
                raise
            raise StoppedError(TOLD) from None
        finally:
            self._is_at_work = False
            done.set()
            thread.join()
        if self.was_given:
            raise StoppedError("told to stop; what was in flight is finished and committed")

    def _watch(self, told: int) -> None:
        """See to it that the process ends once a signal has come, in a thread of its own."""
        while not any(number in _SIGNALS for number in os.read(told, 64)):
            continue
        began = time.monotonic()
        if self._holds_nothing:
            self._end_outright()
            return
        self._asked.wait(1)  # by the handler; a main thread that is stuck in C++ runs none
        self._asked.set()
        while self._is_at_work and time.monotonic() < max(self._grace_ends, began + 1):
            time.sleep(0.1)
        wait = seconds_to_stop()
        limit = time.monotonic() + _LEAVING if wait is None else began + wait - 0.3
        while time.monotonic() < limit:
            time.sleep(0.5)
            if not self._has_let_go:  # Ray's shutdown puts back the system's handler
                os.kill(os.getpid(), signal.SIGTERM)  # ignored by a main thread that is leaving
        self._end_outright()

    def _end_outright(self) -> None:
        if not self._ending.acquire(blocking=False):
            return  # the other thread is at it
        for release in self._releases:
            # It may wait for storage that does not answer.
            thread = threading.Thread(target=release, daemon=True, name="release")
            thread.start()
            thread.join(0.2 if seconds_to_stop() else 2)
        if not self._has_let_go:
            with contextlib.suppress(OSError):
                os.write(self._stderr, f"stopped: {TOLD}\n".encode())
        os._exit(StoppedError.exit_code)


def grace_before_kill(grace: float) -> float:
    """Seconds to finish what is in flight: no more than Ray gives a submitted job.

    A third of what Ray waits, from two to ten seconds, is for the last receipt and the lock.
    """
    wait = seconds_to_stop()
    return grace if wait is None else max(0.0, min(grace, wait - min(max(2.0, wait / 3), _LEAVING)))


def _is_leaving() -> bool:
    """Whether the main thread is on its way out already, in somebody's ``finally``."""
    error = sys.exc_info()[1]
    while error is not None:
        if isinstance(error, StoppedError | KeyboardInterrupt | SystemExit):
            return True
        error = error.__context__
    return False
