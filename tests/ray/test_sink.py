"""Sink: each row in one of maps/ and errors/, and nothing double or half after any crash."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from job import schema
from job.cluster.tracker import start_tracker
from job.errors import ImageError, OutputConflictError
from job.inputs.manifest_source import ManifestSource
from job.outputs.commits import Commits
from job.outputs.encoder import MapEncoder
from job.outputs.lock import OutputLock
from job.outputs.ray_commits import committing
from job.outputs.sink import MapSink
from job.rows import failure
from job.storage.local import LocalLocation
from job.storage.location import Location
from job.storage.opening import locate
from tests.outputs import rows
from tests.unit.test_commits import tree

NAMES, COLOURS = ("sky", "ground"), np.array([[1, 2, 3], [4, 5, 6]], np.uint8)


def encoded(table: dict[str, np.ndarray]) -> pa.Table:
    """Rows as the encoder leaves them: every id that can be divided by 5 has failed."""
    count = len(table["id"])
    bad = [number % 5 == 0 for number in table["id"]]
    reason = failure("decode", ImageError("truncated", "cut short"))
    maps = np.empty(count, object)
    for row, number in enumerate(table["id"]):
        maps[row] = np.full((3, 1 + int(number)), number % 2, np.uint8)
    batch = {
        "id": table["id"],
        "uri": table["uri"],
        "height": np.full(count, 3, np.int32),
        "width": table["id"].astype(np.int32) + 1,
        "map": maps,
        "confidence": np.full(count, 0.5, np.float32),
        "error": np.array([reason if wrong else None for wrong in bad], object),
    }
    return MapEncoder(NAMES, COLOURS, model="m", run_id="run-1")(batch)


def write(output: Location, images: range, rows_per_file: int = 4) -> Any:
    """Write images as a run does, and return what the tracker has counted."""
    listed = pa.table({"id": list(images), "uri": [f"in/{number}.jpg" for number in images]})
    source = ManifestSource(listed, 2)
    tracker = start_tracker()
    with committing(output):
        # A Dataset keeps the settings that it was made under.
        dataset = ray.data.read_datasource(
            source, override_num_blocks=source.tasks, num_cpus=0.5
        ).map_batches(encoded, batch_format="numpy", batch_size=None, num_cpus=0.25)
        dataset.write_datasink(
            MapSink(output, "run-1", rows_per_file, tracker), ray_remote_args={"num_cpus": 0.1}
        )
    return ray.get(tracker.snapshot.remote())


@pytest.fixture(scope="module")
def written(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Location, Any]:
    """The OUTPUT of one small write, and what the tracker has counted."""
    output = locate(str(tmp_path_factory.mktemp("written")))
    with OutputLock(output, "run-1"):
        return output, write(output, range(12))


def test_rows_are_split_between_maps_and_errors(written: tuple[Location, Any]) -> None:
    output, total = written
    maps, errors = rows(output.path, "maps"), rows(output.path, "errors")
    assert sorted(row["id"] for row in maps) == [1, 2, 3, 4, 6, 7, 8, 9, 11]
    assert sorted(row["id"] for row in errors) == [0, 5, 10]
    assert errors[0] == {
        "id": errors[0]["id"],
        "uri": f"in/{errors[0]['id']}.jpg",
        "stage": "decode",
        "error_type": "truncated",
        "message": "cut short",
        "retryable": False,
        "run_id": "run-1",
    }
    assert (total.maps, dict(total.errors)) == (9, {"truncated": 3})
    assert total.images["write"] == 12


def test_every_written_id_is_committed(written: tuple[Location, Any]) -> None:
    output, _ = written
    assert Commits(output).done().tolist() == list(range(12))
    assert not [name for name in (output / "commits").names() if ".pending" in name]
    assert Commits(output).recover() == 0


def test_files_bear_the_run_and_the_records_bear_their_names(written: tuple[Location, Any]) -> None:
    output, _ = written
    maps, errors = (output / "maps").names(), (output / "errors").names()
    assert all(name.startswith("run-1-") and name.endswith(".parquet") for name in maps + errors)
    assert set(maps + errors) == set((output / "commits").names())
    assert len(maps) == 3, "four rows to a file, of blocks of two"


def test_files_have_the_schemas_of_the_contract(written: tuple[Location, Any]) -> None:
    output, _ = written
    for folder, expected in (("maps", schema.MAPS), ("errors", schema.ERRORS)):
        for name in (output / folder).names():
            found = pq.read_schema(f"{output.path}/{folder}/{name}")
            assert found.equals(expected)
            assert found.metadata == expected.metadata


def test_pngs_are_not_compressed_again_and_the_rest_is(written: tuple[Location, Any]) -> None:
    output, _ = written
    metadata = pq.read_metadata(f"{output.path}/maps/{(output / 'maps').names()[0]}")
    found = {
        metadata.row_group(0).column(index).path_in_schema: metadata.row_group(0)
        .column(index)
        .compression
        for index in range(metadata.num_columns)
    }
    assert found.pop("map.bytes") == "UNCOMPRESSED"
    assert set(found.values()) == {"ZSTD"}
    assert any(path.startswith("classes.") for path in found)


@pytest.mark.usefixtures("ray_session")
def test_a_node_that_does_not_see_the_output_is_no_run_that_took_over(output: Location) -> None:
    with pytest.raises(Exception, match=r"is not there on node \S+\. Mount the same folder"):
        write(output, range(4))
    assert not (output / "maps").names()


class Block:
    """What Ray Data hands to a sink beside the rows."""

    task_idx = 7


class LosesLease(LocalLocation):
    """A storage on which the lock is lost right after the first file was written."""

    def __truediv__(self, name: str) -> "LosesLease":
        return LosesLease(self.fs, f"{self.path}/{name}")

    def write_bytes(self, data: bytes) -> None:
        super().write_bytes(data)
        root = LocalLocation(self.fs, self.path.rsplit("/", 2)[0])
        (root / "lock.json").write_bytes(json.dumps({"run_id": "run-2"}).encode())


@pytest.mark.usefixtures("ray_session")
def test_a_lock_lost_while_writing_leaves_nothing_behind(output: Location) -> None:
    (output / "lock.json").write_bytes(json.dumps({"run_id": "run-1"}).encode())
    tracker = start_tracker()
    assert isinstance(output, LocalLocation)
    sink = MapSink(LosesLease(output.fs, output.path), "run-1", 4, tracker)
    table = encoded({"id": np.arange(6), "uri": np.array(["u"] * 6, object)})
    with pytest.raises(OutputConflictError, match="another run took over"):
        sink.write([table], Block())
    assert tree(output) == {"lock.json"}
    assert ray.get(tracker.snapshot.remote()).done == 0


@pytest.mark.usefixtures("ray_session")
def test_a_retried_task_overwrites_what_it_wrote_before(output: Location) -> None:
    (output / "lock.json").write_bytes(json.dumps({"run_id": "run-1"}).encode())
    tracker = start_tracker()
    sink = MapSink(output, "run-1", 4, tracker)
    table = encoded({"id": np.arange(6), "uri": np.array(["u"] * 6, object)})
    for _ in range(2):
        sink.write([table.slice(0, 2), table.slice(2), table.slice(0, 0)], Block())
    assert tree(output) == {"lock.json", "maps/run-1-000007.parquet", "errors/run-1-000007.parquet"}
    assert len(rows(output.path, "maps")) == 4
    total = ray.get(tracker.snapshot.remote())
    assert (total.maps, total.errors.total()) == (4, 2)


@pytest.mark.usefixtures("ray_session")
def test_a_retry_that_goes_better_leaves_no_error_of_the_first_attempt(output: Location) -> None:
    (output / "lock.json").write_bytes(json.dumps({"run_id": "run-1"}).encode())
    tracker = start_tracker()
    sink = MapSink(output, "run-1", 4, tracker)
    table = encoded({"id": np.arange(6), "uri": np.array(["u"] * 6, object)})
    good = table.filter(table["error"].is_null())
    sink.write([table], Block())
    sink.write([good], Block())
    assert tree(output) == {"lock.json", "maps/run-1-000007.parquet"}
    total = ray.get(tracker.snapshot.remote())
    assert (total.maps, total.errors.total()) == (len(good), 0)


@pytest.mark.usefixtures("ray_session")
def test_a_task_without_rows_writes_no_file(output: Location) -> None:
    nobody: Any = None
    sink = MapSink(output, "run-1", 4, nobody)
    sink.write([encoded({"id": np.arange(0), "uri": np.empty(0, object)})], Block())
    sink.write([], Block())
    assert not output.exists()


@pytest.mark.usefixtures("ray_session")
def test_a_run_that_does_not_hold_the_output_writes_nothing(output: Location) -> None:
    (output / "manifest" / "part-000000000000.parquet").write_bytes(b"")
    with pytest.raises(Exception, match=r"no longer holds .*another run took over"):
        write(output, range(4))
    assert not (output / "maps").names()
    assert not (output / "errors").names()
    assert Commits(output).done().tolist() == []
