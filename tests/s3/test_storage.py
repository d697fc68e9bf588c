"""Storage: URIs to filesystems, reads, atomic writes, on a disk, in memory and on S3."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from job.errors import JobError
from job.inputs.listing import list_objects
from job.storage.opening import locate
from tests import hosted as hosted  # registers hosted://, contained:// and repository://
from tests.conftest import S3
from tests.unit.test_storage import names


def test_s3_places_keep_their_bucket(s3: S3) -> None:
    place = locate("s3://bucket/a/b/")
    assert (place.path, place.uri) == ("bucket/a/b", "s3://bucket/a/b")
    assert (place / "c").uri == "s3://bucket/a/b/c"


@pytest.mark.parametrize(
    "options",
    [
        {"no_such_option": 1},
        {"client_kwargs": {"nope": 1}},
        {"client_kwargs": 5},
        {"config_kwargs": {"nope": 1}},
        {"endpoint_url": "not a url"},
        {"profile": "nobody"},
        {"key": "only half of a pair"},
    ],
    ids=str,
)
def test_options_that_s3_does_not_take_end_in_a_sentence(
    s3: S3, options: dict[str, object]
) -> None:
    with pytest.raises(JobError, match=r"s3://|--storage-options"):
        names("s3://bucket/x", **options)


def test_storage_options_reach_the_filesystem(s3: S3) -> None:
    options = {"key": "other", "secret": "words", "endpoint_url": s3.endpoint}
    place = locate("s3://bucket/options", options)
    (place / "x").write_bytes(b"1")
    assert (place / "x").read_bytes() == b"1"


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_the_etag_changes_with_the_content_and_only_then(kind: str, tmp_path: Path, s3: S3) -> None:
    uri = {"local": str(tmp_path), "s3": "s3://bucket/tags"}[kind]
    file = locate(uri) / "a.jpg"

    def etag() -> str | None:
        (found,) = list_objects(locate(uri))
        return found.etag

    file.write_bytes(b"one")
    before = etag()
    assert before == etag()
    assert before is not None, "an object without a tag cannot be seen to change"
    assert '"' not in before
    file.write_bytes(b"two")
    assert etag() != before


def test_deleting_what_is_gone_is_fine(tmp_path: Path, memory: str, s3: S3) -> None:
    for uri in (str(tmp_path), memory, "s3://bucket/gone"):
        file = locate(uri) / "x"
        file.write_bytes(b"1")
        assert file.exists()
        file.delete()
        assert not file.exists()
        file.delete()


def test_a_place_travels_to_another_process(tmp_path: Path, s3: S3) -> None:
    for uri in (str(tmp_path), "s3://bucket/travels"):
        place = locate(uri)
        assert place.arrow is not None, "even after its Arrow filesystem was made"
        (place / "x").write_bytes(b"there")
        script = "import pickle, sys; print(pickle.load(sys.stdin.buffer).read_bytes())"
        done = subprocess.run(
            [sys.executable, "-c", script],
            input=pickle.dumps(place / "x"),
            capture_output=True,
            check=False,
        )
        assert done.stdout.decode().strip() == "b'there'", done.stderr.decode()
