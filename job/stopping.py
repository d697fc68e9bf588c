"""Stopping: what SIGTERM does to a run: finish what is in flight, commit it, then end."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from job.errors import StoppedError


class StopSignal:
    """Whether somebody has told the run to stop.

    A run that is at work when the first SIGTERM comes stops beginning new images; one that is
    still starting up, and one that takes too long to finish, ends at once.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._is_at_work = False

    @property
    def was_given(self) -> bool:
        return self._asked.is_set()

    def install(self) -> None:
        """Answer SIGTERM from now on; only the main thread may call this."""
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        if self._is_at_work and not self.was_given:
            self._asked.set()
            return
        self._asked.set()
        raise StoppedError("told to stop; what is committed stays, the same command goes on")

    @contextmanager
    def finishing(self, begin_nothing_new: Callable[[], None], grace: float) -> Iterator[None]:
        """Within the context, a SIGTERM lets what is in flight come to its end.

        Args:
            begin_nothing_new: called once, in a thread, when the signal comes.
            grace: seconds from then on, after which the context is left by a StoppedError.
        """
        done = threading.Event()

        def wait() -> None:
            while not self._asked.wait(0.2):
                if done.is_set():
                    return
            # In a thread of its own: it writes to storage, which may take longer than the grace.
            threading.Thread(target=begin_nothing_new, daemon=True, name="stop").start()
            if not done.wait(grace):
                os.kill(os.getpid(), signal.SIGTERM)  # the second one ends the main thread's work

        thread = threading.Thread(target=wait, daemon=True, name="stopping")
        thread.start()
        self._is_at_work = True
        try:
            yield
        finally:
            self._is_at_work = False
            done.set()
            thread.join()
        if self.was_given:
            raise StoppedError("told to stop; what was in flight is finished and committed")
