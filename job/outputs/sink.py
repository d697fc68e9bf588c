"""Sink: rows to maps/ and errors/, each row in exactly one of them, committed in two phases.

Ray Data writes a pending record of a task's ids, then has the sink write the data, then renames
the record (:mod:`job.outputs.ray_commits`). What is here is the part in between.
"""

import platform
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import ray
from ray.data.block import Block, BlockAccessor
from ray.data.datasource import FilenameProvider

from job import schema
from job.cluster.metrics import StageTimer
from job.cluster.ray_internals import FileDatasink
from job.cluster.tracker import Tracker
from job.errors import OutputConflictError, StorageError
from job.outputs.error_rows import to_error_rows
from job.outputs.lock import is_held
from job.storage import parquet
from job.storage.location import Location

# PNGs: compressing them again costs time and saves nothing.
_DEFLATED = ("map.bytes",)


class MapSink(FileDatasink):
    """Writes each task's rows as ``maps/<run>-<task>.parquet`` and ``errors/<run>-<task>.parquet``.

    Args:
        output: the run's OUTPUT.
        run_id: the run, which has to hold the lock whenever something is written.
        rows_per_file: rows to collect before a file is written and committed.
        tracker: the run's :class:`job.cluster.tracker.RunTracker` actor.
        maps: the schema of ``maps/``, with the model's labels in its metadata.
    """

    def __init__(
        self,
        output: Location,
        run_id: str,
        rows_per_file: int,
        tracker: Tracker,
        maps: pa.Schema = schema.MAPS,
    ) -> None:
        super().__init__(
            output.path,
            filesystem=output.arrow,
            filename_provider=_RunFilenames(run_id),
            file_format="parquet",
        )
        self._output = output
        self._run_id = run_id
        self._rows_per_file = rows_per_file
        self._tracker = tracker
        self._maps = maps

    @property
    def min_rows_per_write(self) -> int:
        return self._rows_per_file

    def on_write_start(self, schema: pa.Schema | None = None) -> None:
        """Nothing to make ahead: files bring their folders along."""

    def on_write_complete(self, write_result: Any) -> None:
        """Nothing to remove, not even when no row was written."""

    def write(self, blocks: Iterable[Block], ctx: Any) -> None:
        """Write one task's rows; its commit record is renamed right after this returns."""
        tables = [BlockAccessor.for_block(block).to_arrow() for block in blocks]
        tables = [table for table in tables if len(table)]
        if not tables:
            return
        self._check_lock()
        timer = StageTimer(self._tracker)
        name = self.filename_provider.get_filename_for_task("", ctx.task_idx)
        rows = pa.concat_tables(tables)
        good = rows["error"].is_null()
        maps = rows.filter(good).drop_columns(["error"]).cast(self._maps)
        errors = to_error_rows(rows.filter(pa.compute.invert(good)), self._run_id)
        with timer.stage("write", len(rows)):
            for folder, part in (("maps", maps), ("errors", errors)):
                file = self._output / folder / name
                if len(part):
                    file.write_bytes(parquet.to_bytes(part, _DEFLATED))
                else:
                    file.delete()  # an earlier attempt at this task may have had one
        try:
            self._check_lock()
        except OutputConflictError:
            # The run that took over counts these images as not done; leave it no second copy.
            (self._output / "maps" / name).delete()
            (self._output / "errors" / name).delete()
            raise
        timer.report()
        kinds = Counter(errors["error_type"].to_pylist())
        # Waited for: the receipt counts on every task having been heard when the last one ends.
        ray.get(self._tracker.commit.remote(ctx.task_idx, len(maps), dict(kinds)))

    def _check_lock(self) -> None:
        if not is_held(self._output, self._run_id):
            begun = any((self._output / name).exists() for name in ("lock.json", "manifest"))
            if self._output.is_local and not begun:
                raise StorageError(
                    f"OUTPUT {self._output.uri} is not there on node {platform.node()}. Mount the"
                    " same folder at the same path on every node, or use an object storage such as"
                    " s3://"
                )
            raise OutputConflictError(
                f"run {self._run_id} no longer holds {self._output.uri}: another run took over"
            )


class _RunFilenames(FilenameProvider):
    """Names a task's files after its run: a retried task overwrites what it wrote before."""

    def __init__(self, run_id: str) -> None:
        super().__init__(file_format="parquet")
        self._run_id = run_id

    def get_filename_for_task(self, write_uuid: str, task_index: int) -> str:
        return f"{self._run_id}-{task_index:06d}.parquet"
