"""Places: what keeps INPUT and OUTPUT from being used is found before anything is started."""

import os
from pathlib import Path

import boto3
import pytest

from job.config import JobConfig
from job.errors import StorageError
from job.inputs.listed_files import ListedFiles
from job.prepare import check_output, open_input_and_output
from job.storage.opening import locate
from tests.conftest import S3


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"x")
    return tmp_path / "in"


def test_places_that_can_be_used_are_opened_and_nothing_is_written(
    source: Path, tmp_path: Path, s3: S3
) -> None:
    for output in (
        tmp_path / "out",
        tmp_path / "new [1]" / "deep*" / "out",
        "s3://bucket/places/new",
    ):
        opened = open_input_and_output(JobConfig(input=str(source), output=str(output)))
        assert [place.uri for place in opened] == [str(source), str(output)]
    assert os.listdir(tmp_path) == ["in"]
    assert "Contents" not in boto3.client("s3", endpoint_url=s3.endpoint).list_objects_v2(
        Bucket="bucket", Prefix="places/new"
    )


def test_an_input_that_is_not_there_is_found_out(source: Path, s3: S3) -> None:
    ListedFiles(str(source)).check()
    ListedFiles(f"{source}/*.jpg").check()
    for missing in (f"{source}/none", f"{source}/*.png", "s3://bucket/none", "s3://bucket/n*.jpg"):
        with pytest.raises(StorageError, match="nothing is there"):
            ListedFiles(missing).check()
    with pytest.raises(StorageError, match="cannot be listed: the bucket is not there"):
        ListedFiles("s3://no-such-bucket/x").check()


def test_an_output_that_cannot_be_made_is_refused(source: Path, tmp_path: Path, s3: S3) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    boto3.client("s3", endpoint_url=s3.endpoint).put_object(
        Bucket="bucket", Key="places/file", Body=b"x"
    )
    for output, words in (
        (tmp_path / "file", "a file is in the way"),
        (tmp_path / "file" / "out", "a file is in the way"),
        (tmp_path / "link" / "out", "a link that leads nowhere"),
        ("s3://no-such-bucket/out", "the bucket is not there"),
        ("s3://bucket/places/file", "a file is in the way"),
    ):
        with pytest.raises(StorageError, match=rf"OUTPUT .* cannot be written: .*{words}"):
            check_output(locate(str(output)), str(output))
    check_output(locate("s3://bucket/places/fil"), "")
