"""Runs that are killed, stopped or started twice: what is committed stays, nothing comes double."""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from job.outputs.names import parts_of
from job.results import verification
from job.storage.opening import locate
from tests.conftest import write_pictures
from tests.end_to_end.processes import (
    Finished,
    can_work,
    finish,
    members,
    outcome,
    started,
    wait_for,
)
from tests.outputs import check_each_image_once, check_equal_to_sequential, live_claims, rows

IMAGES, PER_FILE = 400, 4
# How often a run is killed: KILLS=10 make test kills it more often than there is time for in CI.
KILLS = int(os.environ.get("KILLS", "3"))
SMALL_STEPS = (f"--images-per-file={PER_FILE}", f"--images-per-task={PER_FILE}")
Command = Callable[..., list[str]]
Rows = set[tuple[int, str]]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures, too many to be all in flight."""
    return write_pictures(tmp_path_factory.mktemp("many"), IMAGES, seed=100)


def commits(output: Path) -> dict[str, pa.Table]:
    """The records of images, by their names; the manifest's have none."""
    records = {file.stem: pq.read_table(file) for file in (output / "commits").glob("*.parquet")}
    return {name: record for name, record in records.items() if len(record)}


def committed_at_least(count: int, output: Path) -> bool:
    return len(commits(output)) >= count


def committed_rows(output: Path) -> Rows:
    """Id and run of every image that is committed."""
    found = [(parts_of(f"{name}.parquet"), record) for name, record in commits(output).items()]
    return {
        (number, parts.run_id)
        for parts, record in found
        if parts is not None
        for number in record["id"].to_pylist()
    }


def uncommitted_rows(output: Path) -> int:
    """How many maps were written and not committed: as many images will be processed twice."""
    said = [json.loads(record.schema.metadata[b"files"]) for record in commits(output).values()]
    named = {attempt for files in said for _, _, attempt in files}
    left = output.glob("attempts/*.maps.parquet")
    return sum(
        pq.read_metadata(file).num_rows for file in left if f"attempts/{file.name}" not in named
    )


def kill_driver(words: list[str], when: Callable[[], bool]) -> None:
    """Start a run, and kill -9 its driver at a moment; Ray's processes notice by themselves."""
    with started(words) as process:
        wait_for(lambda: when() or process.poll() is not None, 120, "the moment", every=0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL, process.communicate()
        wait_for(
            lambda: not any(map(can_work, members(process.pid))), 60, "the killed run's Ray to go"
        )


def leftovers(output: Path) -> list[str]:
    """Files that only a run in progress, or one that was killed, has under OUTPUT."""
    half_written = [path.name for path in output.rglob("*.partial")]
    attempts = [path.name for path in output.glob("attempts/*")]
    return [*live_claims(output), *sorted(half_written), *sorted(attempts)]


def moments(count: int, dice: random.Random, output: Path) -> Iterator[Callable[[], bool]]:
    """Conditions at which to kill: while starting up, at commits, between data and record."""
    for number in range(count):
        if number % 4 == 1:
            at = time.monotonic() + dice.uniform(1, 12)
            yield partial(past, at)
        elif number % 4 == 2:
            yield lambda: any(output.glob("attempts/*.parquet"))
        else:
            yield partial(committed_at_least, len(commits(output)) + dice.randint(1, 3), output)


def past(moment: float) -> bool:
    return time.monotonic() > moment


@pytest.mark.timeout(60 * (KILLS + 5))
def test_killed_again_and_again_it_ends_with_each_image_exactly_once(
    model_dir: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    output, images = tmp_path / "out", 20 * KILLS
    source = write_pictures(tmp_path / "in", images, seed=200)
    words = command(source, output, model_dir)
    stays: Rows = set()
    twice = killed = 0
    for when in moments(KILLS, random.Random(KILLS), output):
        kill_driver(words, when)
        killed += 1
        found = committed_rows(output)
        assert stays <= found, "what earlier runs committed is there, from the same runs"
        stays = found
        twice += uncommitted_rows(output)
    assert 0 < len(stays) < images
    assert live_claims(output), "the killed run could not clean up"
    # What a writer leaves that dies between opening its file and renaming it.
    (output / "maps" / f".killed-000099.parquet.{'0' * 32}.partial").write_bytes(b"PAR1")

    # The last kill is after the last commit: nothing is left to do but to say so.
    kill_driver(words, lambda: len(committed_rows(output)) == images)
    last = finish(words)

    assert last.exit_code == 0, last.stderr
    assert f"all {images} images have a map or an error row already" in last.stdout
    check_each_image_once(output, images)
    check_equal_to_sequential(output, model_dir)
    assert stays <= {(row["id"], row["run_id"]) for row in rows(output, "maps")}
    assert verification.verify(locate(str(output)), deep=True).is_complete
    # The claims of those that were killed stay as they are: nobody else writes them.
    assert len(live_claims(output)) == killed + 1
    assert leftovers(output) == live_claims(output)
    told = [json.loads(path.read_text()) for path in (output / "runs").iterdir()]
    assert sum(receipt["maps"] for receipt in told) == images, "receipts agree with storage"
    assert all(receipt["ended"] for receipt in told)
    # What was on its way in memory is lost as well; what workers had written can be counted.
    record_property("images written twice", twice)
    print(f"killed {killed + 1} times, {twice} images written twice")
    assert twice <= (KILLS + 1) * 3 * PER_FILE


@dataclass(frozen=True)
class Stopped:
    """A run that was told to stop, the run that went on, and one that came in its way."""

    output: Path
    first: Finished
    kept: Rows
    rest: list[str]
    second: Finished
    refused: Finished
    holder: int


@pytest.fixture(scope="module")
def stopped(
    many: Path, model_dir: Path, warm: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stopped]:
    """SIGTERM after the first commit; then the same command, and once more at the same time."""
    output = tmp_path_factory.mktemp("stopped")
    words = command(many, output, model_dir)
    with started(words, warm) as process:
        wait_for(lambda: commits(output), 120, "the first commit", every=0.002)
        process.send_signal(signal.SIGTERM)
        first = outcome(process)
    kept, rest = committed_rows(output), leftovers(output)
    with started(words, warm) as process:
        wait_for(lambda: live_claims(output), 60, "the second run's claim")
        process.send_signal(signal.SIGSTOP)  # or it might be done before the other has begun
        refused = finish(words, warm)
        process.send_signal(signal.SIGCONT)
        yield Stopped(output, first, kept, rest, outcome(process), refused, process.pid)


def command(source: Path, output: Path, model: Path) -> list[str]:
    words = ["-m", "job", "run", str(source), str(output), "--model", str(model)]
    return [sys.executable, *words, *SMALL_STEPS]


def test_told_to_stop_it_says_so_and_cleans_up(stopped: Stopped) -> None:
    assert stopped.first.exit_code == 130
    said = (
        f"stopped: {len(stopped.kept)} of {IMAGES} images are committed; the same command goes on"
    )
    assert stopped.first.stderr.splitlines()[-1] == said
    assert "Traceback" not in stopped.first.stderr
    assert 0 < len(stopped.kept) < IMAGES
    receipts = [json.loads(path.read_text()) for path in (stopped.output / "runs").iterdir()]
    first = min(receipts, key=lambda receipt: receipt["run_id"])
    assert first["status"] == "stopped"
    assert first["ended"]
    assert "told to stop" in first["message"]
    assert first["maps"] == len(stopped.kept), "what was in flight is finished, and counted"
    assert stopped.rest == []


def test_second_run_at_the_same_time_is_refused_and_told_who_holds_the_output(
    stopped: Stopped,
) -> None:
    assert stopped.refused.exit_code == 5
    assert stopped.refused.stdout == ""
    (line,) = stopped.refused.stderr.splitlines()
    assert line.startswith(f"error: OUTPUT {stopped.output} is being written by run ")
    assert f"(process {stopped.holder})" in line
    assert "Wait for it or stop it" in line


def test_stopped_run_goes_on_where_it_was(stopped: Stopped, model_dir: Path) -> None:
    assert stopped.second.exit_code == 0, stopped.second.stderr
    assert f"{len(stopped.kept)} images were done already" in stopped.second.stdout
    check_each_image_once(stopped.output, IMAGES)
    check_equal_to_sequential(stopped.output, model_dir)
    assert stopped.kept <= {(row["id"], row["run_id"]) for row in rows(stopped.output, "maps")}
    assert leftovers(stopped.output) == []
