"""OutputClaim: one writer at a time, and a dead one gives way, on S3 as well."""

import pytest

from job.errors import OutputConflictError, StorageError
from job.outputs.claims import OutputClaim
from job.storage.opening import locate
from tests.conftest import S3
from tests.unit.test_claims import of, record, together


def test_a_bucket_that_does_not_exist_is_a_storage_error(s3: S3) -> None:
    with (
        pytest.raises(StorageError, match="s3://no-such-bucket/out"),
        OutputClaim(locate("s3://no-such-bucket/out"), "ours", beat_seconds=0.05),
    ):
        pass


def test_a_claim_on_s3_keeps_others_out_as_well(s3: S3) -> None:
    place = locate("s3://bucket/claimed")
    with OutputClaim(place, "first", beat_seconds=0.1) as first:
        with pytest.raises(OutputConflictError, match="run first"), OutputClaim(place, "second"):
            pass
        first.ask()
    assert record(of(place, first))["ended"]
    with OutputClaim(place, "second", beat_seconds=0.1) as second:
        assert second.epoch == 2
        with pytest.raises(OutputConflictError):
            first.ask()


def test_of_those_that_start_at_once_exactly_one_goes_on(s3: S3) -> None:
    place = locate("s3://bucket/raced")
    held, refused = together(lambda run_id: OutputClaim(place, run_id, beat_seconds=1))
    assert (len(held), len(refused)) == (1, 3)
