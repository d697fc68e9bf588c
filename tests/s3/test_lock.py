"""OutputLock: one writer at a time, and a dead one gives way; other processes are real ones."""

import threading
import time

import pytest

from job.errors import OutputConflictError, StorageError
from job.outputs.lock import OutputLock, is_held
from job.storage.opening import locate
from tests.conftest import S3


def test_a_bucket_that_does_not_exist_is_a_storage_error(s3: S3) -> None:
    with (
        pytest.raises(StorageError, match="s3://no-such-bucket/out"),
        OutputLock(locate("s3://no-such-bucket/out"), "ours", beat_seconds=0.05),
    ):
        pass


def test_a_lock_on_s3_keeps_others_out_as_well(s3: S3) -> None:
    place = locate("s3://bucket/leased")
    with OutputLock(place, "first", beat_seconds=0.1):
        with pytest.raises(OutputConflictError, match="run first"), OutputLock(place, "second"):
            pass
        assert is_held(place, "first")
    assert place.names() == []


def test_of_two_that_start_at_once_at_most_one_goes_on(s3: S3) -> None:
    place = locate("s3://bucket/raced")
    together, held, refused = threading.Barrier(4), [], []

    def run(name: str) -> None:
        together.wait()
        try:
            with OutputLock(place, name, beat_seconds=0.3):
                held.append(name)
                time.sleep(1)
        except OutputConflictError:
            refused.append(name)

    threads = [threading.Thread(target=run, args=(f"run-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 3)
