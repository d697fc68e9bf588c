"""Places: what keeps INPUT and OUTPUT from being used is found before anything is started."""

import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from job.errors import ConfigError, StorageError
from job.prepare import check_input, check_output, open_places
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
        opened = open_places(str(source), str(output))
        assert opened[0].path == str(source)
    assert os.listdir(tmp_path) == ["in"]
    assert "Contents" not in boto3.client("s3", endpoint_url=s3.endpoint).list_objects_v2(
        Bucket="bucket", Prefix="places/new"
    )


def test_an_input_that_is_not_there_is_found_out(source: Path, s3: S3) -> None:
    check_input(str(source))
    check_input(f"{source}/*.jpg")
    for missing in (f"{source}/none", f"{source}/*.png", "s3://bucket/none", "s3://bucket/n*.jpg"):
        with pytest.raises(StorageError, match="nothing is there"):
            check_input(missing)
    with pytest.raises(StorageError, match="cannot be listed: the bucket is not there"):
        check_input("s3://no-such-bucket/x")


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("zip://out::photos.zip", "an archive cannot be written"),
        ("simplecache::zip://out::photos.zip", "an archive cannot be written"),
        ("simplecache::https://127.0.0.1:1/out", "https:// cannot be written"),
        ("https://127.0.0.1:1/out", "https:// cannot be written"),
    ],
)
def test_an_output_that_is_only_read_is_refused(output: str, words: str, source: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        open_places(str(source), output)


def test_a_folder_of_another_filesystem_is_no_archive(tmp_path: Path) -> None:
    check_output(f"dir://out::file://{tmp_path}")


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
            check_output(str(output))
    check_output("s3://bucket/places/fil")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="permission denied"):
            check_output(str(tmp_path / "out"))
    finally:
        tmp_path.chmod(0o700)


def test_places_are_looked_at_without_what_takes_seconds_to_load(
    source: Path, tmp_path: Path
) -> None:
    script = (
        "import sys; from job.prepare import open_places; from job.inputs import manifest;"
        f"open_places({str(source)!r}, {str(tmp_path / 'out')!r});"
        "print({'ray', 'torch', 'transformers', 'pandas', 'numba'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.stdout.decode().strip() == "set()", done.stderr.decode()
