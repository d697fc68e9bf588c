"""Sink: rows to maps/ and errors/, each row in exactly one of them, committed in two phases.

Ray Data writes a pending record of a task's ids, then has the sink write the data, then renames
the record (``ray.data.checkpoint``). What is here is the part in between;
:mod:`job.outputs.commits` reads the records.
"""

import contextlib
import io
import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.data.block import Block, BlockAccessor
from ray.data.checkpoint import CheckpointConfig
from ray.data.datasource import FilenameProvider

from job import schema
from job.cluster.data_settings import data_settings
from job.cluster.metrics import StageTimer
from job.cluster.ray_internals import CheckpointManager, FileDatasink
from job.cluster.tracker import Tracker
from job.errors import JobError, OutputConflictError, StorageError, causes
from job.outputs import commits
from job.outputs.lock import is_held
from job.storage.location import REFUSALS, Location, explain


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
        errors = _error_rows(rows.filter(pa.compute.invert(good)), self._run_id)
        with timer.stage("write", len(rows)):
            for folder, part in (("maps", maps), ("errors", errors)):
                file = self._output / folder / name
                if len(part):
                    file.write_bytes(_parquet(part))
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


def _error_rows(rows: pa.Table, run_id: str) -> pa.Table:
    run_ids = pa.array([run_id] * len(rows), pa.string())
    told = rows.select(["id", "uri", "error"]).flatten().append_column("run_id", run_ids)
    return told.rename_columns(schema.ERRORS.names).cast(schema.ERRORS)


def _parquet(table: pa.Table) -> bytes:
    # PNGs are deflated already; compressing them again costs time and saves nothing.
    leaves = pq.ParquetFile(_empty_parquet(table.schema)).schema
    paths = [leaves.column(index).path for index in range(len(leaves))]
    compression = {path: "NONE" if path == "map.bytes" else "ZSTD" for path in paths}
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression=compression, write_statistics=True)
    return buffer.getvalue()


def _empty_parquet(of: pa.Schema) -> io.BytesIO:
    buffer = io.BytesIO()
    pq.write_table(of.empty_table(), buffer)
    buffer.seek(0)
    return buffer


class _AlreadyDropped(CheckpointManager):
    """Tells Ray that nothing is left to drop: the manifest was read without what is done."""

    def load_checkpoint(
        self, data_file_dir: str | None = None, data_file_filesystem: Any = None
    ) -> tuple[None, int]:
        return None, 0


@contextlib.contextmanager
def committing(output: Location) -> Iterator[None]:
    """Within the context, Ray Data records the ids of what the sink has written.

    Raises:
        StorageError: OUTPUT could not be written. Images that cannot be read are rows and raise
            nothing, so what storage raises in here is about OUTPUT.
    """
    records = CheckpointConfig(
        id_column="id",
        checkpoint_path=(output / commits.FOLDER).path,
        override_filesystem=output.arrow,
        delete_checkpoint_on_success=False,
        checkpoint_manager_cls=_AlreadyDropped,
    )
    try:
        with data_settings(checkpoint_config=records):
            yield
    except ray.exceptions.RayError as error:
        refused = [behind for behind in causes(error) if isinstance(behind, REFUSALS)]
        if not refused or any(isinstance(e, JobError) for e in causes(error)):
            raise
        raise StorageError(
            f"OUTPUT {output.uri} cannot be written: {explain(refused[-1])}. What is committed"
            " stays; the same command goes on once it can be written again"
        ) from error
