"""Fetching: an image is blamed only when another one can be read, in the same storage."""

import contextlib
import gzip
import pickle
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from job.errors import ImageError
from job.inputs.fetching import Fetcher
from job.inputs.listed_files import ListedFiles
from job.limits import RetryPolicy
from job.rows import Fault, Listed
from job.storage.opening import locate
from job.storage.packing import unpacked
from tests import hosted as hosted  # registers hosted://
from tests.conftest import S3
from tests.faults import FaultyProxy, Refusal, Request
from tests.servers import serving_folder
from tests.unit.test_fetching import IMAGES, fetcher_of, listed_in, read, through


@pytest.fixture
def proxy(s3: S3) -> Iterator[FaultyProxy]:
    """A proxy that does nothing by itself, before six objects."""
    place = locate("s3://bucket/fetching")
    for number in range(6):
        (place / f"{number}.jpg").write_bytes(f"image {number}".encode())
    with FaultyProxy(s3.endpoint) as running:
        yield running


def of_s3(proxy: FaultyProxy) -> tuple[Fetcher, list[Listed]]:
    policy = RetryPolicy(attempts=2, timeout=5)
    return fetcher_of(ListedFiles("s3://bucket/fetching", proxy.options, policy))


def test_objects_that_can_be_read_are_read(proxy: FaultyProxy, six_files: Path) -> None:
    for fetcher, objects in (of_s3(proxy), fetcher_of(ListedFiles(str(six_files)))):
        travelled = pickle.loads(pickle.dumps(fetcher))
        assert read(through(travelled, objects)) == IMAGES


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
        policy = RetryPolicy(attempts=1, timeout=5)
        source = ListedFiles("s3://bucket/fetching", options, policy)
        for outcome in through(Fetcher(source, witnesses=objects[:1]), objects):
            assert isinstance(outcome, Fault)
            assert outcome.kind == "network", outcome.reason


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
        fetcher = Fetcher(ListedFiles(uri), byte_limit=1_000_000)
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


def test_each_object_is_read_from_the_storage_that_its_uri_names(
    proxy: FaultyProxy, six_files: Path
) -> None:
    _, remote = of_s3(proxy)
    fetcher, near = fetcher_of(ListedFiles(str(six_files), proxy.options, RetryPolicy(2, 5)))
    assert read(through(pickle.loads(pickle.dumps(fetcher)), [*near, *remote])) == IMAGES * 2
    fetcher = Fetcher(ListedFiles("s3://bucket/fetching", proxy.options))
    assert read(through(fetcher, [*remote, *near])) == IMAGES * 2


def test_storage_of_another_input_that_fails_is_told_apart(
    proxy: FaultyProxy, six_files: Path
) -> None:
    _, remote = of_s3(proxy)
    fetcher, near = fetcher_of(ListedFiles(str(six_files), proxy.options, RetryPolicy(2, 5)))
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
