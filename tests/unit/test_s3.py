"""S3 that misbehaves, over HTTP: requests are made again, so often and no more, and counted."""

import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from job.limits import RetryPolicy
from job.storage.opening import locate
from job.storage.refusals import STORAGE_ERRORS, explain
from job.storage.s3 import S3Location
from tests.servers import silent


@contextmanager
def answering(head: bytes) -> Iterator[str]:
    """A server that sends this much to each who connects, and then nothing; it reads nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        kept = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                kept.append(connection)
                connection.sendall(head)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in kept:
                connection.close()


@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"], ids=["none", "half"]
)
def test_a_server_that_falls_silent_ends_a_fetch_after_the_timeout(head: bytes) -> None:
    with answering(head) as endpoint:
        options = {"endpoint_url": endpoint, "key": "k", "secret": "s"}
        place = locate("s3://bucket/x", options, RetryPolicy(attempts=1, timeout=0.5))
        started = time.monotonic()
        with pytest.raises(STORAGE_ERRORS) as caught:
            place.read_bytes()
        assert 0.5 <= time.monotonic() - started < 3
        assert "no answer in time" in explain(caught.value)


def test_a_server_that_takes_no_more_ends_an_upload() -> None:
    with answering(b"") as endpoint:
        options = {"endpoint_url": endpoint, "key": "k", "secret": "s"}
        place = locate("s3://bucket/x", options, RetryPolicy(attempts=1, timeout=0.5))
        size = 500_000
        started = time.monotonic()
        with pytest.raises(STORAGE_ERRORS) as caught:
            place.write_bytes(bytes(size))
        assert time.monotonic() - started < 0.5 + size / 100_000 + 5
        assert "no answer in time" in explain(caught.value)


def test_a_silent_endpoint_is_told_within_seconds_and_long_before_it_is_given_up(
    job_command: Callable[..., list[str]], tmp_path: Path
) -> None:
    with silent() as endpoint:
        options = json.dumps({"endpoint_url": endpoint, "key": "k", "secret": "s"})
        words = job_command("s3://bucket/in", tmp_path / "out", "--storage-options", options)
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        try:
            started = time.monotonic()
            assert process.stderr is not None
            said = process.stderr.readline()
            assert time.monotonic() - started < 40, "6 to 8 on a quiet machine"
        finally:
            process.kill()
            process.communicate()
    assert said.startswith(f"retrying S3 at {endpoint}: no answer for 4 s, attempt 1 of 8 ")


def test_a_connection_is_waited_for_no_longer_than_ten_seconds() -> None:
    place = locate("s3://bucket", {"endpoint_url": "http://127.0.0.1:1"}, RetryPolicy(timeout=60))
    assert isinstance(place, S3Location)
    config = place.fs.s3.meta.config
    assert (config.connect_timeout, config.read_timeout) == (10, 60)
