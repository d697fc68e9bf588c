"""One image, one id on S3, where a key is taken to the letter: ``a//b`` is not ``a/b``."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest

from job.errors import StorageError
from job.inputs.listed_files import ListedFiles
from job.storage.location import Location
from tests.conftest import S3
from tests.faults import FaultyProxy, Request
from tests.unit.test_one_image_one_id import freeze_rows, frozen_in, uris


@pytest.fixture
def bucket(s3: S3) -> Iterator[Any]:
    """A bucket of its own, ``keys``; keys of every test are put there."""
    made = boto3.resource("s3", endpoint_url=s3.endpoint).create_bucket(Bucket="keys")
    yield made
    made.object_versions.delete()


def test_keys_that_look_alike_are_images_of_their_own(bucket: Any, output: Location) -> None:
    keys = ["/b.jpg", "a/../b.jpg", "a/./b.jpg", "a//b.jpg", "a/b.jpg", "b.jpg"]
    for key in keys:
        bucket.put_object(Key=key, Body=key.encode())
    source = ListedFiles("s3://keys")
    images = frozen_in(source, output)
    assert uris(images) == [f"s3://keys/{key}" for key in keys]
    assert [source.fetch(row).decode() for row in images.witnesses] == [keys[0], keys[2], keys[5]]
    for number, key in enumerate(keys):
        single = frozen_in(ListedFiles(f"s3://keys/{key}"), output)
        assert (len(single.new), single.listed["uri"].to_pylist()) == (
            0,
            uris(images)[number : number + 1],
        )


@pytest.mark.parametrize(
    "spelling",
    [
        *("s3://keys", "s3://keys/", "s3://keys//", "s3a://keys", "s3:///keys", "s3://keys/in"),
        *("s3://keys/in/", "s3://keys/in//", "s3a://keys/in/a.jpg", "s3:///keys/in/a.jpg"),
        *("s3:///keys/in/*.jpg", "s3a://keys/**", "s3://keys/in/a.jpg/", "s3://keys/i"),
    ],
)
def test_an_object_is_listed_by_one_uri_however_input_is_written(
    spelling: str, bucket: Any, output: Location
) -> None:
    bucket.put_object(Key="in/a.jpg", Body=b"x")
    freeze_rows(output, (0, "s3://keys/in/a.jpg"))
    images = frozen_in(ListedFiles(spelling), output)
    assert (len(images.new), images.listed["uri"].to_pylist()) == (0, ["s3://keys/in/a.jpg"])


class Tidy(FaultyProxy):
    """An S3 that takes the slashes of a path for one, as some do; listings have the keys."""

    def forward(self, request: Request, *rest: Any) -> Any:
        path, mark, query = request.target.partition("?")
        target = path if "prefix=" in query else re.sub("/+", "/", path)
        return super().forward(replace(request, target=target + mark + query), *rest)


@pytest.mark.parametrize("spelling", ["s3://keys//in/a.jpg", "s3://keys/in//a.jpg"])
def test_an_object_is_not_listed_by_a_key_that_it_only_answers_to(
    spelling: str, bucket: Any, s3: S3, output: Location
) -> None:
    bucket.put_object(Key="in/a.jpg", Body=b"x")
    with Tidy(s3.endpoint) as tidy:
        assert len(frozen_in(ListedFiles("s3://keys/in/a.jpg", tidy.options), output).listed) == 1
        with pytest.raises(StorageError, match="nothing is there"):
            frozen_in(ListedFiles(spelling, tidy.options), output)


def test_an_object_of_a_version_is_still_found(bucket: Any, output: Location) -> None:
    bucket.Versioning().enable()
    put = bucket.meta.client.put_object
    first, _ = (put(Bucket="keys", Key="in/a.jpg", Body=body) for body in (b"one", b"two"))
    uri = f"s3://keys/in/a.jpg?versionId={first['VersionId']}"
    source = ListedFiles(uri, {"version_aware": True})
    (row,) = frozen_in(source, output).witnesses
    assert source.fetch(row) == b"one"
