"""Left out: rows of images that are committed already; a run that lacks others is not finished."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from job import schema
from job.errors import JobError
from job.outputs.attempts import Attempt, write_attempt
from job.outputs.claims import OutputClaim
from job.outputs.commits import Commits
from job.outputs.committer import Committer
from job.rows import ENCODED
from job.storage.location import Location

COLOURS = np.zeros((1, 3), np.uint8)


@pytest.fixture
def claim(output: Location) -> Iterator[OutputClaim]:
    """A claim to an OUTPUT that nobody else writes to."""
    with OutputClaim(output, "run-1", beat_seconds=0.05) as held:
        yield held


def attempt(output: Location, claim: OutputClaim, *ids: int) -> Attempt:
    """What a task has written in which every image has failed."""
    reason = {"stage": "fetch", "error_type": "empty", "message": "m", "retryable": False}
    rows = [{"id": number, "uri": f"in/{number}.jpg", "error": reason} for number in ids]
    columns = {name: [row.get(name) for row in rows] for name in ENCODED.names}
    # Columns of maps/ may not be null, and no row goes there.
    table = pa.table(columns, pa.schema([field.with_nullable(True) for field in ENCODED]))
    return write_attempt(output, claim.name, "run-1", table, schema.maps(("sky",), COLOURS))


def test_a_run_whose_images_are_all_committed_is_finished(
    output: Location, claim: OutputClaim
) -> None:
    committer = Committer(output, claim)
    committer.expect(np.arange(4))
    committer.commit([attempt(output, claim, 0, 1), attempt(output, claim, 2, 3)])
    committer.check_finished()
    assert (committer.errors, committer.note) == ({"empty": 4}, "")


def test_rows_that_came_twice_are_told_and_the_images_they_came_with_are_left_to_do(
    output: Location, claim: OutputClaim
) -> None:
    committer = Committer(output, claim)
    committer.expect(np.arange(5))
    # The second task was cut elsewhere than the first: it has one image again, and one is in none.
    committer.commit([attempt(output, claim, 0, 1), attempt(output, claim, 1, 2)])
    committer.commit([attempt(output, claim, 3, 3)])
    assert committer.note == "4 rows were left out, for they came with images that had come before"
    with pytest.raises(JobError) as raised:
        committer.check_finished()
    assert str(raised.value) == (
        "3 of 5 images have neither a map nor an error row: 4 rows were left out, for they came"
        " with images that had come before. What is committed stays; the same command goes on with"
        " them"
    )
    assert raised.value.exit_code == 1
    assert Commits.read(output).done().tolist() == [0, 1]


def test_an_image_that_never_came_is_told(output: Location, claim: OutputClaim) -> None:
    committer = Committer(output, claim)
    committer.expect(np.arange(1))
    with pytest.raises(JobError) as raised:
        committer.check_finished()
    assert str(raised.value) == (
        "1 of 1 image has neither a map nor an error row. What is committed stays; the same command"
        " goes on with it"
    )


def test_a_task_that_came_twice_whole_costs_no_image(output: Location, claim: OutputClaim) -> None:
    committer = Committer(output, claim)
    committer.expect(np.arange(1))
    committer.commit([attempt(output, claim, 0), attempt(output, claim, 0)])
    committer.check_finished()
    assert committer.note == "1 row was left out, for its image had come before"
