"""Stopping: the first SIGTERM lets a run finish what is in flight, the second does not."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from job.errors import StoppedError
from job.stopping import StopSignal


@pytest.fixture
def stop() -> Iterator[StopSignal]:
    before = signal.getsignal(signal.SIGTERM)
    found = StopSignal()
    found.install()
    yield found
    signal.signal(signal.SIGTERM, before)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_before_the_work_begins_it_ends_at_once(stop: StopSignal) -> None:
    with pytest.raises(StoppedError, match="the same command goes on"):
        terminate()


def test_work_that_is_quick_comes_to_its_end(stop: StopSignal) -> None:
    told = threading.Event()
    finished = []

    def work() -> None:
        with stop.finishing(told.set, grace=30):
            terminate()
            assert told.wait(5), "the run is told to begin nothing new"
            finished.append("an image")

    with pytest.raises(StoppedError, match="finished and committed"):
        work()
    assert finished
    assert stop.was_given


def test_work_that_takes_too_long_is_left(stop: StopSignal) -> None:
    def work() -> None:
        with stop.finishing(lambda: None, grace=0.3):
            terminate()
            time.sleep(30)

    with pytest.raises(StoppedError, match="what is committed stays"):
        work()


def test_the_grace_begins_with_the_signal_however_slow_storage_is(stop: StopSignal) -> None:
    def work() -> None:
        with stop.finishing(lambda: time.sleep(30), grace=0.3):
            terminate()
            time.sleep(30)

    started = time.monotonic()
    with pytest.raises(StoppedError, match="what is committed stays"):
        work()
    assert time.monotonic() - started < 15


def test_a_second_signal_does_not_wait(stop: StopSignal) -> None:
    def work() -> None:
        with stop.finishing(lambda: None, grace=60):
            terminate()
            terminate()
            time.sleep(30)

    with pytest.raises(StoppedError, match="what is committed stays"):
        work()


def test_work_that_nobody_stops_is_left_alone(stop: StopSignal) -> None:
    with stop.finishing(lambda: pytest.fail("nobody told it to stop"), grace=1):
        pass
    assert not stop.was_given
