"""Commits: nothing double or half after any crash, and what is done is known."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from job.outputs.commits import Commits
from job.storage.location import Location


def ids_file(ids: list[int]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"id": pa.array(ids, pa.int64())}), buffer)
    return buffer.getvalue()


def tree(output: Location) -> set[str]:
    root = Path(output.path)
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def leave(output: Location, *names: str) -> None:
    """What a crashed run has left: records and data files."""
    for name in names:
        (output / name).write_bytes(ids_file([1, 2]))


PENDING, COMMITTED = "commits/run-000000.pending.parquet", "commits/run-000000.parquet"
MAPS, ERRORS = "maps/run-000000.parquet", "errors/run-000000.parquet"


@pytest.mark.parametrize(
    ("left", "kept", "unfinished"),
    [
        ([], [], 0),
        ([PENDING], [], 1),
        ([PENDING, MAPS], [], 1),
        ([PENDING, ERRORS], [], 1),
        ([PENDING, MAPS, ERRORS], [], 1),
        ([PENDING, COMMITTED, MAPS, ERRORS], [COMMITTED, MAPS, ERRORS], 0),
        ([PENDING, COMMITTED], [COMMITTED], 0),
        ([COMMITTED], [COMMITTED], 0),
        ([COMMITTED, MAPS, ERRORS], [COMMITTED, MAPS, ERRORS], 0),
    ],
)
def test_recovery_keeps_what_was_committed_and_removes_the_rest(
    output: Location, left: list[str], kept: list[str], unfinished: int
) -> None:
    leave(output, *left)
    assert Commits(output).recover() == unfinished
    assert tree(output) == set(kept)
    assert Commits(output).recover() == 0
    assert Commits(output).done().tolist() == ([1, 2] if COMMITTED in kept else [])


def test_recovery_touches_nothing_of_other_tasks_or_runs(output: Location) -> None:
    others = [
        "commits/run-000001.parquet",
        "maps/run-000001.parquet",
        "maps/run-0000000.parquet",
        "maps/other-000000.parquet",
        "errors/run-000000.parquet.bak",
        "manifest/part-0.parquet",
        "runs/run.json",
    ]
    leave(output, PENDING, MAPS, *others)
    Commits(output).recover()
    assert tree(output) == set(others)


def test_done_ids_are_sorted_and_single(output: Location) -> None:
    (output / "commits" / "a.parquet").write_bytes(ids_file([5, 1, 3]))
    (output / "commits" / "b.parquet").write_bytes(ids_file([2, 3]))
    (output / "commits" / "c.pending.parquet").write_bytes(ids_file([9]))
    (output / "commits" / "notes.txt").write_bytes(b"")
    done = Commits(output).done()
    assert done.tolist() == [1, 2, 3, 5]
    assert done.dtype == np.int64


def test_nothing_is_done_where_nothing_is(output: Location) -> None:
    assert Commits(output).done().tolist() == []
    assert Commits(output).recover() == 0
