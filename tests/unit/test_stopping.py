"""Stopping: the first SIGTERM lets a run finish what is in flight, the second does not."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from job.cluster.stopping import StopSignal, grace_before_kill
from job.errors import StoppedError

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture
def stop() -> Iterator[StopSignal]:
    # As a terminal starts it: what a shell's background ignores would stay ignored.
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    found = StopSignal()
    found.install()
    yield found
    for number, handler in before.items():
        signal.signal(number, handler)


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


def test_ctrl_c_does_not_wait_for_what_is_in_flight(stop: StopSignal) -> None:
    def work() -> None:
        with stop.finishing(lambda: None, grace=60):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(30)

    started = time.monotonic()
    with pytest.raises(StoppedError, match="the same command goes on"):
        work()
    assert time.monotonic() - started < 15


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        StopSignal().install()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_does_not_disturb_what_leaves_already(stop: StopSignal) -> None:
    left = []

    def work() -> None:
        try:
            terminate()
        finally:
            terminate()
            left.append("in order")

    with pytest.raises(StoppedError):
        work()
    assert left == ["in order"]


@pytest.mark.parametrize(("wait", "grace"), [(None, 1.0), ("3", 1.0), ("60", 20.0), ("x", 1.0)])
def test_a_submitted_job_is_done_before_ray_kills_it(
    stop: StopSignal, monkeypatch: pytest.MonkeyPatch, wait: str | None, grace: float
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.delenv("RAY_JOB_STOP_WAIT_TIME_S", raising=False)
    if wait is not None:
        monkeypatch.setenv("RAY_JOB_STOP_WAIT_TIME_S", wait)
    assert grace_before_kill(20.0) == grace
    assert grace_before_kill(0.5) == 0.5


# In a process of its own

RUN = """
import os, signal, sys, time
from job.cluster.stopping import StopSignal, grace_before_kill
# As a terminal starts it: what a shell's background ignores stays ignored.
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
stop = StopSignal()
stop.take_charge()
"""
HOLD = """
stop.hold()
stop.releasing(lambda: print("released", flush=True))
"""
LOOP = """
print("ready", flush=True)
while True:
    try:
        time.sleep(60)
    except {caught}:
        print("swallowed", flush=True)
"""
# Blocks in C and takes no notice of signals, as a client of Ray's may: no handler is run.
STUCK = """
import ctypes
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
print("ready", flush=True)
while True:
    ctypes.CDLL(None).sleep(60)
"""


@dataclass(frozen=True)
class Ended:
    """How a process ended that was sent a signal, and how many seconds after it."""

    exit_code: int
    out: str
    err: str
    seconds: float


CODES = {
    "nothing is held": RUN + LOOP.format(caught="KeyError"),
    "nothing is held, stuck": RUN + STUCK,
    "swallowing": RUN + HOLD + LOOP.format(caught="Exception"),
    "stuck": RUN + HOLD + STUCK,
}


def end(code: str, number: signal.Signals) -> Ended:
    """Run such a process, and tell it to stop."""
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ran:
        assert ran.stdout is not None
        assert ran.stdout.readline() == "ready\n"
        time.sleep(0.5)  # to get into what it is stuck in
        started = time.monotonic()
        ran.send_signal(number)
        try:
            out, err = ran.communicate(timeout=60)
        finally:
            ran.kill()
    return Ended(ran.returncode, out, err, time.monotonic() - started)


@pytest.fixture(scope="module")
def ended() -> dict[tuple[str, signal.Signals], Ended]:
    """How each code ends at each signal: all at once, for they only wait."""
    cases = [(name, number) for name in CODES for number in SIGNALS]
    with ThreadPoolExecutor(len(cases)) as threads:
        found = threads.map(lambda case: end(CODES[case[0]], case[1]), cases)
        return dict(zip(cases, found, strict=True))


@pytest.mark.parametrize(
    ("name", "within", "says"),
    [
        ("nothing is held", 5, []),
        ("nothing is held, stuck", 5, []),
        ("swallowing", 20, ["swallowed", "released"]),
        ("stuck", 20, ["released"]),
    ],
)
@pytest.mark.parametrize("number", SIGNALS)
def test_a_process_ends_whatever_its_main_thread_does(
    ended: dict[tuple[str, signal.Signals], Ended],
    name: str,
    within: float,
    says: list[str],
    number: signal.Signals,
) -> None:
    found = ended[name, number]
    assert found.exit_code == 130, found.err
    assert found.err == "stopped: told to stop; what is committed stays, the same command goes on\n"
    assert found.seconds < within
    assert [word for word in ("swallowed", "released") if word in found.out] == says
