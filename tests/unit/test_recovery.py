"""Recovery: what runs before have left is finished or removed, and what is another's stays."""

import contextlib
import itertools
from collections.abc import Callable

import pytest

from job.errors import OutputConflictError
from job.outputs.claims import OutputClaim
from job.outputs.commits import Commits
from job.outputs.recovery import recover
from job.storage.local import PARTIAL
from job.storage.location import Location
from tests.runs import (
    RUNS,
    Hands,
    at_move,
    attempt,
    expecting,
    ids_in,
    of_data,
    run,
    run_until,
    tree,
    watching,
)

pytestmark = pytest.mark.usefixtures("quick_disk")


def recovered(output: Location, run_id: str = RUNS[9]) -> Commits:
    """What a run finds that takes over, and does no more."""
    with OutputClaim(output, run_id, clock=Hands()) as claim:
        return recover(output, claim)


def test_what_was_committed_and_not_moved_is_moved(output: Location) -> None:
    assert run_until(at_move, output, range(10), failed=[1])
    assert not of_data(tree(output))
    found = recovered(output)
    assert ids_in(output, "maps") == [0, *range(2, 10)]
    assert ids_in(output, "errors") == [1]
    assert found.done().tolist() == list(range(10))
    assert (output / "attempts").names() == []
    assert not found.unmoved
    assert found.count(RUNS[0]) == (9, {"truncated": 1})


def test_attempts_that_nobody_has_committed_are_removed(output: Location) -> None:
    with OutputClaim(output, RUNS[0], clock=Hands()) as claim:
        attempt(output, claim, range(4), failed=[1])
    found = recovered(output)
    assert (output / "attempts").names() == []
    assert len(found.strays) == 2
    assert found.done().tolist() == []


def test_what_is_left_of_a_void_commit_is_removed_and_done_again(output: Location) -> None:
    run(output, range(8), failed=[1])
    lost = f"errors/e000001-{RUNS[0]}-000000.parquet"
    (output / lost).delete()
    found = run(output, range(8), run_id=RUNS[1])
    assert found.done().tolist() == [4, 5, 6, 7]
    assert list(found.void) == [lost.replace("errors", "commits")]
    assert ids_in(output, "maps") == list(range(8))
    assert ids_in(output, "errors") == []
    assert lost.replace("errors", "commits") not in tree(output)


@pytest.mark.parametrize(
    "name",
    [
        *("maps/backup-20260101.parquet", "maps/notes.txt", "errors/mine.parquet"),
        *("manifest/old.parquet", "commits/backup-20260101.parquet", "commits/notes.txt"),
        *("maps/0-schema.parquet", "attempts/notes.txt", "claims/notes.txt", "maps/deep/x.parquet"),
        "maps/20261128T230544-0c80-000000.parquet.bak",
        f"maps/e000001-{RUNS[0]}-000000.parquet.bak",
        f"maps/e000001-{RUNS[0]}-000000 (copy).parquet",
    ],
)
def test_files_of_somebody_else_stay(output: Location, name: str) -> None:
    run(output, range(4))
    (output / name).write_bytes(b"mine")
    for run_id in RUNS[1:3]:
        recovered(output, run_id)
        assert (output / name).read_bytes() == b"mine"
    assert Commits.read(output).done().tolist() == [0, 1, 2, 3]


def test_what_writers_have_half_written_is_removed(output: Location) -> None:
    run(output, range(4))
    left = {
        f"{folder}{name}.{'0f' * 16}{PARTIAL}"
        for folder in ("", "attempts/", "claims/", "commits/", "errors/", "maps/", "runs/")
        for name in (f".e000001-{RUNS[0]}-000000.parquet", ".labels.json", "earlier-000099.parquet")
    }
    for name in left:
        (output / name).write_bytes(b"PAR1")
    others = {f"maps/{name}{PARTIAL}" for name in ("mine", f".e000002-{RUNS[9]}.json.{'0f' * 16}")}
    for name in others:
        (output / name).write_bytes(b"PAR1")
    recovered(output)
    assert not tree(output).intersection(left)
    assert others <= tree(output), "of somebody else, and of a run that begins just now"


def test_a_run_begins_by_sealing_what_counts(output: Location) -> None:
    seals = []
    for run_id in RUNS[:3]:
        recovered(output, run_id)
        seals += [name for name in tree(output) if name.endswith(f"{run_id}.seal.parquet")]
    assert seals == [
        f"claims/e00000{n}-{run_id}.seal.parquet" for n, run_id in enumerate(RUNS[:3], 1)
    ]


def test_what_a_run_leaves_that_is_at_work_itself_stays(output: Location) -> None:
    """Its own workers, or those of a run that took over from it."""
    with OutputClaim(output, RUNS[0], clock=Hands()) as first:
        pass
    with OutputClaim(output, RUNS[1], clock=Hands()) as second:
        ours = attempt(output, second, range(4))
        first.ask = lambda: None  # type: ignore[method-assign]  # it has just asked
        recover(output, first)
        expecting(output, second, range(4)).commit([ours])
    assert Commits.read(output).done().tolist() == [0, 1, 2, 3]


# Another run takes over


@pytest.mark.parametrize(
    "moment", [("list", "/attempts"), ("list", "/commits"), ("write", ".seal"), ("read", "/att")]
)
def test_a_run_that_is_taken_over_while_it_recovers_loses_nothing(
    output: Location, moment: tuple[str, str]
) -> None:
    assert run_until(at_move, output, range(8), failed=[1])
    claim = OutputClaim(output, RUNS[1], clock=Hands()).__enter__()
    found: list[Commits] = []
    times = itertools.count()  # files are moved in threads

    def take_over(kind: str, path: str) -> None:
        if kind == moment[0] and moment[1] in path and not next(times):
            claim._record["process"] = "another-boot:1:1"
            claim._beat()
            found.append(run(output, range(12), run_id=RUNS[2]))

    place = watching(claim, take_over)
    # When all that is left is to move what both know of, it does so.
    stops = pytest.raises(OutputConflictError, match=f"run {RUNS[2]} took over")
    with contextlib.nullcontext() if moment[0] == "read" else stops:
        recover(place, claim)
    assert found[0].done().tolist() == list(range(8))
    assert sorted([*ids_in(output, "maps"), *ids_in(output, "errors")]) == list(range(12))
    assert Commits.read(output).done().tolist() == list(range(12))
    claim.release()
    run(output, range(12), run_id=RUNS[3])
    assert sorted([*ids_in(output, "maps"), *ids_in(output, "errors")]) == list(range(12))


def late(output: Location, claim: OutputClaim) -> dict[str, bytes]:
    """A commit of a run that is paused before it writes the record: what will come of it."""
    ours = attempt(output, claim, range(4), failed=[1])
    record = expecting(output, claim, range(4))._record(ours)
    files = {file.attempt or "": file.name for file in record.files}
    data = {name: (output / name).read_bytes() for name in files}
    return {record.name: record.to_bytes(), **data}


@pytest.mark.parametrize("comes", ["record", "data", "both"])
@pytest.mark.parametrize("does", ["the same images", "nothing"])
def test_a_commit_that_comes_behind_a_seal_never_counts(
    output: Location, comes: str, does: str
) -> None:
    with OutputClaim(output, RUNS[0], clock=Hands()) as claim:
        paused = late(output, claim)
    images = range(4) if does != "nothing" else ()
    run(output, images, run_id=RUNS[1])
    for name, content in paused.items():
        if comes == "both" or name.startswith("commits/") == (comes == "record"):
            (output / name).write_bytes(content)
    assert Commits.read(output).done().tolist() == list(images)
    found = run(output, range(4), run_id=RUNS[2])
    assert found.done().tolist() == list(images)
    assert not tree(output).intersection(paused)
    assert ids_in(output, "maps") == list(range(4))
    assert ids_in(output, "errors") == []


def in_time(output: Location) -> Callable[[], None]:
    """A commit whose record came in time, and whose run is paused before the move; what follows."""
    assert run_until(at_move, output, range(4), failed=[1])
    (record,) = Commits.read(output).records

    def move() -> None:
        for file in record.files:
            (output / str(file.attempt)).move_to(output / file.name)

    return move


def test_a_move_that_comes_late_finds_nothing_to_move(output: Location) -> None:
    move = in_time(output)
    run(output, range(8), run_id=RUNS[1])
    before = of_data(tree(output))
    with pytest.raises(FileNotFoundError):
        move()
    assert of_data(tree(output)) == before
    assert Commits.read(output).done().tolist() == list(range(8))
