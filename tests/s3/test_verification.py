"""Verification of an OUTPUT on S3."""

from typing import Any

import pyarrow as pa
import pytest

from job.cli import text
from job.results.verification import verify
from job.storage import parquet
from job.storage.opening import locate
from job.storage.s3 import S3Location
from tests.conftest import S3
from tests.made_outputs import do_run, files, table

pytestmark = pytest.mark.usefixtures("s3")


def test_an_output_on_s3_is_verified_as_one_in_a_folder(s3: S3) -> None:
    output = locate("s3://bucket/verified/out")
    assert isinstance(output, S3Location)
    do_run(output, failing=(3,), tasks=2)
    verdict = verify(output, deep=True)
    assert not verdict.problems
    assert (verdict.maps, verdict.open_errors, verdict.not_done) == (9, 1, 2)
    do_run(output, failing=(3,))
    verdict = verify(output, deep=True)
    assert verdict.is_complete, text.of_verdict(verdict)
    assert not verdict.notes

    # As S3's console makes them: a folder is an object.
    for marker in ("maps/", "errors/", "maps/deep/"):
        output.fs.pipe_file(f"{output.path}/{marker}", b"")
    # Beside, and not within.
    (output / "maps-of-others" / "x.parquet").write_bytes(b"")
    assert verify(output).is_complete

    name = files(output, "maps")[0]
    (output / "maps" / "deep" / "copy.parquet").write_bytes((output / name).read_bytes())
    found = verify(output).problems
    assert found["files that no run has written"] == (1, ["maps/deep/copy.parquet"])
    assert found["images with more than one map"][0] == 4


def test_only_the_columns_that_are_asked_for_are_fetched(s3: S3) -> None:
    output = locate("s3://bucket/wide/out")
    assert isinstance(output, S3Location)
    do_run(output)
    name = files(output, "maps")[0]
    wide = table(output, name)
    png = pa.array([{"bytes": bytes(4_000_000), "path": None}] * len(wide), wide["map"].type)
    rows = wide.set_column(wide.column_names.index("map"), wide.schema.field("map"), png)
    data = parquet.to_bytes(rows, ("map.bytes",))
    (output / name).write_bytes(data)
    fetched = []

    async def call(method: str, *arguments: object, **options: Any) -> Any:
        if "Range" in options:
            begin, end = options["Range"].removeprefix("bytes=").split("-")
            fetched.append(int(end) - int(begin) + 1)
        return await type(output.fs)._call_s3(output.fs, method, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output.fs, "_call_s3", call)
        assert parquet.read(output / name, ["id", "uri", "run_id"]).num_rows == len(wide)
    assert 0 < sum(fetched) < 200_000 < len(data)
