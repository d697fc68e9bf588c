"""OutputClaim: one writer at a time, and a dead one gives way; other processes are real ones."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from job.errors import OutputConflictError, StoppedError, StorageError
from job.outputs import holders
from job.outputs.claims import MISSED_BEATS, OutputClaim, check_held
from job.outputs.commits import Commits
from job.storage.location import Location
from job.storage.opening import locate
from tests.runs import (
    Hands,
    Killed,
    Watched,
    attempt,
    expecting,
    overtaking,
    run,
    tree,
    watching,
)

HOLD = """
import sys, time
from job.outputs.claims import OutputClaim
from job.storage.opening import locate
with OutputClaim(locate(sys.argv[1]), "theirs", beat_seconds=0.1):
    print("held", flush=True)
    time.sleep(120)
"""
THEIRS = "claims/e000001-theirs.json"


@contextmanager
def other_process(output: Location) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the output until the context ends."""
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


def record(place: Location) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(place.read_bytes())
    return found


def of(output: Location, claim: OutputClaim) -> Location:
    """Where a claim is written."""
    return output / "claims" / f"{claim.name}.json"


def is_held(output: Location, name: str) -> bool:
    """Whether a claim holds an output, ended or not."""
    try:
        check_held(output, name)
    except OutputConflictError:
        return False
    return True


def holder_elsewhere(**more: Any) -> dict[str, Any]:
    """What a run on another machine says of itself."""
    return {
        "run_id": "theirs",
        "host": "another-machine",
        "pid": 1,
        "process": "boot:1:1",
        "since": "2026-11-22T10:00:00Z",
        "beat": 0,
        **more,
    }


def write(place: Location, holder: dict[str, Any]) -> None:
    place.write_bytes(json.dumps(holder).encode())


@contextmanager
def beating(place: Location, holder: dict[str, Any]) -> Iterator[None]:
    """Within the context, a holder renews its claim."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.05):
            holder["beat"] += 1
            write(place, holder)

    write(place, holder)
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Unreachable:
    """A storage on which claims cannot be written for a while."""

    def __init__(self) -> None:
        self.is_down = False

    def __call__(self, kind: str, path: str) -> None:
        if self.is_down and kind == "write" and "/claims/" in path:
            raise TimeoutError(path)


def test_a_claim_is_alive_within_the_context_and_ended_after(output: Location) -> None:
    with OutputClaim(output, "ours") as claim:
        assert (claim.epoch, claim.name) == (1, "e000001-ours")
        claim.ask()
        assert record(of(output, claim))["pid"] == os.getpid()
        assert "ended" not in record(of(output, claim))
    assert record(of(output, claim))["ended"]
    assert tree(output) == {"claims/e000001-ours.json"}


def test_each_run_has_the_next_epoch_and_removes_no_claim(output: Location) -> None:
    for epoch, run_id in enumerate(("z", "b", "a"), start=1):
        with OutputClaim(output, run_id) as claim:
            assert claim.epoch == epoch
    assert (output / "claims").names() == [
        f"e00000{epoch}-{run_id}.json" for epoch, run_id in ((1, "z"), (2, "b"), (3, "a"))
    ]


def test_a_claim_is_ended_when_the_run_fails(output: Location) -> None:
    with pytest.raises(KeyError), OutputClaim(output, "ours") as claim:
        raise KeyError
    assert record(of(output, claim))["ended"]


def test_storage_that_fails_at_the_end_hides_no_other_error(
    output: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(place: Location, data: bytes) -> None:
        raise PermissionError(place.path)

    def run() -> None:
        with OutputClaim(output, "run-1"):
            monkeypatch.setattr(type(output), "write_bytes", refuse)
            raise StorageError("the reason")

    with pytest.raises(StorageError, match="the reason"):
        run()


def test_a_run_whose_claim_could_not_be_ended_can_be_tried_again_in_the_same_process(
    output: Location,
) -> None:
    with pytest.MonkeyPatch.context() as patch, OutputClaim(output, "first") as first:

        def refuse(place: Location, data: bytes) -> None:
            raise PermissionError(place.path)

        patch.setattr(type(output), "write_bytes", refuse)
    assert "ended" not in record(of(output, first))
    with OutputClaim(output, "second") as second:
        second.ask()
        with pytest.raises(OutputConflictError):
            first.ask()


def test_a_claim_that_could_not_be_ended_is_ended_by_who_tries_again(output: Location) -> None:
    storage = Unreachable()
    with OutputClaim(Watched(output, storage), "ours", clock=Hands()) as claim:
        storage.is_down = True
        claim.release()
        assert "ended" not in record(of(output, claim))
        storage.is_down = False
    assert record(of(output, claim))["ended"]


def test_a_claim_that_somebody_has_removed_is_not_made_again(output: Location) -> None:
    run(output, [1], run_id="first")
    (output / "claims" / "e000001-first.json").delete()
    with OutputClaim(output, "second", clock=Hands()) as claim:
        assert claim.epoch == 2, "its seal says that there was one"


def test_a_second_holder_is_refused_and_told_who_and_since_when(output: Location) -> None:
    with OutputClaim(output, "first") as first:
        since = record(of(output, first))["since"]
        pattern = rf"written by run first on .* \(process {os.getpid()}\) since {since}"
        with pytest.raises(OutputConflictError, match=pattern), OutputClaim(output, "second"):
            pass
        first.ask()
        assert (output / "claims").names() == ["e000001-first.json"], (
            "who is refused claims nothing"
        )
    with OutputClaim(output, "second") as second:
        second.ask()


def test_a_run_of_another_process_is_refused_while_it_lives(output: Location) -> None:
    with other_process(output) as process:
        with (
            pytest.raises(OutputConflictError, match=f"process {process.pid}"),
            OutputClaim(output, "a"),
        ):
            pass
        assert is_held(output, "e000001-theirs")


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_holder_whose_process_is_gone_is_taken_over_at_once(
    output: Location, end: signal.Signals
) -> None:
    with other_process(output) as process:
        process.send_signal(end)
        process.wait()
        assert "ended" not in record(output / THEIRS), "nobody cleaned up"
        started = time.monotonic()
        with OutputClaim(output, "ours", beat_seconds=0.1) as claim:
            assert time.monotonic() - started < 1
            claim.ask()
            assert claim.epoch == 2


def test_a_holder_whose_number_another_process_has_by_now_is_dead(output: Location) -> None:
    with OutputClaim(output, "theirs"):
        holder = record(output / THEIRS)
    write(output / THEIRS, {**holder, "pid": os.getppid()})
    with OutputClaim(output, "ours", beat_seconds=0.1) as claim:
        claim.ask()
        assert claim.epoch == 2


def test_a_killed_holder_that_its_parent_has_not_yet_reaped_is_dead(output: Location) -> None:
    with other_process(output) as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with OutputClaim(output, "ours", beat_seconds=0.1) as claim:
            claim.ask()
            assert claim.epoch == 2


def test_a_holder_elsewhere_that_beats_is_alive(output: Location) -> None:
    with (
        beating(output / THEIRS, holder_elsewhere()),
        pytest.raises(OutputConflictError, match="run theirs on another-machine"),
        OutputClaim(output, "ours", beat_seconds=0.1),
    ):
        pass


def test_a_holder_elsewhere_that_does_not_beat_is_dead(output: Location) -> None:
    write(output / THEIRS, holder_elsewhere())
    started = time.monotonic()
    with OutputClaim(output, "ours", beat_seconds=0.1) as claim:
        assert time.monotonic() - started >= 0.3, "it was given time to beat"
        claim.ask()


@pytest.mark.parametrize("left", ["marked", "removed"])
def test_a_holder_elsewhere_that_ends_while_it_is_watched_gives_way(
    output: Location, left: str
) -> None:
    write(output / THEIRS, holder_elsewhere())
    marked = (write, (output / THEIRS, holder_elsewhere(ended=True)))
    end, arguments = {"marked": marked, "removed": ((output / THEIRS).delete, ())}[left]
    threading.Timer(0.1, end, arguments).start()  # type: ignore[arg-type]
    started = time.monotonic()
    with OutputClaim(output, "ours", beat_seconds=1) as claim:
        claim.ask()
    assert time.monotonic() - started < 2.5, "it was not watched to the end"


def test_a_holder_elsewhere_that_has_ended_is_not_watched(output: Location) -> None:
    write(output / THEIRS, holder_elsewhere(ended=True))
    clock = Hands()
    with OutputClaim(output, "ours", clock=clock) as claim:
        assert claim.epoch == 2
    assert clock.time < 1


def test_another_run_that_comes_while_a_dead_one_is_watched_is_seen(output: Location) -> None:
    write(output / THEIRS, holder_elsewhere())
    clock = Hands()

    def sleep(seconds: float) -> None:
        clock.time += seconds
        write(output / "claims" / "e000002-third.json", holder_elsewhere(beat=clock.time))

    clock.sleep = sleep  # type: ignore[method-assign]
    with (
        pytest.raises(OutputConflictError, match="is being written by"),
        OutputClaim(output, "ours", clock=clock),
    ):
        pass
    assert clock.time > MISSED_BEATS * 5
    assert (output / "claims").names() == ["e000001-theirs.json", "e000002-third.json"]


def test_the_holder_renews_its_claim(output: Location) -> None:
    with OutputClaim(output, "ours", beat_seconds=0.05) as claim:
        deadline = time.monotonic() + 5
        while record(of(output, claim))["beat"] < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert record(of(output, claim))["beat"] >= 3


def test_a_beat_that_comes_late_does_not_take_the_output_back(output: Location) -> None:
    clock = Hands()
    with OutputClaim(output, "ours", clock=clock) as ours:
        write(of(output, ours), {**record(of(output, ours)), **holder_elsewhere(), "beat": 1})
        with OutputClaim(output, "theirs", clock=Hands()) as theirs:
            before = record(of(output, theirs))
            (beat,) = clock.beats
            beat()
            assert record(of(output, ours))["beat"] > 1, "it came"
            theirs.ask()
            assert record(of(output, theirs)) == before
            with pytest.raises(OutputConflictError, match="run theirs took over"):
                ours.ask()


def test_the_end_of_a_run_that_was_taken_over_does_not_end_the_other(output: Location) -> None:
    with OutputClaim(output, "ours", clock=Hands()) as ours:
        write(of(output, ours), holder_elsewhere())
        with OutputClaim(output, "theirs", clock=Hands()) as theirs:
            ours.release()
            theirs.ask()
            assert "ended" not in record(of(output, theirs))


def test_who_could_not_renew_changes_nothing_until_a_beat_is_acknowledged(
    output: Location,
) -> None:
    clock, storage = Hands(), Unreachable()
    place = Watched(output, storage)
    with OutputClaim(place, "ours", clock=clock) as claim:
        committer = expecting(place, claim, [1, 2])
        ours = attempt(place, claim, [1, 2])
        before = tree(output)
        storage.is_down = True
        (beat,) = clock.beats
        for _ in range(MISSED_BEATS):
            clock.time += 5
            beat()  # without a word: the next one may get through
        clock.time += 0.1
        with pytest.raises(TimeoutError):
            committer.commit([ours])
        assert tree(output) == before

        storage.is_down = False
        beats = record(of(output, claim))["beat"]
        committer = expecting(place, claim, [1, 2])
        committer.commit([ours])
        assert record(of(output, claim))["beat"] > beats, "renewed before anything else"
        assert Commits.read(output).done().tolist() == [1, 2]
        storage.is_down = True
        claim.ask()  # which that beat has acknowledged
        storage.is_down = False


@pytest.mark.parametrize("content", [b"", b"not json", b"[1]", b"null", b"{}", b"[" * 100_000])
@pytest.mark.parametrize("name", [THEIRS, "lock.json"])
def test_a_record_that_makes_no_sense_does_not_block_the_output(
    output: Location, content: bytes, name: str
) -> None:
    (output / name).write_bytes(content)
    with OutputClaim(output, "ours", beat_seconds=0.05) as claim:
        claim.ask()
        assert claim.epoch == (2 if name == THEIRS else 1)


@pytest.mark.parametrize("name", ["notes.json", "e000009.json", ".e000009-run.json.0f.partial"])
def test_files_that_are_no_claims_hold_nothing(output: Location, name: str) -> None:
    (output / "claims" / name).write_bytes(b"{}")
    with OutputClaim(output, "ours", beat_seconds=0.05) as claim:
        assert claim.epoch == 1
        (output / "claims" / name.replace("run", "ours")).write_bytes(b"{}")
        claim.ask()


@pytest.mark.parametrize("name", ["file", "file/out"])
def test_an_output_that_cannot_be_written_is_a_storage_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("no folder")
    with (
        pytest.raises(StorageError, match="cannot be written"),
        OutputClaim(locate(str(tmp_path / name)), "ours"),
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
        OutputClaim(locate("s3://bucket/out", options), "ours", beat_seconds=0.05),
    ):
        pass


def other_container(output: Location) -> list[str]:
    """The command line of another process that holds the output, where it sees only its own."""
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
            holder = record(output / THEIRS)
            assert holder["host"] == socket.gethostname(), "the same name"
            assert holder["pid"] < 10, "a number of its own"
            with (
                pytest.raises(OutputConflictError, match="written by run theirs"),
                OutputClaim(output, "ours", beat_seconds=1),
            ):
                pass
            assert is_held(output, "e000001-theirs")
        finally:
            process.kill()
    started = time.monotonic()
    with OutputClaim(output, "ours", beat_seconds=0.2):
        assert time.monotonic() - started >= 0.6, "it was given time to beat"


def test_a_run_in_a_container_does_not_take_over_from_a_live_one_outside(
    output: Location,
) -> None:
    words = other_container(output)
    with OutputClaim(output, "ours", beat_seconds=0.05) as claim:
        finished = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert "OutputConflictError" in finished.stderr
        claim.ask()


@pytest.mark.parametrize("differs", ["process", "namespace"])
def test_the_name_of_a_host_says_nothing_about_a_process(output: Location, differs: str) -> None:
    with OutputClaim(output, "theirs"):
        holder = record(output / THEIRS)
    holder["pid"] = 2**22 + 1  # no such process here
    holder["process"] = f"another-boot:{holder['pid']}:1" if differs == "process" else "x"
    if differs == "namespace":
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        holder |= {"process": f"{boot}:{holder['pid']}:1", "namespace": "pid:[1]"}
    with (
        beating(output / THEIRS, holder),
        pytest.raises(OutputConflictError, match="written by run theirs"),
        OutputClaim(output, "ours", beat_seconds=0.2),
    ):
        pass


def test_a_process_that_another_user_hides_is_judged_by_its_beats(
    output: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(pid: int, signal: int) -> None:
        raise PermissionError(pid)  # so it is there, and /proc does not show it

    with OutputClaim(output, "theirs"):
        holder = record(output / THEIRS)
    pid = 2**22 + 1
    holder |= {"pid": pid, "process": holder["process"].replace(f":{holder['pid']}:", f":{pid}:")}
    assert holders.is_visible(holder)
    monkeypatch.setattr(os, "kill", forbid)
    assert not holders.is_visible(holder)
    with (
        beating(output / THEIRS, holder),
        pytest.raises(OutputConflictError, match="written by run theirs"),
        OutputClaim(output, "ours", beat_seconds=0.2),
    ):
        pass


def test_a_claim_can_be_given_back_early_and_only_once(output: Location) -> None:
    with OutputClaim(output, "first") as first:
        first.release()
        with pytest.raises(OutputConflictError, match=r"has given .* back"):
            first.ask()
        ended = of(output, first).read_bytes()
        with OutputClaim(output, "second") as second:
            first.release()
            second.ask()
        assert of(output, first).read_bytes() == ended


@pytest.mark.parametrize("error", [StoppedError("told to stop"), KeyboardInterrupt()])
def test_a_run_that_is_stopped_while_it_claims_leaves_an_ended_claim(
    output: Location, error: BaseException
) -> None:
    clock = Hands()

    def stop(seconds: float) -> None:
        assert is_held(output, "e000001-ours"), "written, and waiting whether others come"
        raise error

    clock.sleep = stop  # type: ignore[method-assign]
    with pytest.raises(type(error)), OutputClaim(output, "ours", clock=clock):
        pass
    assert record(output / "claims/e000001-ours.json")["ended"]
    with OutputClaim(output, "next", beat_seconds=0.05) as claim:
        claim.ask()


def test_a_run_that_is_stopped_while_it_watches_another_leaves_nothing(output: Location) -> None:
    write(output / THEIRS, holder_elsewhere())
    clock = Hands()

    def stop(seconds: float) -> None:
        raise StoppedError("told to stop")

    clock.sleep = stop  # type: ignore[method-assign]
    with pytest.raises(StoppedError), OutputClaim(output, "ours", clock=clock):
        pass
    assert tree(output) == {THEIRS}


def together(claim: Callable[[str], OutputClaim], count: int = 4) -> tuple[list[str], list[str]]:
    """Start runs at once; the ids of those that have held the output, and of those refused."""
    at_once = threading.Barrier(count)
    held: list[str] = []
    refused: list[str] = []
    over = threading.Event()

    def run(run_id: str) -> None:
        at_once.wait()
        try:
            with claim(run_id) as taken:
                taken.ask()
                held.append(run_id)
                over.wait(10)
        except OutputConflictError:
            refused.append(run_id)

    threads = [threading.Thread(target=run, args=(f"run-{number}",)) for number in range(count)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while len(held) + len(refused) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    over.set()
    for thread in threads:
        thread.join()
    return held, refused


def test_of_those_that_start_at_once_exactly_one_goes_on(output: Location) -> None:
    held, refused = together(lambda run_id: OutputClaim(output, run_id))
    assert (len(held), len(refused)) == (1, 3)


def test_who_claims_the_same_epoch_late_holds_the_output_and_the_other_stops(
    output: Location,
) -> None:
    early = OutputClaim(output, "run-1", clock=Hands())
    with overtaking(output, "run-2", early.__enter__) as late:
        assert (early.epoch, late.epoch) == (1, 1)
        late.ask()
        with pytest.raises(OutputConflictError, match="run run-2 took over"):
            early.ask()
    early.release()


# Formats 1 and 2 said in lock.json who holds an OUTPUT.


def test_a_live_run_of_an_earlier_format_is_not_taken_over(output: Location) -> None:
    with (
        beating(output / "lock.json", holder_elsewhere()),
        pytest.raises(OutputConflictError, match="written by run theirs on another-machine"),
        OutputClaim(output, "ours", beat_seconds=0.1),
    ):
        pass
    assert tree(output) == {"lock.json"}


def test_a_dead_run_of_an_earlier_format_is_taken_over_and_its_lock_removed(
    output: Location,
) -> None:
    write(output / "lock.json", holder_elsewhere())
    started = time.monotonic()
    with OutputClaim(output, "ours", beat_seconds=0.1) as claim:
        assert time.monotonic() - started >= 0.3, "it was given time to beat"
        claim.ask()
        assert tree(output) == {"claims/e000001-ours.json"}


def test_a_run_that_is_killed_while_it_claims_is_taken_over(output: Location) -> None:
    def kill(kind: str, path: str) -> None:
        if kind == "list" and (output / "claims/e000001-ours.json").exists():
            raise Killed

    with pytest.raises(Killed), OutputClaim(Watched(output, kill), "ours", clock=Hands()):
        pass
    with OutputClaim(output, "next", clock=Hands()) as claim:
        assert claim.epoch == 2
        claim.ask()


@pytest.mark.parametrize("error", [StorageError("gone"), FileNotFoundError("gone")])
def test_what_storage_says_of_a_run_that_holds_the_output_stays_as_it_is(
    output: Location, error: Exception
) -> None:
    with (
        OutputClaim(output, "ours", clock=Hands()) as claim,
        pytest.raises(type(error), match="gone"),
        claim.telling_loss(),
    ):
        raise error


def test_what_storage_says_first_stays_where_it_cannot_be_asked_who_took_over(
    output: Location,
) -> None:
    def fail(kind: str, path: str) -> None:
        raise OSError("cannot be listed")

    with OutputClaim(output, "ours", clock=Hands()) as claim:
        watching(claim, fail)
        with pytest.raises(OSError, match="cannot be written"), claim.telling_loss():
            raise OSError("cannot be written")
