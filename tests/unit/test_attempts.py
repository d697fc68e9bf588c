"""Attempts: each row in one of maps/ and errors/, where nobody sees it until it is committed."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from job import schema
from job.cluster.metrics import StageTimer
from job.errors import OutputConflictError, StorageError
from job.outputs.attempt_writer import AttemptWriter
from job.outputs.attempts import Attempt, write_attempt, write_manifest
from job.outputs.claims import OutputClaim
from job.storage import parquet
from job.storage.location import Location
from tests.runs import (
    COLOURS,
    NAMES,
    RUNS,
    Hands,
    Watched,
    attempt,
    encoded,
    listed,
    run,
    tree,
)

pytestmark = pytest.mark.usefixtures("quick_disk")

MAPS = schema.maps(NAMES, COLOURS)


@pytest.fixture
def claim(output: Location) -> OutputClaim:
    """Of a run that is at work."""
    return OutputClaim(output, RUNS[0], clock=Hands()).__enter__()


def test_rows_are_split_between_maps_and_errors(output: Location, claim: OutputClaim) -> None:
    ours = attempt(output, claim, range(12), failed=[0, 5, 10])
    assert set(ours.files) == {"maps", "errors"}
    tables = {folder: parquet.read(output / name) for folder, (name, _) in ours.files.items()}
    assert tables["maps"]["id"].to_pylist() == [1, 2, 3, 4, 6, 7, 8, 9, 11]
    assert tables["errors"].to_pylist() == [
        {
            "id": number,
            "uri": f"in/{number}.jpg",
            "stage": "decode",
            "error_type": "truncated",
            "message": "cut short",
            "retryable": False,
            "run_id": RUNS[0],
        }
        for number in (0, 5, 10)
    ]
    assert dict(zip(ours.ids.tolist(), ours.error_types, strict=True)) == {
        number: None if number % 5 else "truncated" for number in range(12)
    }
    for name, size in ours.files.values():
        assert (output / name).size() == size


@pytest.mark.parametrize(("failed", "folder"), [([], "maps"), (range(4), "errors")])
def test_a_folder_without_rows_gets_no_file(
    output: Location, claim: OutputClaim, failed: list[int], folder: str
) -> None:
    ours = attempt(output, claim, range(4), failed)
    assert list(ours.files) == [folder]
    assert len((output / "attempts").names()) == 1


def test_files_have_the_schemas_of_the_contract(output: Location, claim: OutputClaim) -> None:
    ours = attempt(output, claim, range(4), failed=[1])
    ours.files.update(write_manifest(output, claim.name, listed(range(4))).files)
    expected = {"maps": MAPS, "errors": schema.ERRORS, "manifest": schema.MANIFEST}
    for folder, (name, _) in ours.files.items():
        found = pq.read_schema(f"{output.path}/{name}")
        assert found.equals(expected[folder])
        assert found.metadata == expected[folder].metadata


def test_pngs_are_not_compressed_again_and_the_rest_is(
    output: Location, claim: OutputClaim
) -> None:
    name, _ = attempt(output, claim, range(4)).files["maps"]
    metadata = pq.read_metadata(f"{output.path}/{name}")
    found = {
        metadata.row_group(0).column(index).path_in_schema: metadata.row_group(0)
        .column(index)
        .compression
        for index in range(metadata.num_columns)
    }
    assert found.pop("map.bytes") == "UNCOMPRESSED"
    assert set(found.values()) == {"ZSTD"}
    assert any(path.startswith("classes.") for path in found)


def test_a_task_that_runs_twice_writes_over_nothing(output: Location, claim: OutputClaim) -> None:
    first = attempt(output, claim, range(6), failed=[1])
    before = {name: (output / name).read_bytes() for name, _ in first.files.values()}
    second = attempt(output, claim, range(6))
    assert list(second.files) == ["maps"], "this time no image has failed"
    assert second.files["maps"] != first.files["maps"]
    assert {name: (output / name).read_bytes() for name in before} == before
    assert not tree(output) & {"maps", "errors", "commits"}


def test_an_attempt_travels_as_a_row(output: Location, claim: OutputClaim) -> None:
    for failed in ([], [1], range(4)):
        ours = attempt(output, claim, range(4), failed)
        (row,) = ours.to_row().to_pylist()
        arrived = Attempt.from_row(row)
        assert arrived.ids.tolist() == ours.ids.tolist()
        assert replace(arrived, ids=ours.ids) == ours
    together = pa.concat_tables([attempt(output, claim, [1]).to_row(), ours.to_row()])
    assert [len(Attempt.from_row(row).ids) for row in together.to_pylist()] == [1, 4]


def test_a_manifest_is_no_image_that_is_done(output: Location, claim: OutputClaim) -> None:
    part = write_manifest(output, claim.name, listed(range(4)))
    assert part.ids.tolist() == []
    assert list(part.files) == ["manifest"]


class Silent(StageTimer):
    """A timer that reports to nobody, and is asked for it as a task's is."""

    def __init__(self) -> None:
        super().__init__()
        self.reports = 0

    def report(self) -> None:
        self.reports += 1


def test_the_step_of_a_run_writes_what_comes_and_tells_the_time(
    output: Location, claim: OutputClaim
) -> None:
    timer = Silent()
    writer = AttemptWriter(output, claim.name, RUNS[0], MAPS, timer)
    (row,) = writer(encoded(range(5), [2])).to_pylist()
    assert sorted(Attempt.from_row(row).ids) == [0, 1, 2, 3, 4]
    assert timer.reports == 1
    assert len(writer(encoded(()))) == 0
    assert timer.reports == 1
    assert len((output / "attempts").names()) == 2, "nothing is written where there are no rows"


def test_a_run_that_does_not_hold_the_output_writes_nothing(output: Location) -> None:
    with OutputClaim(output, RUNS[0], clock=Hands()) as first:
        pass
    run(output, [7], run_id=RUNS[1])
    before = tree(output)
    with pytest.raises(OutputConflictError, match=f"run {RUNS[1]} took over"):
        attempt(output, first, range(4))
    assert tree(output) == before


def test_a_node_that_does_not_see_the_output_is_no_run_that_took_over(output: Location) -> None:
    with pytest.raises(StorageError, match=r"is not there on node \S+\. Mount the same folder"):
        write_attempt(output, "e000001-a", "a", encoded(range(4)), MAPS)
    assert not output.exists()


def test_an_output_whose_claims_are_gone_takes_nothing(
    output: Location, claim: OutputClaim
) -> None:
    (output / "labels.json").write_bytes(b"[]")
    (output / "claims" / f"{claim.name}.json").delete()
    with pytest.raises(OutputConflictError, match="its claim is gone"):
        attempt(output, claim, range(4))
    assert tree(output) == {"labels.json"}


def test_what_is_written_while_another_run_takes_over_stays_unseen(output: Location) -> None:
    first = OutputClaim(output, RUNS[0], clock=Hands()).__enter__()
    taken: list[OutputClaim] = []

    def take_over(kind: str, path: str) -> None:
        if kind == "write" and not taken:
            first.release()  # so that it is taken over at once
            taken.append(OutputClaim(output, RUNS[1], clock=Hands()).__enter__())

    ours = attempt(Watched(output, take_over), first, range(4), failed=[1])
    assert taken
    assert {name for name in tree(output) if not name.startswith("claims/")} == {
        name for name, _ in ours.files.values()
    }
    taken[0].release()
