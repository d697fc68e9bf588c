"""Committer: data, then the record, then the place; whatever comes in between."""

import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from job.errors import OutputConflictError, StorageError
from job.outputs.attempts import write_manifest
from job.outputs.claims import OutputClaim
from job.outputs.commits import Commits
from job.outputs.committer import CommitQueue, Committer, move_to_places
from job.outputs.recovery import recover
from job.storage.location import Location
from job.storage.opening import locate
from tests.runs import (
    DATA,
    RUNS,
    Hands,
    Killed,
    Watched,
    at_request,
    attempt,
    expecting,
    ids_in,
    is_request,
    listed,
    of_data,
    run,
    run_until,
    tree,
    watching,
)

pytestmark = pytest.mark.usefixtures("quick_disk")


@pytest.fixture
def claim(output: Location) -> Iterator[OutputClaim]:
    """Of a run that is at work."""
    with OutputClaim(output, RUNS[0], clock=Hands()) as held:
        yield held


def named(output: Location) -> set[str]:
    """The files that records which count have named."""
    return {file.name for record in Commits.read(output).records for file in record.files}


def test_what_is_committed_is_where_readers_look_and_is_counted(
    output: Location, claim: OutputClaim
) -> None:
    committer = expecting(output, claim, range(9))
    committer.commit([attempt(output, claim, range(6), failed=[1, 4])])
    assert ids_in(output, "maps") == [0, 2, 3, 5]
    assert ids_in(output, "errors") == [1, 4]
    assert (output / "attempts").names() == []
    assert (committer.maps, dict(committer.errors)) == (4, {"truncated": 2})
    assert (committer.remaining, committer.left_out) == (3, 0)
    committer.commit([attempt(output, claim, range(6, 9))])
    assert (committer.maps, committer.remaining) == (7, 0)
    assert Commits.read(output).done().tolist() == list(range(9))


def test_files_are_numbered_in_the_order_of_their_commits(
    output: Location, claim: OutputClaim
) -> None:
    committer = expecting(output, claim, range(9))
    committer.commit([write_manifest(output, claim.name, listed(range(9)))])
    committer.commit([attempt(output, claim, range(3)), attempt(output, claim, range(3, 6))])
    committer.commit([attempt(output, claim, range(6, 9), failed=[6])])
    assert (output / "commits").names() == [f"{claim.name}-{n:06d}.parquet" for n in range(4)]
    assert [(output / folder).names() for folder in DATA] == [
        [f"{claim.name}-{n:06d}.parquet" for n in numbers] for numbers in ((1, 2, 3), (3,), (0,))
    ]


def test_a_group_is_committed_with_two_questions_and_all_records_before_the_first_move(
    output: Location, claim: OutputClaim
) -> None:
    seen: list[tuple[str, str]] = []
    ours = [attempt(output, claim, [number]) for number in range(8)]
    place = watching(claim, lambda kind, path: seen.append((kind, Path(path).parent.name)))
    expecting(place, claim, range(8)).commit(ours)
    kinds = [step for step, _ in itertools.groupby(seen)]
    assert kinds[:3] == [("list", "out"), ("write", "commits"), ("list", "out")]
    assert set(seen[10:]) == {
        ("read", "attempts"),
        ("write", "maps"),
        ("delete", "attempts"),
    }
    assert len(seen) == 2 + 8 + 3 * 8
    assert ids_in(output, "maps") == list(range(8))


@pytest.mark.parametrize(
    "second",
    [range(4), range(3, 7), [6, 0], [8, 99], [-1], [6, 6]],
    ids=["the same again", "overlapping", "unordered", "unasked", "before all", "twice in one"],
)
def test_an_attempt_with_images_that_are_not_open_is_left_out_whole(
    output: Location, claim: OutputClaim, second: list[int]
) -> None:
    committer = expecting(output, claim, range(9))
    committer.commit([attempt(output, claim, range(4))])
    before = tree(output)
    committer.commit([attempt(output, claim, second, failed=[6])])
    assert (committer.left_out, committer.remaining) == (len(second), 5)
    assert of_data(tree(output)) == of_data(before)
    assert (committer.maps, committer.errors.total()) == (4, 0)
    committer.commit([attempt(output, claim, range(4, 9))])
    assert committer.remaining == 0
    assert ids_in(output, "maps") == list(range(9))


def test_of_two_attempts_in_one_group_one_is_committed(
    output: Location, claim: OutputClaim
) -> None:
    committer = expecting(output, claim, range(6))
    attempts = [attempt(output, claim, ids) for ids in (range(4), range(4), range(2, 6), [4, 5])]
    committer.commit(attempts)
    assert ids_in(output, "maps") == list(range(6))
    assert committer.left_out == 8
    committer.clear()
    assert (output / "attempts").names() == []


def test_nothing_is_committed_before_it_is_known_what_is_expected(
    output: Location, claim: OutputClaim
) -> None:
    committer = Committer(output, claim)
    committer.commit([attempt(output, claim, range(4))])
    assert committer.left_out == 4
    assert (output / "commits").names() == []


def test_clearing_leaves_what_is_of_others(output: Location, claim: OutputClaim) -> None:
    attempt(output, claim, range(4), failed=[1])
    others = {f"attempts/{name}" for name in ("e000009-later-0f.maps.parquet", "notes.txt")}
    for name in others:
        (output / name).write_bytes(b"x")
    expecting(output, claim, ()).clear()
    assert {name for name in tree(output) if name.startswith("attempts/")} == others


# Another run takes over


@contextmanager
def taken_over(output: Location, claim: OutputClaim) -> Iterator[OutputClaim]:
    """Another run holds the output, and this one does not know yet."""
    claim._record["process"] = "another-boot:1:1"
    claim._beat()
    with OutputClaim(output, RUNS[1], clock=Hands()) as other:
        yield other


def test_a_run_that_was_taken_over_commits_nothing(output: Location, claim: OutputClaim) -> None:
    ours = attempt(output, claim, range(4))
    committer = expecting(output, claim, range(4))
    with taken_over(output, claim):
        before = tree(output)
        with pytest.raises(OutputConflictError, match=f"run {RUNS[1]} took over"):
            committer.commit([ours])
        with pytest.raises(OutputConflictError):
            committer.clear()
        assert tree(output) == before
    assert committer.maps == 0


def test_a_run_that_is_taken_over_behind_its_record_moves_nothing(
    output: Location, claim: OutputClaim
) -> None:
    ours = attempt(output, claim, range(4))
    contexts: list[object] = []

    def take_over(kind: str, path: str) -> None:
        if kind == "list" and (output / "commits").names() and not contexts:
            context = taken_over(output, claim)
            contexts.append(context)
            context.__enter__()

    place = watching(claim, take_over)
    committer = expecting(place, claim, range(4))
    with pytest.raises(OutputConflictError, match=f"run {RUNS[1]} took over"):
        committer.commit([ours])
    assert contexts
    assert not of_data(tree(output))
    assert committer.maps == 0
    found = Commits.read(output)
    assert found.done().tolist() == [0, 1, 2, 3], "who takes over finds it, and moves it"
    assert len(found.unmoved) == 1


def test_a_run_that_is_taken_over_while_it_writes_says_so(
    output: Location, claim: OutputClaim, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = attempt(output, claim, range(4))
    committer = expecting(output, claim, range(4))
    replace = os.replace

    def recover_meanwhile(source: str, target: str) -> None:
        monkeypatch.setattr(os, "replace", replace)
        recover(output, contexts.enter_context(taken_over(output, claim)))
        assert not Path(source).exists(), "what is half written is removed"
        replace(source, target)

    with ExitStack() as contexts:
        monkeypatch.setattr(os, "replace", recover_meanwhile)
        with pytest.raises(OutputConflictError, match="took over"), claim.telling_loss():
            committer.commit([ours])
    assert Commits.read(output).done().tolist() == []


def test_a_run_that_has_given_the_output_back_commits_nothing(
    output: Location, claim: OutputClaim
) -> None:
    ours = attempt(output, claim, range(4))
    claim.release()
    with pytest.raises(OutputConflictError, match=r"has given .* back"):
        expecting(output, claim, range(4)).commit([ours])
    assert not of_data(tree(output))


def test_an_attempt_that_has_vanished_is_a_sentence(output: Location, claim: OutputClaim) -> None:
    ours = attempt(output, claim, range(4))
    (output / ours.files["maps"][0]).delete()
    with pytest.raises(StorageError, match="has vanished before it was moved to maps/"):
        expecting(output, claim, range(4)).commit([ours])


def test_what_could_not_be_moved_is_counted_and_the_next_run_moves_it(
    output: Location, claim: OutputClaim
) -> None:
    def refuse(kind: str, path: str) -> None:
        if kind == "read":
            raise PermissionError(path)

    ours = attempt(output, claim, range(4), failed=[1])
    committer = expecting(watching(claim, refuse), claim, range(4))
    with pytest.raises(PermissionError):
        committer.commit([ours])
    assert not of_data(tree(output))
    assert (committer.maps, committer.errors.total()) == (3, 1)
    claim.release()
    assert run(output, range(4), run_id=RUNS[1]).count(RUNS[0]) == (3, {"truncated": 1})
    check_whole(output, 4)


def test_a_file_that_was_moved_already_stays(output: Location, claim: OutputClaim) -> None:
    committer = expecting(output, claim, range(4))
    committer.commit([attempt(output, claim, range(4), failed=[1])])
    (record,) = Commits.read(output).records
    before = {name: (output / name).read_bytes() for name in of_data(tree(output))}
    move_to_places(output, record.files)
    assert {name: (output / name).read_bytes() for name in of_data(tree(output))} == before


# In a thread


def test_what_comes_is_committed_in_a_thread(output: Location, claim: OutputClaim) -> None:
    committer = expecting(output, claim, range(12))
    counted: list[int] = []
    with committer.at_work(lambda: counted.append(committer.maps)) as waiting:
        for start in range(0, 12, 3):
            waiting.add(attempt(output, claim, range(start, start + 3)))
    assert ids_in(output, "maps") == list(range(12))
    assert counted
    assert counted[-1] == 12
    assert "commits" not in {thread.name for thread in threading.enumerate()}


def test_what_waits_is_committed_together(output: Location, claim: OutputClaim) -> None:
    committer = expecting(output, claim, range(70))
    ours = [attempt(output, claim, [number]) for number in range(70)]
    asked: list[int] = []
    ask, first = claim.ask, threading.Event()

    def count() -> None:
        first.wait(10)
        asked.append(committer.maps)
        ask()

    claim.ask = count  # type: ignore[method-assign]
    with committer.at_work(lambda: None) as waiting:
        for one in ours:
            waiting.add(one)
        first.set()
    assert ids_in(output, "maps") == list(range(70))
    assert len(asked) <= 8, "two questions for a group of at most 32"


@pytest.mark.parametrize("error", [OSError("no space"), OutputConflictError("gone"), Killed()])
def test_what_keeps_attempts_from_being_committed_is_raised_where_they_come_from(
    output: Location, claim: OutputClaim, error: BaseException
) -> None:
    def refuse() -> None:
        raise error

    ours = [attempt(output, claim, [number]) for number in range(3)]
    claim.ask = refuse  # type: ignore[method-assign]
    committer = expecting(output, claim, range(3))
    with pytest.raises(type(error)), committer.at_work(lambda: None) as waiting:
        waiting.add(ours[0])  # at the end of the context
    committer = expecting(output, claim, range(3))
    waiting = CommitQueue(committer, lambda: None)
    waiting.add(ours[1])
    waiting.finish()
    with pytest.raises(type(error)):
        waiting.add(ours[2])
    assert committer.maps == 0


def test_a_counter_that_fails_is_heard_as_well(output: Location, claim: OutputClaim) -> None:
    def fail() -> None:
        raise KeyError("the tracker is gone")

    with (
        pytest.raises(KeyError),
        expecting(output, claim, [1]).at_work(fail) as waiting,
    ):
        waiting.add(attempt(output, claim, [1]))


def test_what_had_come_when_a_run_ends_early_is_committed(
    output: Location, claim: OutputClaim
) -> None:
    committer = expecting(output, claim, range(6))

    def stopped() -> None:
        with committer.at_work(lambda: None) as waiting:
            waiting.add(attempt(output, claim, range(3)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert ids_in(output, "maps") == [0, 1, 2]
    assert (committer.maps, committer.remaining) == (3, 3)


# At every request


def test_what_is_not_committed_is_invisible_at_every_request(output: Location) -> None:
    seen: list[int] = []

    def look(kind: str, path: str) -> None:
        visible = of_data(tree(output))
        assert visible <= named(output), f"before the {kind} of {path}"
        seen.append(len(visible))

    run(Watched(output, look), range(10), failed=[1, 4, 5, 6, 7])
    assert {0, 4} <= set(seen)
    run(Watched(output, look), range(20), run_id=RUNS[1])
    assert ids_in(output, "maps") == [0, 2, 3, 8, 9, *range(10, 20)]
    assert ids_in(output, "errors") == [1, 4, 5, 6, 7]


def check_whole(output: Location, images: int) -> None:
    """Each image has one row, and nothing else is left."""
    found = Commits.read(output)
    assert sorted([*ids_in(output, "maps"), *ids_in(output, "errors")]) == list(range(images))
    assert found.done().tolist() == list(range(images))
    assert of_data(tree(output)) == named(output)
    assert (found.void, found.unmoved, found.strays) == ({}, (), ())
    assert (output / "attempts").names() == []


def test_killed_at_any_request_it_goes_on_with_each_image_exactly_once(tmp_path: Path) -> None:
    kept = []
    for number in itertools.count():
        output = locate(str(tmp_path / f"{number}"))
        was_killed = run_until(at_request(number), output, range(10), failed=[1, 5])
        visible = {name: (output / name).read_bytes() for name in of_data(tree(output))}
        assert set(visible) <= named(output), number
        committed = Commits.read(output).done().tolist()
        kept.append(len(committed))
        found = run(output, range(10), failed=[1, 2, 3], run_id=RUNS[1])
        assert found.done().tolist() == committed, number
        check_whole(output, 10)
        assert {name: (output / name).read_bytes() for name in visible} == visible, number
        if not was_killed:
            break
    assert kept[0] == 0
    assert kept[-1] == 10
    assert len(kept) > 30
    assert {4, 8, 10} & set(kept), "between the records of a group"


@pytest.mark.parametrize(
    ("kind", "folder"), [("read", "attempts"), ("write", "maps"), ("delete", "attempts")]
)
def test_killed_while_it_puts_in_order_what_a_killed_one_has_left_it_goes_on(
    tmp_path: Path, kind: str, folder: str
) -> None:
    for number in itertools.count():
        output = locate(str(tmp_path / f"{number}"))
        moment = partial(is_request, kind, f"/{folder}/")
        assert run_until(moment, output, range(8), failed=[1])
        committed = Commits.read(output).done().tolist()
        was_killed = run_until(at_request(number), output, range(8), run_id=RUNS[1])
        assert set(committed) <= set(Commits.read(output).done().tolist())
        run(output, range(8), run_id=RUNS[2])
        check_whole(output, 8)
        if not was_killed:
            break
