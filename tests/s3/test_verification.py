"""Verification of an OUTPUT on S3."""

import pytest

from job.cli import text
from job.results.verification import verify
from job.storage.opening import locate
from tests.conftest import S3
from tests.made_outputs import do_run, files

pytestmark = pytest.mark.usefixtures("s3")


def test_an_output_on_s3_is_verified_as_one_in_a_folder(s3: S3) -> None:
    output = locate("s3://bucket/verified/out")
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
        output.fs.pipe_file(f"{output.path}/{marker}", b"")  # type: ignore[attr-defined]
    # Beside, and not within.
    (output / "maps-of-others" / "x.parquet").write_bytes(b"")
    assert verify(output).is_complete

    name = files(output, "maps")[0]
    (output / "maps" / "deep" / "copy.parquet").write_bytes((output / name).read_bytes())
    found = verify(output).problems
    assert found["files that no run has written"] == (1, ["maps/deep/copy.parquet"])
    assert found["images with more than one map"][0] == 4
