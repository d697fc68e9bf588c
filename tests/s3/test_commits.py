"""Commits: nothing double or half after any crash, on S3 as well."""

from job.outputs.commits import Commits
from job.storage.opening import locate
from tests.conftest import S3
from tests.unit.test_commits import MAPS, PENDING, leave


def test_recovery_works_on_s3_as_well(s3: S3) -> None:
    place = locate("s3://bucket/recovered")
    leave(place, PENDING, MAPS, "commits/run-000001.parquet", "maps/run-000001.parquet")
    assert Commits(place).recover() == 1
    assert (place / "maps").names() == (place / "commits").names() == ["run-000001.parquet"]
    assert Commits(place).done().tolist() == [1, 2]
