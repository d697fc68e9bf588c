"""S3 that misbehaves, over HTTP: requests are made again, so often and no more, and counted."""

import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet as pq
import pytest

from job.errors import ChangedError, StorageError
from job.inputs.listing import list_objects
from job.limits import RetryPolicy
from job.storage import notices
from job.storage.opening import locate
from job.storage.refusals import STORAGE_ERRORS, explain, kind_of
from job.storage.retries import take_retries
from job.storage.s3 import S3Location
from tests.conftest import S3
from tests.faults import KINDS, FaultyProxy, Refusal
from tests.servers import silent
from tests.unit.test_s3 import answering

STRANGE = [
    "a b.jpg",
    "a?versionId=b.jpg",
    "a#b?c=d&e.jpg",
    "a%20b%2Fc.jpg",
    "a+b=c;d.jpg",
    "[a]*.jpg",
    "ü🎈.jpg",
    "/a//b.jpg",
    "s3:/a.jpg",
]


@pytest.fixture
def healthy(s3: S3) -> Iterator[FaultyProxy]:
    """A proxy that does nothing by itself."""
    with FaultyProxy(s3.endpoint) as proxy:
        yield proxy


def through(proxy: FaultyProxy, path: str, **retry_policy: Any) -> S3Location:
    place = locate(f"s3://bucket/{path}", proxy.options, RetryPolicy(**retry_policy))
    assert isinstance(place, S3Location)
    return place


def client(s3: S3) -> Any:
    return boto3.client("s3", endpoint_url=s3.endpoint)


def put(s3: S3, **contents: bytes) -> None:
    for key, data in contents.items():
        client(s3).put_object(Bucket="bucket", Key=key, Body=data)


def exercise(place: S3Location, number: int) -> None:
    """All that a run does with storage: write, find, read, rename as Ray does it, list, delete."""
    data = f"{number} ".encode() * 5_000
    file = place / f"{number}.bin"
    file.write_bytes(data)
    assert file.exists()
    (listed,) = list_objects_of(file)
    assert file.fetch(file.uri, listed["ETag"].strip('"'), len(data)) == data
    assert bytes(file.fs.cat_file(file.path)) == data
    renamed = place / f"{number}.renamed"
    file.arrow.move(file.path, renamed.path)
    assert not file.exists()
    with file.arrow.open_input_file(renamed.path) as stream:
        assert stream.read() == data
    with file.arrow.open_output_stream(file.path) as stream:
        stream.write(data[::-1])
    assert renamed.read_bytes() == data
    assert file.read_bytes() == data[::-1]
    file.delete()
    assert not file.exists()


def list_objects_of(file: S3Location) -> list[dict[str, Any]]:
    bucket, _, key = file.path.partition("/")
    return list(file.fs.listing(bucket, key))


def test_hundreds_of_calls_all_succeed_while_a_fifth_of_the_requests_fails(s3: S3) -> None:
    with FaultyProxy(s3.endpoint, share=0.2, seed=1, stall=0.3) as proxy:
        place = through(proxy, "hundreds")
        take_retries()
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda number: exercise(place, number), range(32)))
        names = sorted(f"{number}.renamed" for number in range(32))
        assert place.names() == names
        assert len(proxy.requests) > 500
        assert all(proxy.injected[kind] > 3 for kind in KINDS), proxy.injected
        assert take_retries() == proxy.failures
    assert [item.path for item in list_objects(locate("s3://bucket/hundreds"))] == [
        f"bucket/hundreds/{name}" for name in names
    ]


def test_a_listing_of_many_pages_is_whole_and_sorted_while_pages_fail(
    s3: S3, tmp_path: Path
) -> None:
    keys = sorted(f"pages/{number % 7}/{number}.jpg" for number in range(60))
    put(s3, **dict.fromkeys(keys, b"x"))
    with FaultyProxy(s3.endpoint, share=0.3, seed=3, stall=0.1) as proxy:
        options = {**proxy.options, "s3_additional_kwargs": {"MaxKeys": 5}}
        found = list(list_objects(locate("s3://bucket/pages", options)))
        assert [item.path for item in found] == [f"bucket/{key}" for key in keys]
        assert proxy.failures


@pytest.mark.parametrize("kind", ["slow_down", "internal", "too_many", "reset", "lost", "cut"])
def test_attempts_are_bounded(s3: S3, kind: str) -> None:
    put(s3, bounded=b"x" * 1000)
    with FaultyProxy(s3.endpoint, share=1.0, kinds=(kind,)) as proxy:
        place = through(proxy, "bounded", attempts=3)
        take_retries()
        with pytest.raises(STORAGE_ERRORS) as caught:
            place.fetch(place.uri, None, None)
        assert not isinstance(caught.value, FileNotFoundError | PermissionError)
        assert explain(caught.value)
        assert len(proxy.requests) == 3
        assert take_retries() == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda place: place.write_bytes(b"x"),
        lambda place: place.exists(),
        lambda place: place.delete(),
        lambda place: place.names(),
        lambda place: place.arrow.move(place.path, f"{place.path}-2"),
        lambda place: list(list_objects_of(place)),
    ],
    ids=["write", "exists", "delete", "names", "move", "list"],
)
def test_every_kind_of_call_is_tried_so_often_and_no_more(s3: S3, call: Any) -> None:
    with FaultyProxy(s3.endpoint, share=1.0, kinds=("slow_down",)) as proxy:
        with pytest.raises(STORAGE_ERRORS, match=r"SlowDown|Service Unavailable|503"):
            call(through(proxy, "calls/x", attempts=2))
        assert len(proxy.requests) == 2


def test_what_will_not_pass_is_not_tried_again(healthy: FaultyProxy) -> None:
    for number, (status, error) in enumerate(
        [(403, PermissionError), (404, FileNotFoundError), (507, OSError)], 1
    ):
        healthy.rules.clear()
        healthy.refuse(status, "GET", "bucket/refused")
        with pytest.raises(error):
            through(healthy, "refused").read_bytes()
        assert len(healthy.requests) == number


def test_retries_of_config_kwargs_come_first(s3: S3) -> None:
    with FaultyProxy(s3.endpoint, share=1.0, kinds=("internal",)) as proxy:
        for number, wanted in enumerate(({"max_attempts": 1}, {"total_max_attempts": 2}), 1):
            options = {**proxy.options, "config_kwargs": {"retries": wanted}}
            with pytest.raises(OSError, match="InternalError"):
                locate("s3://bucket/x", options).read_bytes()
            assert len(proxy.requests) == 2 * number


def test_an_error_in_the_body_of_a_good_answer_is_tried_again(healthy: FaultyProxy) -> None:
    place = through(healthy, "copied")
    place.write_bytes(b"x")
    copies: list[str] = []

    def slow_down_once(request: Any) -> int | None:
        if request.method == "PUT" and request.path.endswith("copied-2"):
            copies.append(request.path)
            return 200 if len(copies) == 1 else None
        return None

    healthy.rules.append(slow_down_once)
    place.fs.copy(place.path, f"{place.path}-2")
    assert len(copies) == 2
    assert through(healthy, "copied-2").read_bytes() == b"x"


def test_retries_are_counted_once_and_by_everyone_together(s3: S3) -> None:
    put(s3, counted=b"x")
    take_retries()
    assert take_retries() == 0
    with FaultyProxy(s3.endpoint, share=0.3, kinds=("slow_down", "cut"), seed=5) as proxy:
        places = [through(proxy, "counted", attempts=12 + number) for number in range(2)]
        assert places[0].fs is not places[1].fs
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: places[number % 2].read_bytes(), range(40)))
        assert take_retries() == proxy.failures == len(proxy.requests) - 40
    assert take_retries() == 0


def test_a_stalled_answer_ends_after_the_timeout(s3: S3) -> None:
    put(s3, stalled=b"x")
    with FaultyProxy(s3.endpoint, share=1.0, kinds=("stall",), stall=60) as proxy:
        place = through(proxy, "stalled", attempts=2, timeout=0.5)
        started = time.monotonic()
        with pytest.raises(STORAGE_ERRORS) as caught:
            place.read_bytes()
        assert 1 <= time.monotonic() - started < 5
        assert "no answer in time" in explain(caught.value)
        assert "--storage-timeout" in explain(caught.value)
        assert len(proxy.requests) == 2


def test_a_stall_that_ends_in_time_is_waited_for(s3: S3) -> None:
    put(s3, slow=b"x")
    with FaultyProxy(s3.endpoint, share=1.0, kinds=("stall",), stall=0.5) as proxy:
        take_retries()
        assert through(proxy, "slow", attempts=1, timeout=5).read_bytes() == b"x"
        assert take_retries() == 0


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What a person is told, who is told soon."""
    lines: list[str] = []
    notices.tell_with(lines.append, soon=0.05)
    yield lines
    notices.tell_with(None)


@pytest.mark.parametrize("kind", ["silent", "refusing", "nameless", "busy", "half"])
def test_storage_that_does_not_answer_is_told_while_it_is_tried(
    kind: str, s3: S3, told: list[str]
) -> None:
    with ExitStack() as stack:
        if kind == "silent":
            endpoint = stack.enter_context(silent())
        elif kind == "half":
            endpoint = stack.enter_context(answering(b"HTTP/1.1 200 OK\r\nConte"))
        elif kind == "busy":
            busy = FaultyProxy(s3.endpoint, share=1.0, kinds=("slow_down",))
            endpoint = stack.enter_context(busy).endpoint
        else:
            endpoint = {"refusing": "http://127.0.0.1:1", "nameless": "http://s.invalid"}[kind]
        options = {"endpoint_url": endpoint, "key": "k", "secret": "hidden"}
        with pytest.raises(StorageError):
            list(list_objects(locate("s3://bucket/x", options, RetryPolicy(attempts=3, timeout=1))))
    (line,) = told  # and then it is left alone for a while
    assert line.startswith(f"retrying S3 at {endpoint}: no answer for ")
    assert " of 3 (--storage-attempts, --storage-timeout): " in line
    assert "Check " in line or "SlowDown" in line
    assert "hidden" not in line


def test_storage_that_answers_again_is_told_and_one_that_answers_is_not(
    s3: S3, told: list[str]
) -> None:
    put(s3, told=b"x")
    notices.tell_with(told.append, soon=0.5)
    with FaultyProxy(s3.endpoint, share=1.0, kinds=("stall",), stall=2) as proxy:
        assert through(proxy, "told").read_bytes() == b"x"
        proxy.share = 0.0
        assert through(proxy, "told").read_bytes() == b"x"
        first, last = told
    assert first.startswith("retrying S3 at")
    assert last == f"S3 at {proxy.endpoint} answers"


def test_an_output_that_looks_like_a_glob_is_written_and_read_as_it_is(s3: S3) -> None:
    import pyarrow as pa

    place = locate("s3://bucket/out[1]*")
    put(s3, **{"out1/a.parquet": b"another"})
    file = place / "a[2]?.parquet"
    file.write_bytes(b"x")
    assert (place.names(), file.exists()) == (["a[2]?.parquet"], True)
    with file.arrow.open_output_stream(file.path) as stream:
        pq.write_table(pa.table({"id": [1]}), stream)
    assert pq.read_table(file.path, filesystem=file.arrow)["id"].to_pylist() == [1]
    file.delete()
    assert place.names() == []
    assert locate("s3://bucket/out1").names() == ["a.parquet"]


@pytest.mark.parametrize("attempts", [1, 8])
def test_a_fetch_is_one_request(healthy: FaultyProxy, s3: S3, attempts: int) -> None:
    put(s3, once=b"x" * 100_000)
    place = through(healthy, "once", attempts=attempts)
    (listed,) = list_objects_of(place)
    healthy.requests.clear()
    assert place.fetch(place.uri, listed["ETag"].strip('"'), 100_000) == b"x" * 100_000
    (request,) = healthy.requests
    assert (request.method, request.path) == ("GET", "bucket/once")


def test_an_object_that_has_changed_is_not_fetched(s3: S3) -> None:
    put(s3, changing=b"one")
    place = locate("s3://bucket")
    (before,) = list_objects(locate("s3://bucket/changing"))
    uri = place.at(before.path).uri
    assert place.fetch(uri, before.etag, before.size) == b"one"
    put(s3, changing=b"two")
    take_retries()
    with pytest.raises(ChangedError, match="changing"):
        place.fetch(uri, before.etag, before.size)
    assert take_retries() == 0
    assert place.fetch(uri, None, None) == b"two"
    assert not issubclass(ChangedError, STORAGE_ERRORS)


def test_an_object_that_has_changed_is_noticed_where_conditions_are_ignored(s3: S3) -> None:
    put(s3, ignoring=b"one")

    class Ignoring(FaultyProxy):
        def forward(self, request: Any, headers: Any, body: bytes) -> Any:
            kept = [(name, value) for name, value in headers if name.lower() != "if-match"]
            return super().forward(request, kept, body)

    with Ignoring(s3.endpoint) as proxy:
        place = through(proxy, "ignoring")
        (listed,) = list_objects_of(place)
        put(s3, ignoring=b"two")
        with pytest.raises(ChangedError):
            place.fetch(place.uri, listed["ETag"].strip('"'), 3)


def test_an_object_that_is_gone_or_closed_says_so(healthy: FaultyProxy, s3: S3) -> None:
    put(s3, gone=b"x", closed=b"x")
    healthy.refuse(403, "GET", "bucket/closed")
    client(s3).delete_object(Bucket="bucket", Key="gone")
    place = through(healthy, "")
    with pytest.raises(FileNotFoundError):
        place.fetch("s3://bucket/gone", "etag", 1)
    with pytest.raises(PermissionError):
        place.fetch("s3://bucket/closed", "etag", 1)


@pytest.mark.parametrize("key", STRANGE)
def test_a_key_is_read_as_it_is_whatever_it_looks_like(s3: S3, key: str) -> None:
    folder = f"keys-{STRANGE.index(key)}"
    for other in ("a", "a b.jpg", "versionId=b.jpg", "a%20b/c.jpg"):
        put(s3, **{f"{folder}/{other}": b"another"})
    put(s3, **{f"{folder}/{key}": key.encode()})
    place = locate(f"s3://bucket/{folder}")
    listed = {item.path: item for item in list_objects(locate(f"s3://bucket/{folder}"))}
    found = listed[f"bucket/{folder}/{key}"]
    uri = place.at(found.path).uri
    assert uri == f"s3://bucket/{folder}/{key}"
    assert place.fetch(uri, found.etag, found.size) == key.encode()
    assert list(list_objects(locate(uri))) == [found]
    file = place.at(f"bucket/{folder}/written/{key}")
    file.write_bytes(b"round trip")
    assert file.read_bytes() == b"round trip"
    file.delete()
    assert not file.exists()


def test_the_other_name_of_the_scheme_is_the_same_storage(s3: S3) -> None:
    put(s3, other=b"x")
    place = locate("s3a://bucket/other")
    assert (place.uri, place.read_bytes()) == ("s3://bucket/other", b"x")


def test_a_listing_arrives_page_by_page(healthy: FaultyProxy, s3: S3) -> None:
    put(s3, **{f"lazy/{number}": b"x" for number in range(9)})
    options = {**healthy.options, "s3_additional_kwargs": {"MaxKeys": 3}}
    listing = list_objects(locate("s3://bucket/lazy", options))
    assert next(listing).path == "bucket/lazy/0"
    assert len(healthy.requests) == 1, "one page, and nothing to look for a folder first"
    assert len(list(listing)) == 8
    assert len(healthy.requests) == 3


def test_a_listing_that_breaks_off_is_an_error_and_no_short_list(
    healthy: FaultyProxy, s3: S3
) -> None:
    put(s3, **{f"broken/{number}": b"x" for number in range(9)})
    healthy.refuse(403, "GET", "bucket", after=2)
    options = {**healthy.options, "s3_additional_kwargs": {"MaxKeys": 3}}
    with pytest.raises(StorageError, match="cannot be listed: permission denied"):
        list(list_objects(locate("s3://bucket/broken", options)))


def test_the_requester_pays_where_the_options_say_so(s3: S3) -> None:
    put(s3, **{"paid/a": b"x"})
    payers: list[str | None] = []

    class Asking(FaultyProxy):
        def forward(self, request: Any, headers: Any, body: bytes) -> Any:
            payers.append(dict(headers).get("x-amz-request-payer"))
            return super().forward(request, headers, body)

    with Asking(s3.endpoint) as proxy:
        options = {**proxy.options, "requester_pays": True}
        (found,) = list_objects(locate("s3://bucket/paid", options))
        assert locate("s3://bucket/paid", options).fetch(found.path, found.etag, 1) == b"x"
    assert payers == ["requester", "requester"]


def test_retry_policy_and_options_travel_to_another_process(healthy: FaultyProxy) -> None:
    healthy.share, healthy.kinds = 1.0, ("slow_down",)
    place = through(healthy, "travels", attempts=2, timeout=7.5)
    assert place.arrow is not None
    script = (
        "import pickle, sys\n"
        "place = pickle.load(sys.stdin.buffer)\n"
        "config = place.fs.s3.meta.config\n"
        "print(type(place.fs).__module__, config.connect_timeout, config.read_timeout)\n"
        "try:\n"
        "    place.read_bytes()\n"
        "except OSError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=pickle.dumps(place), capture_output=True, check=False
    )
    first, second = done.stdout.decode().splitlines()
    assert first == "job.storage.s3_requests 7.5 7.5", done.stderr.decode()
    assert "SlowDown" in second
    assert len(healthy.requests) == 2


def test_parquet_goes_through_arrow_while_storage_misbehaves(s3: S3) -> None:
    import pyarrow as pa

    table = pa.table({"id": range(100_000)})
    with FaultyProxy(s3.endpoint, share=0.3, seed=8, stall=0.1) as proxy:
        place = through(proxy, "arrow.parquet")
        pq.write_table(table, place.path, filesystem=place.arrow)
        assert pq.read_table(place.path, filesystem=place.arrow).equals(table)


def test_what_is_asked_without_a_body_in_answer_is_told_why(healthy: FaultyProxy, s3: S3) -> None:
    put(s3, **{"bodiless/here": b"x"})
    file = through(healthy, "bodiless/here")
    assert file.exists()
    healthy.refuse(Refusal(400, "ExpiredToken"), "HEAD", "bucket/bodiless/")
    healthy.refuse(Refusal(400, "ExpiredToken"), "GET", "bucket/bodiless/")
    with pytest.raises(STORAGE_ERRORS) as refused:
        file.exists()
    assert kind_of(refused.value) == "credentials"
