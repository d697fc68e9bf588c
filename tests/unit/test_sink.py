"""Sink: each row in one of maps/ and errors/, and nothing double or half after any crash."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from job.cluster.tracker import start_tracker
from job.errors import ImageError
from job.inputs.manifest_source import ManifestSource
from job.outputs.commits import Commits
from job.outputs.encoder import MapEncoder
from job.outputs.sink import MapSink, committing
from job.rows import failure
from job.storage.location import Location

NAMES = ("sky", "ground")


COLOURS = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)


def ids_file(ids: list[int]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"id": pa.array(ids, pa.int64())}), buffer)
    return buffer.getvalue()


def tree(output: Location) -> set[str]:
    root = Path(output.path)
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def leave(output: Location, *names: str) -> None:
    """What a crashed run has left: records and data files."""
    for name in names:
        (output / name).write_bytes(ids_file([1, 2]))


PENDING, COMMITTED = "commits/run-000000.pending.parquet", "commits/run-000000.parquet"


MAPS, ERRORS = "maps/run-000000.parquet", "errors/run-000000.parquet"


@pytest.mark.parametrize(
    ("left", "kept", "unfinished"),
    [
        ([], [], 0),
        ([PENDING], [], 1),
        ([PENDING, MAPS], [], 1),
        ([PENDING, ERRORS], [], 1),
        ([PENDING, MAPS, ERRORS], [], 1),
        ([PENDING, COMMITTED, MAPS, ERRORS], [COMMITTED, MAPS, ERRORS], 0),
        ([PENDING, COMMITTED], [COMMITTED], 0),
        ([COMMITTED], [COMMITTED], 0),
        ([COMMITTED, MAPS, ERRORS], [COMMITTED, MAPS, ERRORS], 0),
    ],
)
def test_recovery_keeps_what_was_committed_and_removes_the_rest(
    output: Location, left: list[str], kept: list[str], unfinished: int
) -> None:
    leave(output, *left)
    assert Commits(output).recover() == unfinished
    assert tree(output) == set(kept)
    assert Commits(output).recover() == 0
    assert Commits(output).done().tolist() == ([1, 2] if COMMITTED in kept else [])


def test_recovery_touches_nothing_of_other_tasks_or_runs(output: Location) -> None:
    others = [
        "commits/run-000001.parquet",
        "maps/run-000001.parquet",
        "maps/run-0000000.parquet",
        "maps/other-000000.parquet",
        "errors/run-000000.parquet.bak",
        "manifest/part-0.parquet",
        "runs/run.json",
    ]
    leave(output, PENDING, MAPS, *others)
    Commits(output).recover()
    assert tree(output) == set(others)


def test_done_ids_are_sorted_and_single(output: Location) -> None:
    (output / "commits" / "a.parquet").write_bytes(ids_file([5, 1, 3]))
    (output / "commits" / "b.parquet").write_bytes(ids_file([2, 3]))
    (output / "commits" / "c.pending.parquet").write_bytes(ids_file([9]))
    (output / "commits" / "notes.txt").write_bytes(b"")
    done = Commits(output).done()
    assert done.tolist() == [1, 2, 3, 5]
    assert done.dtype == np.int64


def test_nothing_is_done_where_nothing_is(output: Location) -> None:
    assert Commits(output).done().tolist() == []
    assert Commits(output).recover() == 0


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


def test_the_setting_of_ray_data_is_put_back(output: Location) -> None:
    before = ray.data.DataContext.get_current().checkpoint_config
    with committing(output):
        assert ray.data.DataContext.get_current().checkpoint_config is not before
    assert ray.data.DataContext.get_current().checkpoint_config is before
    with pytest.raises(KeyError), committing(output):
        raise KeyError
    assert ray.data.DataContext.get_current().checkpoint_config is before
