"""OutputLock: one writer at a time, and a dead one gives way; other processes are real ones."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from job.errors import OutputConflictError, StoppedError, StorageError
from job.outputs.lock import OutputLock, is_held
from job.storage.location import Location
from job.storage.opening import locate

HOLD = """
import sys, time
from job.outputs.lock import OutputLock
from job.storage.opening import locate
with OutputLock(locate(sys.argv[1]), "theirs", beat_seconds=0.1):
    print("held", flush=True)
    time.sleep(120)
"""


@contextmanager
def other_process(output: Location) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until the context ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, output.uri], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


def record(output: Location) -> dict[str, Any]:
    return json.loads((output / "lock.json").read_bytes())


def elsewhere(output: Location, beat: int = 0) -> None:
    """Write the record of a run on another machine."""
    holder = {
        "run_id": "theirs",
        "host": "another-machine",
        "pid": 1,
        "process": "boot:1:1",
        "since": "2026-11-22T10:00:00Z",
        "beat": beat,
    }
    (output / "lock.json").write_bytes(json.dumps(holder).encode())


def test_the_lease_is_there_within_the_context_and_gone_after(output: Location) -> None:
    with OutputLock(output, "ours"):
        assert is_held(output, "ours")
        assert not is_held(output, "theirs")
        assert record(output)["pid"] == os.getpid()
    assert not is_held(output, "ours")
    assert output.names() == []


def test_the_lease_is_given_back_when_the_run_fails(output: Location) -> None:
    with pytest.raises(KeyError), OutputLock(output, "ours"):
        raise KeyError
    assert output.names() == []


def test_storage_that_fails_at_the_end_hides_no_other_error(
    output: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(place: Location) -> bytes:
        raise PermissionError(place.path)

    def run() -> None:
        with OutputLock(output, "run-1"):
            monkeypatch.setattr(Location, "read_bytes", refuse)
            raise StorageError("the reason")

    with pytest.raises(StorageError, match="the reason"):
        run()


def test_a_second_holder_is_refused_and_told_who_and_since_when(output: Location) -> None:
    with OutputLock(output, "first"):
        since = record(output)["since"]
        pattern = rf"written by run first on .* \(process {os.getpid()}\) since {since}"
        with pytest.raises(OutputConflictError, match=pattern), OutputLock(output, "second"):
            pass
        assert is_held(output, "first")
    with OutputLock(output, "second"):
        assert is_held(output, "second")


def test_a_run_of_another_process_is_refused_while_it_lives(output: Location) -> None:
    with other_process(output) as process:
        with (
            pytest.raises(OutputConflictError, match=f"process {process.pid}"),
            OutputLock(output, "a"),
        ):
            pass
        assert is_held(output, "theirs")


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_holder_whose_process_is_gone_is_taken_over_at_once(
    output: Location, end: signal.Signals
) -> None:
    with other_process(output) as process:
        process.send_signal(end)
        process.wait()
        assert is_held(output, "theirs"), "nobody cleaned up"
        started = time.monotonic()
        with OutputLock(output, "ours", beat_seconds=0.1):
            assert time.monotonic() - started < 1
            assert is_held(output, "ours")


def test_a_holder_whose_number_another_process_has_by_now_is_dead(output: Location) -> None:
    with OutputLock(output, "theirs"):
        holder = record(output)
    holder["process"] = holder["process"] + "0"
    (output / "lock.json").write_bytes(json.dumps(holder).encode())
    with OutputLock(output, "ours", beat_seconds=0.1):
        assert is_held(output, "ours")


def test_a_killed_holder_that_its_parent_has_not_yet_reaped_is_dead(output: Location) -> None:
    with other_process(output) as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with OutputLock(output, "ours", beat_seconds=0.1):
            assert is_held(output, "ours")


def test_a_holder_elsewhere_that_beats_is_alive(output: Location) -> None:
    elsewhere(output)
    stop = threading.Event()

    def beat() -> None:
        number = 0
        while not stop.wait(0.05):
            number += 1
            elsewhere(output, number)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with (
            pytest.raises(OutputConflictError, match="run theirs on another-machine"),
            OutputLock(output, "ours", beat_seconds=0.1),
        ):
            pass
    finally:
        stop.set()
        thread.join()


def test_a_holder_elsewhere_that_does_not_beat_is_dead(output: Location) -> None:
    elsewhere(output)
    started = time.monotonic()
    with OutputLock(output, "ours", beat_seconds=0.1):
        assert time.monotonic() - started >= 0.3, "it was given time to beat"
        assert is_held(output, "ours")


def test_a_holder_elsewhere_that_ends_while_it_is_watched_gives_way(output: Location) -> None:
    elsewhere(output)
    threading.Timer(0.1, (output / "lock.json").delete).start()
    with OutputLock(output, "ours", beat_seconds=0.4):
        assert is_held(output, "ours")


def test_the_holder_renews_its_lock(output: Location) -> None:
    with OutputLock(output, "ours", beat_seconds=0.05):
        deadline = time.monotonic() + 5
        while record(output)["beat"] < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert record(output)["beat"] >= 3


def test_a_lock_that_was_taken_over_is_neither_renewed_nor_deleted(output: Location) -> None:
    with OutputLock(output, "ours", beat_seconds=0.05):
        elsewhere(output, beat=7)
        time.sleep(0.3)
        assert is_held(output, "theirs")
    assert is_held(output, "theirs")
    assert record(output)["beat"] == 7


@pytest.mark.parametrize("content", [b"", b"not json", b"[1]", b"null", b"{}"])
def test_a_record_that_makes_no_sense_does_not_block_the_output(
    output: Location, content: bytes
) -> None:
    (output / "lock.json").write_bytes(content)
    assert not is_held(output, "ours")
    with OutputLock(output, "ours", beat_seconds=0.05):
        assert is_held(output, "ours")


@pytest.mark.parametrize("name", ["file", "file/out"])
def test_an_output_that_cannot_be_written_is_a_storage_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("no folder")
    with (
        pytest.raises(StorageError, match="cannot be written"),
        OutputLock(locate(str(tmp_path / name)), "ours"),
    ):
        pass


def test_an_endpoint_that_does_not_answer_is_a_storage_error() -> None:
    options = {
        "endpoint_url": "http://127.0.0.1:1",
        "key": "k",
        "secret": "s",
        "config_kwargs": {"retries": {"max_attempts": 1}},
    }
    with (
        pytest.raises(StorageError, match="does not answer"),
        OutputLock(locate("s3://bucket/out", options), "ours", beat_seconds=0.05),
    ):
        pass


def other_container(output: Location) -> list[str]:
    """The command line of another process that holds the lock, where it sees only its own."""
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if shutil.which("unshare") is None or os.geteuid():
        pytest.skip("needs root and unshare (util-linux), to make a PID namespace")
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let PID namespaces be made")
    return [*unshare, sys.executable, "-c", HOLD, output.uri]


def test_a_holder_in_another_container_of_this_machine_is_judged_by_its_beats(
    output: Location,
) -> None:
    with subprocess.Popen(other_container(output), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            holder = record(output)
            assert holder["host"] == socket.gethostname(), "the same name"
            assert holder["pid"] < 10, "a number of its own"
            with (
                pytest.raises(OutputConflictError, match="written by run theirs"),
                OutputLock(output, "ours", beat_seconds=1),
            ):
                pass
            assert is_held(output, "theirs")
        finally:
            process.kill()
    started = time.monotonic()
    with OutputLock(output, "ours", beat_seconds=0.2):
        assert time.monotonic() - started >= 0.6, "it was given time to beat"


def test_a_run_in_a_container_does_not_take_over_the_live_lock_of_one_outside(
    output: Location,
) -> None:
    words = other_container(output)
    with OutputLock(output, "ours", beat_seconds=0.05):
        finished = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert "OutputConflictError" in finished.stderr
        assert is_held(output, "ours")


@pytest.mark.parametrize("differs", ["process", "namespace"])
def test_the_name_of_a_host_says_nothing_about_a_process(output: Location, differs: str) -> None:
    with OutputLock(output, "theirs"):
        holder = record(output)
    holder["pid"] = 2**22 + 1  # no such process here
    holder["process"] = f"another-boot:{holder['pid']}:1" if differs == "process" else "x"
    if differs == "namespace":
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        holder |= {"process": f"{boot}:{holder['pid']}:1", "namespace": "pid:[1]"}
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.05):
            holder["beat"] += 1
            (output / "lock.json").write_bytes(json.dumps(holder).encode())

    (output / "lock.json").write_bytes(json.dumps(holder).encode())
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with (
            pytest.raises(OutputConflictError, match="written by run theirs"),
            OutputLock(output, "ours", beat_seconds=0.2),
        ):
            pass
    finally:
        stop.set()
        thread.join()


def test_a_lock_can_be_given_back_early_and_only_once(output: Location) -> None:
    with OutputLock(output, "first") as lock:
        lock.release()
        assert not is_held(output, "first")
        with OutputLock(output, "second"):
            lock.release()
            assert is_held(output, "second"), "what is another's by now is left alone"


def test_a_run_that_is_stopped_while_it_takes_the_lease_leaves_none(
    output: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(output)  # one that is dead: taking over waits a moment, to see whether others do

    def stop(seconds: float) -> None:
        if is_held(output, "ours"):
            raise StoppedError("told to stop")

    monkeypatch.setattr(time, "sleep", stop)
    with pytest.raises(StoppedError), OutputLock(output, "ours", beat_seconds=0.01):
        pass
    assert output.names() == []
