"""Error rows: what a run could not do, and what of it is still open."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from job import schema
from job.outputs.attempts import to_error_rows
from job.outputs.claims import OutputClaim
from job.outputs.commits import Commits
from job.outputs.error_rows import first_errors, open_errors
from job.outputs.recovery import recover
from job.storage import parquet
from job.storage.location import Location
from job.storage.opening import locate
from tests.runs import RUNS, Hands, at_move, attempt, expecting, run_until


def test_the_first_errors_are_those_of_the_run(tmp_path: Path) -> None:
    output = locate(str(tmp_path))
    reason = {"stage": "decode", "error_type": "empty", "message": "why", "retryable": False}
    for run, task in (("run-0", 0), ("run-1", 0), ("run-1", 1), ("run-10", 0)):
        uris = [f"{run}/{task}/{number}.jpg" for number in range(3)]
        table = pa.table({"id": range(3), "uri": uris, "error": [reason] * 3})
        name = f"e000001-{run}-{task:06d}.parquet"
        (output / "errors" / name).write_bytes(parquet.to_bytes(to_error_rows(table, run)))
    found = first_errors(output, "run-1", 5)
    assert [uri for uri, _ in found] == [
        *(f"run-1/0/{number}.jpg" for number in range(3)),
        *(f"run-1/1/{number}.jpg" for number in range(2)),
    ]
    assert {reason for _, reason in found} == {"why"}


def commit(
    output: Location, run_id: str, ids: list[int], failed: list[int], retryable: list[int]
) -> None:
    """As a run does, also with images that have an error row already."""
    with OutputClaim(output, run_id, clock=Hands()) as claim:
        recover(output, claim)
        done = attempt(output, claim, ids, failed, retryable=retryable)
        expecting(output, claim, ids).commit([done])


def test_of_each_image_the_last_error_counts_until_it_has_a_map(output: Location) -> None:
    assert open_errors(Commits.read(output), only_retryable=False).dtype == np.int64
    # The later run has the lower id: its claim says which is the later one.
    commit(output, RUNS[1], [1, 2, 3, 4, 5], failed=[3], retryable=[1, 2, 4])
    commit(output, RUNS[0], [2, 3, 4], failed=[2], retryable=[3])
    found = Commits.read(output)
    assert open_errors(found, only_retryable=False).tolist() == [1, 2, 3]
    assert open_errors(found, only_retryable=True).tolist() == [1, 3]


def test_errors_that_are_not_moved_yet_or_were_never_committed_are_told_apart(
    output: Location,
) -> None:
    assert run_until(at_move, output, range(4), failed=[1, 2])
    with OutputClaim(output, RUNS[1], clock=Hands()) as claim:
        attempt(output, claim, [0, 3], failed=[3])
    assert (output / "errors").names() == []
    assert open_errors(Commits.read(output), only_retryable=False).tolist() == [1, 2]


def test_errors_of_earlier_formats_come_before_those_of_later_runs(output: Location) -> None:
    earlier = "20991231T000000-ffff-000000.parquet"
    rows = pa.Table.from_pylist(
        [
            {"id": number, "uri": "a.jpg", "run_id": "20991231T000000-ffff"}
            | {"stage": "fetch", "error_type": "missing", "message": "why", "retryable": True}
            for number in (1, 2)
        ],
        schema=schema.ERRORS,
    )
    (output / "errors" / earlier).write_bytes(parquet.to_bytes(rows))
    (output / "commits" / earlier).write_bytes(parquet.to_bytes(rows.select(["id"])))
    commit(output, RUNS[0], [2], failed=[2], retryable=[])
    found = Commits.read(output)
    assert open_errors(found, only_retryable=False).tolist() == [1, 2]
    assert open_errors(found, only_retryable=True).tolist() == [1]


@pytest.mark.parametrize("count", [0, 2])
def test_error_rows_have_the_columns_of_the_contract(count: int) -> None:
    reason = {"stage": "decode", "error_type": "empty", "message": "why", "retryable": False}
    rows = pa.Table.from_pylist(
        [{"id": number, "uri": "a.jpg", "error": reason} for number in range(2)]
    )
    table = to_error_rows(rows.slice(0, count), "run-1")
    assert table.schema.equals(schema.ERRORS)
    assert table.to_pylist() == [
        {"id": number, "uri": "a.jpg", **reason, "run_id": "run-1"} for number in range(count)
    ]
