"""Stopping: the first SIGTERM lets a run finish what is in flight, the second does not."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from subprocess import PIPE

import pytest

from job.cluster.stopping import StopSignal, grace_before_kill
from job.errors import StoppedError

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture
def stop() -> Iterator[StopSignal]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
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


@pytest.mark.parametrize(
    ("code", "within", "says"),
    [
        (RUN + LOOP.format(caught="KeyError"), 5, []),
        (RUN + STUCK, 5, []),
        (RUN + HOLD + LOOP.format(caught="Exception"), 20, ["swallowed", "released"]),
        (RUN + HOLD + STUCK, 20, ["released"]),
    ],
    ids=["nothing is held", "nothing is held, stuck", "swallowing", "stuck"],
)
def test_a_process_ends_whatever_its_main_thread_does(
    code: str, within: float, says: list[str]
) -> None:
    words = [sys.executable, "-c", code]
    # One process for each signal, all at once: they only wait.
    with ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen(words, stdout=PIPE, stderr=PIPE, text=True))
            for _ in SIGNALS
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)  # to get into what they are stuck in
        started = time.monotonic()
        for process, number in zip(processes, SIGNALS, strict=True):
            process.send_signal(number)
        for process, number in zip(processes, SIGNALS, strict=True):
            out, err = process.communicate(timeout=60)
            assert process.returncode == 130, (number, err)
            assert (
                err == "stopped: told to stop; what is committed stays, the same command goes on\n"
            ), number
            assert time.monotonic() - started < within, number
            assert [word for word in ("swallowed", "released") if word in out] == says, number
