"""Commits: which images are done, as records say whose data are there."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from job.errors import StorageError
from job.outputs import commits, names
from job.outputs.attempts import write_manifest
from job.outputs.claims import OutputClaim
from job.outputs.commits import Commits
from job.outputs.committer import Committer
from job.outputs.recovery import recover
from job.storage import parquet
from job.storage.location import Location
from tests.runs import (
    RUNS,
    Hands,
    Watched,
    at_move,
    attempt,
    expecting,
    listed,
    overtaking,
    run,
    run_until,
    tree,
)

pytestmark = pytest.mark.usefixtures("quick_disk")

# A run of formats 1 and 2, whose records had ids and nothing else.
EARLIER = "20261128T230544-0c80"
PENDING, COMMITTED = (
    f"commits/{EARLIER}-000000.pending.parquet",
    f"commits/{EARLIER}-000000.parquet",
)
MAPS, ERRORS = f"maps/{EARLIER}-000000.parquet", f"errors/{EARLIER}-000000.parquet"
# What the first task of a first run is called.
FIRST = f"e000001-{RUNS[0]}-000000.parquet"


def ids_file(ids: list[int]) -> bytes:
    return parquet.to_bytes(pa.table({"id": pa.array(ids, pa.int64())}))


def leave(output: Location, *names: str) -> None:
    """What a run of formats 1 and 2 has left: records and data files."""
    for name in names:
        (output / name).write_bytes(ids_file([1, 2]))


def files_of(output: Location, name: str) -> list[list[object]]:
    """The files that a record names."""
    metadata = parquet.read(output / name).schema.metadata
    found: list[list[object]] = json.loads(metadata[b"files"])
    return found


def test_a_record_names_files_with_their_sizes_and_images_with_their_errors(
    output: Location,
) -> None:
    run(output, range(4), failed=[1, 3])
    rows = parquet.read(output / "commits" / FIRST).to_pylist()
    assert {row["id"]: row["error_type"] for row in rows} == {
        0: None,
        1: "truncated",
        2: None,
        3: "truncated",
    }
    files = files_of(output, f"commits/{FIRST}")
    assert [file[:2] for file in files] == [
        [f"{folder}/{FIRST}", Path(output.path, folder, FIRST).stat().st_size]
        for folder in ("maps", "errors")
    ]
    assert all(str(file[2]).startswith(f"attempts/e000001-{RUNS[0]}-") for file in files)
    assert tree(output) == {
        f"claims/e000001-{RUNS[0]}.json",
        f"claims/e000001-{RUNS[0]}.seal.parquet",
        *(f"{folder}/{FIRST}" for folder in ("commits", "maps", "errors")),
    }


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def lengthen(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"x")


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("folder", ["maps", "errors"])
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (Path.unlink, "is missing"),
        (cut, r"has [\d,]+ bytes of [\d,]+"),
        (lengthen, r"has [\d,]+ bytes of [\d,]+"),
        (empty, r"has 0 bytes of [\d,]+"),
    ],
)
def test_a_record_whose_data_are_not_as_it_says_is_void(
    output: Location, folder: str, spoil: Callable[[Path], object], reason: str
) -> None:
    run(output, range(4), failed=[1])
    run(output, range(8), failed=[5], run_id=RUNS[1])
    spoil(Path(output.path, folder, FIRST))
    found = Commits.read(output)
    assert found.done().tolist() == [4, 5, 6, 7]
    assert list(found.void) == [f"commits/{FIRST}"]
    assert re.fullmatch(f"{folder}/{FIRST} {reason}", found.void[f"commits/{FIRST}"])
    other = {"maps": "errors", "errors": "maps"}[folder]
    assert f"{other}/{FIRST}" in found.strays, "what is left of it is nobody's"


@pytest.mark.parametrize("spoil", [empty, cut])
def test_a_record_that_was_cut_short_is_void(
    output: Location, spoil: Callable[[Path], object]
) -> None:
    assert run_until(at_move, output, range(4))
    spoil(Path(output.path, "commits", FIRST))
    found = Commits.read(output)
    assert found.done().tolist() == []
    assert found.void == {f"commits/{FIRST}": "it was not written to its end"}


@pytest.mark.parametrize("spoil", [empty, cut])
def test_a_damaged_record_of_files_that_readers_see_is_a_sentence(
    output: Location, spoil: Callable[[Path], object]
) -> None:
    run(output, range(4))
    spoil(Path(output.path, "commits", FIRST))
    with pytest.raises(StorageError, match=f"{FIRST} is damaged, or no Parquet file"):
        Commits.read(output)


def test_what_was_committed_and_not_moved_yet_counts(output: Location) -> None:
    assert run_until(at_move, output, range(4), failed=[1])
    found = Commits.read(output)
    assert found.done().tolist() == [0, 1, 2, 3]
    assert {file.name for file in found.unmoved} == {f"maps/{FIRST}", f"errors/{FIRST}"}
    assert not found.strays
    assert not found.void
    assert not tree(output) & {f"maps/{FIRST}", f"errors/{FIRST}"}


@pytest.mark.parametrize("spoil", [Path.unlink, cut, empty])
def test_what_was_committed_and_has_vanished_before_it_was_moved_is_void(
    output: Location, spoil: Callable[[Path], object]
) -> None:
    assert run_until(at_move, output, range(4), failed=[1])
    spoil(next(Path(output.path, "attempts").glob("*.errors.parquet")))
    found = Commits.read(output)
    assert found.done().tolist() == []
    assert found.void == {f"commits/{FIRST}": f"errors/{FIRST} is missing"}
    assert not found.unmoved


def test_an_attempt_that_nobody_has_committed_is_a_stray_and_counts_nothing(
    output: Location,
) -> None:
    with OutputClaim(output, RUNS[0], clock=Hands()) as claim:
        ours = attempt(output, claim, range(4), [1])
    found = Commits.read(output)
    assert found.done().tolist() == []
    assert set(found.strays) == {name for name, _ in ours.files.values()}


def test_a_listing_that_lags_voids_nothing(output: Location) -> None:
    class Lagging(Watched):
        """A storage that lists no data yet."""

        def entries(self) -> dict[str, int]:
            return super().entries() if self.path.endswith("commits") else {}

    place = Lagging(output, lambda kind, path: None)
    run(output, range(4), failed=[1])
    assert Commits.read(place).done().tolist() == [0, 1, 2, 3]
    assert run_until(at_move, output, range(8), run_id=RUNS[1])
    found = Commits.read(place)
    assert found.done().tolist() == list(range(8))
    assert len(found.unmoved) == 1


def test_files_of_somebody_else_are_neither_records_nor_strays(output: Location) -> None:
    run(output, range(4))
    theirs = {
        *(
            "maps/backup-20260101.parquet",
            "maps/notes.txt",
            f"maps/{FIRST[8:]}",
            f"maps/{FIRST}.bak",
        ),
        *("errors/mine.parquet", "manifest/part-000000000000.parquet", "manifest/old.parquet"),
        *("commits/backup-20260101.parquet", "commits/notes.txt", "maps/sub/x.parquet"),
        *("checkpoint/model.parquet", "claims/README.md", "mine.parquet"),
    }
    for name in theirs:
        (output / name).write_bytes(ids_file([77]))
    found = Commits.read(output)
    assert found.done().tolist() == [0, 1, 2, 3]
    assert not theirs.intersection(found.strays)
    assert not found.void


# Seals


def test_a_seal_names_the_records_that_have_counted(output: Location) -> None:
    run(output, range(8))
    assert run_until(at_move, output, range(12), run_id=RUNS[1])
    run(output, range(12), run_id=RUNS[2])
    for epoch, count in enumerate((0, 2, 3), start=1):
        seal = f"claims/e00000{epoch}-{RUNS[epoch - 1]}.seal.parquet"
        assert len(parquet.read(output / seal)) == count
    assert Commits.read(output).done().tolist() == list(range(12))


def test_a_record_that_comes_when_a_later_run_has_gone_on_never_counts(output: Location) -> None:
    with OutputClaim(output, RUNS[0], clock=Hands()) as first:
        committer = expecting(output, first, range(4))
        ours = attempt(output, first, range(4), [1])
        data = {name: (output / name).read_bytes() for name, _ in ours.files.values()}
        record = committer._record(ours)  # paused here, before it is written
    run(output, range(4), run_id=RUNS[1])
    late = {**data, record.name: record.to_bytes()}
    for name, content in late.items():
        (output / name).write_bytes(content)
    found = Commits.read(output)
    assert [of.run_id for of in found.records] == [RUNS[1]]
    assert found.void == {record.name: "it came when a later run had gone on without it"}
    assert set(found.strays) == set(data)

    for file in record.files:  # and where its own run would have moved them
        (output / file.name).write_bytes(data[str(file.attempt)])
    assert {file.name for file in record.files} <= set(Commits.read(output).strays)
    run(output, range(4), run_id=RUNS[2])
    assert not tree(output).intersection({*late, *(file.name for file in record.files)})
    assert Commits.read(output).done().tolist() == [0, 1, 2, 3]


def test_a_seal_decides_about_a_run_of_the_same_epoch_that_has_a_lower_name(
    output: Location,
) -> None:
    """The higher one holds the output when it comes, also when the other had begun by then."""
    early = OutputClaim(output, RUNS[0], clock=Hands())
    late: dict[str, bytes] = {}

    def begin() -> None:
        committer = expecting(output, early.__enter__(), range(8))
        committer.commit([attempt(output, early, range(4))])
        ours = attempt(output, early, range(4, 8))
        late[committer._record(ours).name] = committer._record(ours).to_bytes()
        late.update((name, (output / name).read_bytes()) for name, _ in ours.files.values())

    with overtaking(output, RUNS[1], begin) as claim:
        assert (early.epoch, claim.epoch) == (1, 1)
        assert recover(output, claim).done().tolist() == [0, 1, 2, 3]
        assert not tree(output).intersection(late), "what was not committed is removed"
        for name, content in late.items():
            (output / name).write_bytes(content)
        found = Commits.read(output)
        assert found.done().tolist() == [0, 1, 2, 3]
        assert set(found.void) | set(found.strays) == set(late)
    early.release()


def test_of_seals_the_highest_decides_however_late_a_lower_one_comes(output: Location) -> None:
    run(output, range(4))
    run(output, range(8), run_id=RUNS[1])
    run(output, range(8), run_id=RUNS[2])
    commits.seal(output, f"e000002-{RUNS[1]}", ())
    commits.seal(output, f"e000001-{RUNS[0]}", ())
    assert Commits.read(output).done().tolist() == list(range(8))


def test_records_count_by_themselves_from_the_epoch_of_the_last_seal_on(output: Location) -> None:
    with OutputClaim(output, RUNS[0], clock=Hands()) as claim:
        recover(output, claim)
        committer = expecting(output, claim, range(8))
        for part in (range(4), range(4, 8)):
            committer.commit([attempt(output, claim, part)])
        assert Commits.read(output).done().tolist() == list(range(8))
    with OutputClaim(output, RUNS[1], clock=Hands()):
        assert Commits.read(output).done().tolist() == list(range(8)), "none of its own yet"


# What is asked of commits


def test_done_ids_are_sorted_and_single(output: Location) -> None:
    run(output, [9, 2, 7], failed=[7])
    run(output, [2, 1, 7], run_id=RUNS[1])
    done = Commits.read(output).done()
    assert done.tolist() == [1, 2, 7, 9]
    assert done.dtype == np.int64


def test_nothing_is_done_where_nothing_is(output: Location) -> None:
    assert Commits.read(output) == Commits(output)
    assert Commits(output).done().tolist() == []
    assert not commits.has_begun(output)


def test_maps_and_errors_are_counted_by_run(output: Location) -> None:
    run(output, range(6), failed=[1, 5])
    run(output, range(9), failed=[8], run_id=RUNS[1])
    found = Commits.read(output)
    assert found.count(RUNS[0]) == (4, {"truncated": 2})
    assert found.count(RUNS[1]) == (2, {"truncated": 1})
    assert found.count(RUNS[2]) == (0, {})


def test_runs_are_those_that_have_made_rows_oldest_first(output: Location) -> None:
    with OutputClaim(output, RUNS[9], clock=Hands()) as claim:
        recover(output, claim)
        Committer(output, claim).commit([write_manifest(output, claim.name, listed(range(4)))])
    assert commits.runs(output) == [], "a manifest is no map"
    assert not commits.has_begun(output)
    run(output, range(4), run_id=RUNS[2])
    run(output, range(8), failed=range(8), run_id=RUNS[1])
    run(output, range(8), run_id=RUNS[0])
    leave(output, COMMITTED, MAPS)
    assert commits.runs(output) == [EARLIER, RUNS[2], RUNS[1]]
    assert commits.has_begun(output)


def test_parts_of_the_manifest_are_found_wherever_they_lie(output: Location) -> None:
    (output / "manifest" / "part-000000000000.parquet").write_bytes(
        parquet.to_bytes(listed(range(2)))
    )
    ids = []
    for number, run_id in enumerate(RUNS[:3]):
        place = Watched(output, lambda kind, path: None)
        with OutputClaim(place, run_id, clock=Hands()) as claim:
            found = recover(place, claim)
            committer = Committer(place, claim)
            part = write_manifest(place, claim.name, listed(range(2 + number, 3 + number)))
            committer.commit([part])
        ids.append([parquet.read(file)["id"].to_pylist() for file in found.manifest_files()])
    assert ids == [[[0, 1]], [[0, 1], [2]], [[0, 1], [2], [3]]]
    with OutputClaim(output, RUNS[3], clock=Hands()) as claim:
        left = write_manifest(output, claim.name, listed([9]))
        name, _ = left.files["manifest"]
        assert name not in {file.path for file in Commits.read(output).manifest_files()}
        record = Committer(output, claim)._record(left)
        (output / record.name).write_bytes(record.to_bytes())
    found = Commits.read(output)
    assert [file.name for file in found.unmoved] == [f"manifest/{names.base(record.name)}"]
    assert found.manifest_files()[-1] == output / name
    assert found.done().tolist() == []


# Formats 1 and 2


@pytest.mark.parametrize(
    ("left", "kept", "is_done"),
    [
        ([], [], False),
        ([PENDING], [], False),
        ([PENDING, MAPS], [], False),
        ([PENDING, ERRORS], [], False),
        ([PENDING, MAPS, ERRORS], [], False),
        ([MAPS], [], False),
        ([PENDING, COMMITTED, MAPS, ERRORS], [COMMITTED, MAPS, ERRORS], True),
        ([COMMITTED, MAPS, ERRORS], [COMMITTED, MAPS, ERRORS], True),
        ([COMMITTED, ERRORS], [COMMITTED, ERRORS], True),
        ([COMMITTED], [], False),
        ([PENDING, COMMITTED], [], False),
    ],
)
def test_what_an_earlier_format_had_committed_counts_and_the_rest_is_removed(
    output: Location, left: list[str], kept: list[str], is_done: bool
) -> None:
    leave(output, *left)
    for run_id in RUNS[:2]:
        assert Commits.read(output).done().tolist() == ([1, 2] if is_done else [])
        with OutputClaim(output, run_id, clock=Hands()) as claim:
            recover(output, claim)
        rest = {name for name in tree(output) if EARLIER in name}
        assert rest == set(kept)


@pytest.mark.parametrize("spoilt", [[MAPS], [MAPS, ERRORS], [COMMITTED]])
def test_an_empty_file_of_an_earlier_format_counts_for_nothing(
    output: Location, spoilt: list[str]
) -> None:
    leave(output, COMMITTED, MAPS, ERRORS)
    for name in spoilt:
        (output / name).write_bytes(b"")
    found = Commits.read(output)
    assert found.done().tolist() == []
    assert list(found.void) == [COMMITTED]


def test_what_an_earlier_format_commits_behind_a_seal_never_counts(output: Location) -> None:
    run(output, range(4, 8))
    leave(output, COMMITTED, MAPS)
    assert Commits.read(output).done().tolist() == [4, 5, 6, 7]
    run(output, range(4, 8), run_id=RUNS[1])
    assert not tree(output) & {COMMITTED, MAPS}
