"""Runs that take over: from one that was paused, and from some that died in a commit."""

import json
import random
import signal
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from job.results import verification
from job.storage.opening import locate
from tests.conftest import write_pictures
from tests.end_to_end.processes import Finished, finish, outcome, started, wait_for
from tests.outputs import check_each_image_once, check_equal_to_sequential

IMAGES = 48
STEPS = ("--images-per-file=4", "--images-per-task=4", "--workers=1")
VISIBLE = ("maps", "errors", "manifest", "commits")


@dataclass(frozen=True)
class Killed:
    """Runs of which each was killed in the midst of a commit.

    Attributes:
        words: the command line of a run, behind the program.
        output: OUTPUT of all.
        ended: how they ended.
        maps: what lay in maps/ behind each.
    """

    words: list[str]
    output: Path
    ended: list[Finished]
    maps: list[dict[str, bytes]]


@pytest.fixture(scope="module")
def killed(
    model_dir: Path, warm: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Killed:
    """Each is killed at a random one of its first changes of what is committed."""
    place = tmp_path_factory.mktemp("takeover")
    source, output = write_pictures(place / "in", IMAGES, seed=1300), place / "out"
    words = ["run", str(source), str(output), "--model", str(model_dir), *STEPS]
    killed, dice = Killed(words, output, [], []), random.Random(12)
    # The first two in the commit of the manifest, or in what is left of it.
    for latest in (3, 3, 10, 10, 10):
        dies = [sys.executable, "-m", "tests.end_to_end.killed", *words]
        env = {**warm, "DIES_AT": str(dice.randint(1, latest))}
        killed.ended.append(finish(dies, env))
        killed.maps.append(visible(output, ("maps",)))
    return killed


@dataclass(frozen=True)
class Overlapped:
    """A run that was paused, one that took over from it, and one after both.

    Attributes:
        output: OUTPUT of all.
        before: what lay there visibly when the second run had ended.
        late: what workers of the first have written after that.
        first, second, third: how the runs ended.
        after: what lay there visibly when the first had ended too.
        left: what lay in attempts/ then.
        receipts: of all runs there, in their order; those of the first and the second come last.
    """

    output: Path
    before: dict[str, bytes]
    late: set[str]
    first: Finished
    second: Finished
    third: Finished
    after: dict[str, bytes]
    left: set[str]
    receipts: list[dict[str, Any]]


@pytest.fixture(scope="module")
def overlapped(
    killed: Killed, warm: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Overlapped:
    """The first run pauses with its workers alive: they are about to write, and do so later."""
    output = killed.output
    elsewhere = [sys.executable, "-m", "tests.end_to_end.elsewhere", *killed.words]
    notes = [tmp_path_factory.mktemp("notes") for _ in range(2)]
    (notes[0] / "pause").touch()
    with started(elsewhere, {**warm, "NOTES": str(notes[0])}) as process:
        wait_for((notes[0] / "paused").exists, 240, "the first run to pause")
        second = finish(elsewhere, {**warm, "NOTES": str(notes[1])})
        before = visible(output)
        (notes[0] / "go").touch()
        wait_for(lambda: attempts(output), 120, "a late write")
        late = attempts(output)
        process.send_signal(signal.SIGCONT)
        first = outcome(process)
    after, left = visible(output), attempts(output)
    third = finish([sys.executable, "-m", "job", *killed.words], warm)
    receipts = [json.loads(path.read_text()) for path in sorted(output.glob("runs/*"))]
    return Overlapped(output, before, late, first, second, third, after, left, receipts)


def visible(output: Path, folders: tuple[str, ...] = VISIBLE) -> dict[str, bytes]:
    """What lies where readers look, and what says that it counts."""
    files = [path for folder in folders for path in (output / folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


def attempts(output: Path) -> set[str]:
    return {path.name for path in (output / "attempts").glob("*.parquet")}


def test_a_run_that_is_killed_in_a_commit_leaves_what_was_committed_before(killed: Killed) -> None:
    assert [finished.exit_code for finished in killed.ended] == [-signal.SIGKILL] * 5
    for before, found in pairwise(killed.maps):
        assert {name: found.get(name) for name in before} == before
    assert killed.maps[-1], "some have committed"


def test_a_paused_run_that_was_replaced_ends_in_one_sentence(overlapped: Overlapped) -> None:
    first, second = (receipt["run_id"] for receipt in overlapped.receipts[-2:])
    assert overlapped.first.exit_code == 5, overlapped.first.stderr
    said = f"error: run {first} no longer holds {overlapped.output}: run {second} took over"
    assert overlapped.first.stderr.splitlines()[-1] == said
    assert overlapped.first.stderr.count("error: ") == 1
    assert "Traceback" not in overlapped.first.stderr
    assert overlapped.first.stdout == ""


def test_the_run_that_took_over_makes_the_rest(overlapped: Overlapped, model_dir: Path) -> None:
    assert overlapped.second.exit_code == 0, overlapped.second.stderr
    said = [(receipt["status"], bool(receipt["maps"])) for receipt in overlapped.receipts]
    assert said[-2:] == [("failed", True), ("finished", True)]
    assert sum(receipt["maps"] for receipt in overlapped.receipts) == IMAGES
    assert all(receipt["ended"] for receipt in overlapped.receipts)
    check_each_image_once(overlapped.output, IMAGES)
    check_equal_to_sequential(overlapped.output, model_dir)
    assert verification.verify(locate(str(overlapped.output)), deep=True).is_complete


def test_what_its_workers_write_late_is_seen_by_nobody_and_removed_by_the_next_run(
    overlapped: Overlapped,
) -> None:
    assert overlapped.late
    assert overlapped.late <= overlapped.left
    first = overlapped.receipts[-2]["run_id"]
    assert all(name.startswith(f"e000006-{first}-") for name in overlapped.left)
    assert overlapped.after == overlapped.before
    assert overlapped.third.exit_code == 0, overlapped.third.stderr
    assert f"all {IMAGES} images have a map or an error row already" in overlapped.third.stdout
    assert attempts(overlapped.output) == set()
    assert visible(overlapped.output) == overlapped.before
