"""Error rows: what a run could not do, and what of it is still open."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from job import schema
from job.outputs.attempts import to_error_rows
from job.outputs.error_rows import first_errors, open_errors
from job.storage import parquet
from job.storage.location import Location
from job.storage.opening import locate


def test_the_first_errors_are_those_of_the_run(tmp_path: Path) -> None:
    output = locate(str(tmp_path))
    reason = {"stage": "decode", "error_type": "empty", "message": "why", "retryable": False}
    for run, task in (("run-0", 0), ("run-1", 0), ("run-1", 1)):
        uris = [f"{run}/{task}/{number}.jpg" for number in range(3)]
        table = pa.table({"id": range(3), "uri": uris, "error": [reason] * 3})
        name = f"{run}-{task:06d}.parquet"
        (output / "errors" / name).write_bytes(parquet.to_bytes(to_error_rows(table, run)))
    found = first_errors(output, "run-1", 5)
    assert [uri for uri, _ in found] == [
        *(f"run-1/0/{number}.jpg" for number in range(3)),
        *(f"run-1/1/{number}.jpg" for number in range(2)),
    ]
    assert {reason for _, reason in found} == {"why"}


def fail(output: Location, name: str, **retryable: bool) -> None:
    """Leave a file of error rows: ``i1=True`` is image 1, which may work later."""
    rows = [
        {"id": int(image[1:]), "uri": "a.jpg", "run_id": name}
        | {"stage": "fetch", "error_type": "missing", "message": "why", "retryable": may_work}
        for image, may_work in retryable.items()
    ]
    table = pa.Table.from_pylist(rows, schema=schema.ERRORS)
    (output / "errors" / f"{name}-000000.parquet").write_bytes(parquet.to_bytes(table))


def test_of_each_image_the_last_error_counts_until_it_has_a_map(output: Location) -> None:
    assert open_errors(output, only_retryable=False).dtype == np.int64
    fail(output, "run-1", i1=True, i2=True, i3=False, i4=True)
    fail(output, "run-2", i2=False, i3=True)
    ids = pa.table({"id": pa.array([4], pa.int64())})
    (output / "maps" / "run-2-000000.parquet").write_bytes(parquet.to_bytes(ids))
    assert open_errors(output, only_retryable=False).tolist() == [1, 2, 3]
    assert open_errors(output, only_retryable=True).tolist() == [1, 3]


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
