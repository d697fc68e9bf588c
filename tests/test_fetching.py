"""Fetching: an image is blamed only when another one can be read, in the same storage."""

import contextlib
import gzip
import os
import pickle
import shutil
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest

from job.cluster.outage import Fault
from job.errors import ImageError
from job.inputs.listed_files import Doubt, Fetcher, Listed
from job.inputs.listing import list_objects
from job.storage.location import Location, locate
from job.storage.packing import unpacked
from job.storage.s3 import RetryPolicy
from tests import hosted as hosted  # registers hosted://
from tests.conftest import S3
from tests.faults import FaultyProxy, Refusal, Request
from tests.servers import serving_folder

Outcomes = list[bytes | ImageError | Fault]


@pytest.fixture
def proxy(s3: S3) -> Iterator[FaultyProxy]:
    """A proxy that does nothing by itself, before six objects."""
    place = locate("s3://bucket/fetching")
    for number in range(6):
        (place / f"{number}.jpg").write_bytes(f"image {number}".encode())
    with FaultyProxy(s3.endpoint) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six files."""
    place = tmp_path / "in"
    (place / "deep").mkdir(parents=True)
    for number in range(6):
        (place / "deep" / f"{number}.jpg").write_bytes(f"image {number}".encode())
    return place


def of_s3(proxy: FaultyProxy, **more: Any) -> tuple[Fetcher, list[Listed]]:
    place = locate("s3://bucket/fetching", proxy.options, RetryPolicy(attempts=2, timeout=5))
    return fetcher_of(place, **more)


def fetcher_of(place: Location, **more: Any) -> tuple[Fetcher, list[Listed]]:
    """A fetcher whose witnesses are the first, the middle and the last of what is listed."""
    options = {k: v for k, v in place.fs.storage_options.items() if k != "retry_policy"}
    found = [
        Listed(Location(place.fs, item.path).uri, item.size, item.etag)
        for item in list_objects(place.uri, options)
    ]
    return Fetcher(place, witnesses=[found[0], found[3], found[-1]], **more), found


def through(fetcher: Fetcher, objects: list[Listed]) -> Outcomes:
    """What is made of each object in the end."""
    outcomes = dict(enumerate(map(fetcher.fetch, objects)))
    doubts = {n: (objects[n], was) for n, was in outcomes.items() if isinstance(was, Doubt)}
    return list({**outcomes, **fetcher.settle(doubts)}.values())  # type: ignore[arg-type]


def read(outcomes: Outcomes) -> list[str]:
    return [outcome.decode() if isinstance(outcome, bytes) else "" for outcome in outcomes]


IMAGES = [f"image {number}" for number in range(6)]


def test_objects_that_can_be_read_are_read(proxy: FaultyProxy, folder: Path) -> None:
    for fetcher, objects in (of_s3(proxy), fetcher_of(locate(str(folder)))):
        travelled = pickle.loads(pickle.dumps(fetcher))
        assert read(through(travelled, objects)) == IMAGES


# Nobody can read anything


@pytest.mark.parametrize(
    ("refusal", "kind", "words"),
    [
        (Refusal(400, "ExpiredToken"), "credentials", "have expired"),
        (Refusal(400, "InvalidToken"), "credentials", "does not accept"),
        (Refusal(400, "TokenRefreshRequired"), "credentials", "have expired"),
        (Refusal(400, "AuthorizationHeaderMalformed"), "credentials", "AWS_DEFAULT_REGION"),
        (Refusal(403, "InvalidAccessKeyId"), "credentials", "does not accept"),
        (Refusal(403, "SignatureDoesNotMatch"), "credentials", "does not accept"),
        (Refusal(403, "RequestTimeTooSkewed"), "clock", "NTP"),
        (Refusal(403, "AccessDenied"), "forbidden", "nothing of what was listed may be read"),
        (Refusal(404, "NoSuchKey"), "bucket", "nothing of what was listed is there"),
        (Refusal(404, "NoSuchBucket"), "bucket", "the bucket is not there"),
        (Refusal(400, "Unheard"), "unknown", "Unheard"),
        (Refusal(403), "proxy", "HTTP 403"),
        (Refusal(404), "proxy", "HTTP 404"),
        (Refusal(407), "proxy", "HTTP 407"),
        (Refusal(502), "proxy", "HTTP 502"),
    ],
    ids=str,
)
def test_what_meets_every_object_is_no_fault_of_any(
    proxy: FaultyProxy, refusal: Refusal, kind: str, words: str
) -> None:
    fetcher, objects = of_s3(proxy)
    assert read(through(fetcher, objects[:3])) == IMAGES[:3]
    proxy.refuse(refusal, "GET", "bucket/fetching/")
    for outcome in through(fetcher, objects):
        assert isinstance(outcome, Fault), outcome
        assert outcome.place == "INPUT s3://bucket/fetching"
        assert outcome.kind == kind
        assert words in outcome.reason
    proxy.rules = []
    assert read(through(fetcher, objects)) == IMAGES


def test_a_page_in_place_of_objects_is_no_fault_of_theirs(s3: S3, proxy: FaultyProxy) -> None:
    class Portal(FaultyProxy):
        """Answers every GET of an object with its own page, as if all were well."""

        def forward(self, request: Request, headers: Any, body: bytes) -> Any:
            if request.method == "GET" and request.is_of_object:
                return 200, "OK", [("Content-Type", "text/html")], b"<html>Log in first</html>"
            return super().forward(request, headers, body)

    with Portal(s3.endpoint) as portal:
        fetcher, objects = of_s3(portal)
        for outcome in through(fetcher, objects):
            assert isinstance(outcome, Fault)
            assert outcome.kind == "proxy"


def test_a_server_that_is_gone_or_a_name_that_is_unknown_is_no_fault_of_objects(
    proxy: FaultyProxy,
) -> None:
    _, objects = of_s3(proxy)
    for endpoint in ("http://127.0.0.1:1", "http://storage.invalid"):
        options = {**proxy.options, "endpoint_url": endpoint}
        place = locate("s3://bucket/fetching", options, RetryPolicy(attempts=1, timeout=5))
        for outcome in through(Fetcher(place, witnesses=objects[:1]), objects):
            assert isinstance(outcome, Fault)
            assert outcome.kind == "network", outcome.reason


@pytest.mark.parametrize("what", ["renamed", "emptied"])
def test_a_folder_that_is_not_mounted_is_no_fault_of_its_files(folder: Path, what: str) -> None:
    fetcher, objects = fetcher_of(locate(str(folder)))
    away = shutil.move(folder / "deep", folder.parent / "away")
    if what == "emptied":
        (folder / "deep").mkdir()
    for outcome in through(fetcher, objects):
        assert isinstance(outcome, Fault)
        assert (outcome.place, outcome.kind) == (f"INPUT {folder}", "mount")
    if what == "emptied":
        (folder / "deep").rmdir()
    shutil.move(away, folder / "deep")
    assert read(through(fetcher, objects)) == IMAGES


def test_a_process_without_file_handles_blames_no_file(folder: Path) -> None:
    import resource

    fetcher, objects = fetcher_of(locate(str(folder)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Threads and pools need none: what is open already stays open.
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        outcomes = through(fetcher, objects)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for outcome in outcomes:
        assert isinstance(outcome, Fault)
        assert outcome.kind == "node"
        assert "ulimit" in outcome.reason


# One cannot be read, others can


@pytest.mark.parametrize(
    ("refusal", "kind", "is_retryable"),
    [
        (Refusal(403, "AccessDenied"), "forbidden", False),
        (Refusal(404, "NoSuchKey"), "missing", False),
        (Refusal(403, "InvalidObjectState"), "archived", True),
        (Refusal(400, "Unheard"), "fetch_failed", True),
        (Refusal(403, "SignatureDoesNotMatch"), "fetch_failed", True),
        (Refusal(403), "fetch_failed", True),
        (Refusal(404), "fetch_failed", True),
    ],
    ids=str,
)
def test_what_meets_one_object_alone_is_its_own(
    proxy: FaultyProxy, refusal: Refusal, kind: str, is_retryable: bool
) -> None:
    fetcher, objects = of_s3(proxy)
    # Also where it is the first of the witnesses, and nothing was read before.
    for number in (0, 2):
        proxy.rules = []
        proxy.refuse(refusal, "GET", f"bucket/fetching/{number}.jpg")
        outcomes = through(fetcher, objects)
        error = outcomes.pop(number)
        assert isinstance(error, ImageError)
        assert (error.kind, error.retryable) == (kind, is_retryable)
        assert read(outcomes) == IMAGES[:number] + IMAGES[number + 1 :]


def test_an_archived_object_says_what_to_do_and_where_it_lies(proxy: FaultyProxy) -> None:
    fetcher, objects = of_s3(proxy)
    more = "<StorageClass>DEEP_ARCHIVE</StorageClass>"
    proxy.refuse(Refusal(403, "InvalidObjectState", more), "GET", "bucket/fetching/4.jpg")
    (error,) = through(fetcher, objects[4:5])
    assert isinstance(error, ImageError)
    assert error.message.startswith("archived (DEEP_ARCHIVE): restore it first, then run again")


def test_credentials_that_come_back_cost_nothing(proxy: FaultyProxy) -> None:
    fetcher, objects = of_s3(proxy)
    refused: list[Request] = []

    def refuse_some(request: Request) -> Refusal | None:
        if request.path.startswith("bucket/fetching/") and len(refused) < 3:
            refused.append(request)
            return Refusal(400, "ExpiredToken")
        return None

    proxy.rules.append(refuse_some)
    assert read(through(fetcher, objects)) == IMAGES
    assert len(refused) == 3


def test_a_file_that_is_gone_is_missing_and_may_come_back_with_its_folder(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other" / "gone.jpg").write_bytes(b"x")
    fetcher, objects = fetcher_of(locate(str(folder)))
    os.unlink(folder / "deep" / "2.jpg")
    shutil.rmtree(folder / "other")
    found = through(fetcher, objects)
    errors = [outcome for outcome in found if isinstance(outcome, ImageError)]
    assert [(error.kind, error.retryable) for error in errors] == [
        ("missing", False),
        ("missing", True),
    ]
    assert read(found[:2]) == IMAGES[:2]


# Web servers and archives


def listed_in(uri: str) -> list[Listed]:
    place = locate(uri)
    return [Listed(place.at(found.path).uri, found.size, found.etag) for found in list_objects(uri)]


def test_images_of_a_folder_on_the_web_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub dir").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(b"image a")
    (folder / "sub dir" / "b#1.jpg").write_bytes(b"image b")
    with serving_folder(tmp_path) as address:
        objects = listed_in(f"{address}/in")
        fetcher = Fetcher(locate(f"{address}/in"), witnesses=objects[:1])
        assert read(through(pickle.loads(pickle.dumps(fetcher)), objects)) == ["image a", "image b"]
        (single,) = listed_in(f"{address}/in/a.jpg")
        assert single.size == 7
        assert read(through(fetcher, [single])) == ["image a"]
        (folder / "a.jpg").write_bytes(b"another one")
        (error,) = through(fetcher, [single])
        assert isinstance(error, ImageError)
        assert error.kind == "changed"
        (folder / "a.jpg").unlink()
        (error,) = through(fetcher, objects[:1])
        assert isinstance(error, ImageError | Fault)
        small = Fetcher(locate(f"{address}/in"), byte_limit=6)
        (error,) = through(small, objects[1:])
        assert isinstance(error, ImageError)
        assert error.kind == "too_large"


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_images_are_read_from_the_archive_that_each_names(kind: str, tmp_path: Path) -> None:
    objects: list[Listed] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for number in range(6):
            (tmp_path / name / f"{number}.jpg").write_bytes(f"{name} {number}".encode() * 1000)
        shutil.make_archive(str(tmp_path / name), kind, tmp_path / name)
        objects += listed_in(f"{kind}://::{tmp_path}/{name}.{kind}")
    place = locate(f"{kind}://::{tmp_path}/one.{kind}")
    fetcher = pickle.loads(pickle.dumps(Fetcher(place)))
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(fetcher.fetch, objects * 4))
    expected = [f"{name} {number}" * 1000 for name in ("one", "two") for number in range(6)]
    assert read(outcomes) == expected * 4


def test_images_of_an_earlier_host_are_not_read_from_the_new_one() -> None:
    for host in ("one", "two"):
        (locate(f"hosted://{host}/in") / "a.jpg").write_bytes(host.encode())
    (earlier,), (now,) = listed_in("hosted://one/in"), listed_in("hosted://two/in")
    assert earlier.uri != now.uri
    fetcher = pickle.loads(pickle.dumps(Fetcher(locate("hosted://two/in"), witnesses=[now])))
    assert read(through(fetcher, [earlier, now, earlier])) == ["one", "two", "one"]


# Packed objects


@pytest.mark.parametrize("kind", ["s3", "web"])
def test_what_is_stored_packed_is_unpacked_so_far_and_no_further(
    kind: str, s3: S3, tmp_path: Path
) -> None:
    image = b"an image " * 1000
    contents = {
        "a.jpg": (gzip.compress(image), "gzip"),
        "b.jpg": (gzip.compress(image)[:-9], "gzip"),
        "c.jpg": (gzip.compress(bytes(2_000_000)), "gzip"),
        "d.jpg": (b"\xff\xd8\xff plain", "gzip"),
        "e.jpg": (zlib.compress(image), "deflate"),
        "f.jpg": (b"nobody knows", "br"),
        "g.jpg": (gzip.compress(image), ""),
    }
    with contextlib.ExitStack() as stack:
        if kind == "s3":
            uri = "s3://bucket/packed"
            client = boto3.client("s3", endpoint_url=s3.endpoint)
            for name, (data, encoding) in contents.items():
                more = {"ContentEncoding": encoding} if encoding else {}
                client.put_object(Bucket="bucket", Key=f"packed/{name}", Body=data, **more)
        else:
            for name, (data, _) in contents.items():
                (tmp_path / name).write_bytes(data)
            encodings = {f"/{name}": encoding for name, (_, encoding) in contents.items()}
            uri = stack.enter_context(serving_folder(tmp_path, encodings))
        fetcher = Fetcher(locate(uri), byte_limit=1_000_000)
        a, b, c, d, e, f, g = through(fetcher, listed_in(uri))
        assert a == e == image
        assert (d, g) == (contents["d.jpg"][0], contents["g.jpg"][0]), "it is what it is"
        for error, why, words in (
            (b, "truncated", "packed with gzip"),
            (c, "too_large", "limit of 1,000,000 bytes when unpacked"),
            (f, "unsupported", "packed with br (its Content-Encoding)"),
        ):
            assert isinstance(error, ImageError)
            assert (error.kind, words in error.message) == (why, True), error.message
        damaged = unpacked_error(contents["a.jpg"][0][:10] + b"\xff" * 40)
        assert damaged.kind == "corrupt"


def unpacked_error(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        unpacked(data, "aws-chunked, gzip", 10**6)
    return caught.value


# Storage of another INPUT


def test_each_object_is_read_from_the_storage_that_its_uri_names(
    proxy: FaultyProxy, folder: Path
) -> None:
    _, remote = of_s3(proxy)
    local = locate(str(folder), proxy.options)
    fetcher, near = fetcher_of(local, options=proxy.options, retry_policy=RetryPolicy(2, 5))
    assert read(through(pickle.loads(pickle.dumps(fetcher)), [*near, *remote])) == IMAGES * 2
    fetcher = Fetcher(locate("s3://bucket/fetching", proxy.options), options=proxy.options)
    assert read(through(fetcher, [*remote, *near])) == IMAGES * 2


def test_storage_of_another_input_that_fails_is_told_apart(
    proxy: FaultyProxy, folder: Path
) -> None:
    _, remote = of_s3(proxy)
    local = locate(str(folder), proxy.options)
    fetcher, near = fetcher_of(local, options=proxy.options, retry_policy=RetryPolicy(2, 5))
    proxy.refuse(Refusal(400, "ExpiredToken"), "GET", "bucket/fetching/")
    *found, last = through(fetcher, [*near, remote[0]])
    assert read(found) == IMAGES
    assert isinstance(last, Fault)
    assert (last.place, last.kind) == ("s3://bucket", "credentials")
    proxy.rules = []
    proxy.refuse(403, "GET", "bucket/fetching/")
    (last,) = through(fetcher, [remote[0]])
    assert isinstance(last, ImageError)
    assert (last.kind, last.retryable) == ("forbidden", True), "nobody knows that it is this one"
