"""Listing: folders, globs and single objects, on a disk, in memory and on S3."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from job.errors import ConfigError, StorageError
from job.inputs.listed_files import ListedFiles
from job.inputs.listing import list_objects
from job.prepare import refuse_overlap
from job.storage.opening import locate
from tests import hosted as hosted  # registers hosted://
from tests.conftest import S3
from tests.unit.test_listing import STRANGE, fill, names


@pytest.mark.parametrize("kind", ["local", "memory", "s3"])
def test_folders_on_the_way_of_a_glob_are_taken_by_their_very_names(
    kind: str, tmp_path: Path, memory: str, s3: S3
) -> None:
    root = {"local": str(tmp_path), "memory": memory, "s3": "s3://bucket/very"}[kind]
    for name in ("trip[1]/a.jpg", "trip[1]/b.txt", "trip1/c.jpg", "trip*/d.jpg", "tripx[2]-e.jpg"):
        (locate(root) / name).write_bytes(b"x")
    assert names(f"{root}/trip[1]/*.jpg") == ["a.jpg"]
    assert names(f"{root}/trip[1-9]/*.jpg") == ["c.jpg"]
    assert names(f"{root}/trip*/*.jpg") == ["d.jpg"]
    assert sorted(names(f"{root}/tr*/*.jpg")) == ["a.jpg", "c.jpg", "d.jpg"]
    assert names(f"{root}/trip[1]/**") == ["a.jpg", "b.txt"]
    if kind == "s3":
        assert names(f"{root}/tripx[2]-") == ["tripx[2]-e.jpg"], "a prefix may have them, too"


def test_a_prefix_on_s3_may_end_within_a_name(s3: S3, tmp_path: Path) -> None:
    fill(tmp_path, "img-1.jpg", "img-2.jpg", "other.jpg")
    s3.upload(tmp_path, "prefixes")
    s3.upload(tmp_path, "prefixes-more/img-sub")
    assert names("s3://bucket/prefixes") == ["img-1.jpg", "img-2.jpg", "other.jpg"]
    assert names("s3://bucket/prefixes/img-") == ["img-1.jpg", "img-2.jpg"]
    assert names("s3://bucket/prefixes-more/img") == ["img-1.jpg", "img-2.jpg", "other.jpg"]
    assert names("s3://bucket/prefixes/*1.jpg") == ["img-1.jpg"]
    assert names("s3://bucket/prefixes/other.jpg") == ["other.jpg"]
    with pytest.raises(StorageError, match="nothing is there"):
        names("s3://bucket/prefixes/none")


def test_strange_keys_on_s3_are_listed_and_read_as_they_are(s3: S3, tmp_path: Path) -> None:
    # moto does not take a line break in a key; S3 does.
    strange = [name for name in STRANGE if "\n" not in name]
    uri = s3.upload(fill(tmp_path, *strange), "strange")
    place = locate(uri)
    found = list(list_objects(locate(uri)))
    assert {os.path.basename(item.path) for item in found} == set(strange)
    for item in found:
        content = place.at(item.path).read_bytes()
        assert content.decode() == os.path.basename(item.path)


def test_a_folder_marker_on_s3_is_no_object(s3: S3) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=s3.endpoint)
    client.put_object(Bucket="bucket", Key="marked/", Body=b"")
    client.put_object(Bucket="bucket", Key="marked/a.jpg", Body=b"x")
    assert names("s3://bucket/marked") == ["a.jpg"]


def test_a_bucket_that_does_not_exist_is_a_storage_error(s3: S3) -> None:
    for uri in ("s3://no-such-bucket", "s3://no-such-bucket/x", "s3://no-such-bucket/*.jpg"):
        with pytest.raises(StorageError, match=f"{re.escape(uri)} cannot be listed: the bucket"):
            names(uri)


def test_a_uri_without_a_bucket_is_a_storage_error(s3: S3) -> None:
    with pytest.raises(StorageError, match="INPUT s3://"):
        names("s3://")


def test_a_bucket_is_listed_from_its_root(s3: S3) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=s3.endpoint)
    client.create_bucket(Bucket="rooted")
    with pytest.raises(StorageError, match="nothing is there"):
        names("s3://rooted")
    for key in ("b.jpg", "a/c.jpg", "a-/d.jpg"):
        client.put_object(Bucket="rooted", Key=key, Body=b"x")
    found = [item.path for item in list_objects(locate("s3://rooted/"))]
    assert found == ["rooted/a-/d.jpg", "rooted/a/c.jpg", "rooted/b.jpg"]


def test_a_listing_is_never_a_cached_one(s3: S3) -> None:
    place = locate("s3://bucket/fresh")
    (place / "a").write_bytes(b"1")
    assert place.names() == ["a"]
    other = subprocess.run(
        [
            sys.executable,
            "-c",
            "from job.storage.opening import locate; locate('s3://bucket/fresh/b').write_bytes(b'2')",
        ],
        check=False,
    )
    assert other.returncode == 0
    assert place.names() == names("s3://bucket/fresh") == ["a", "b"]


def test_overlap_on_s3_is_by_key_and_by_bucket(s3: S3) -> None:
    with pytest.raises(ConfigError, match="inside INPUT s3://bucket/a"):
        refuse_overlap(ListedFiles("s3://bucket/a/"), locate("s3://bucket/a/out"))
    with pytest.raises(ConfigError, match="inside INPUT"):
        refuse_overlap(ListedFiles("s3://bucket"), locate("s3://bucket/out"))
    refuse_overlap(ListedFiles("s3://bucket/a"), locate("s3://bucket/ab"))
    refuse_overlap(ListedFiles("s3://bucket/a"), locate("s3://other/a/out"))
