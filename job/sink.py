"""Sink: rows to maps/ and errors/, each row in exactly one of them, committed in two phases.

Ray Data writes a pending record of a task's ids, then has the sink write the data, then renames
the record (``ray.data.checkpoint``). What is here is the part in between and the recovery: a record
that is still pending is a write that never finished, and its data files are removed.
"""

import contextlib
import io
import json
import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.data.block import Block, BlockAccessor
from ray.data.checkpoint import CheckpointConfig
from ray.data.checkpoint.checkpoint_filter import CheckpointManager
from ray.data.datasource import FilenameProvider
from ray.data.datasource.file_datasink import _FileDatasink

from job import artifacts, schema
from job.data_settings import data_settings
from job.errors import JobError, OutputConflictError, StorageError, causes
from job.lease import is_held
from job.stopwatch import Stopwatch
from job.storage import PARTIAL, REFUSALS, Location, explain

_PENDING = ".pending.parquet"
_COMMITTED = ".parquet"


class MapSink(_FileDatasink):
    """Writes each task's rows as ``maps/<run>-<task>.parquet`` and ``errors/<run>-<task>.parquet``.

    Args:
        output: the run's OUTPUT.
        run_id: the run, which has to hold the lease whenever something is written.
        rows_per_file: rows to collect before a file is written and committed.
        tally: the run's :class:`job.progress.Tally` actor.
        maps: the schema of ``maps/``, with the model's labels in its metadata.
    """

    def __init__(
        self,
        output: Location,
        run_id: str,
        rows_per_file: int,
        tally: Any,
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
        self._tally = tally
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
        self._check_lease()
        stopwatch = Stopwatch(self._tally)
        name = self.filename_provider.get_filename_for_task("", ctx.task_idx)
        rows = pa.concat_tables(tables)
        good = pa.compute.equal(rows["error"], "")
        maps = rows.filter(good).drop_columns(["error"]).cast(self._maps)
        errors = _error_rows(rows.filter(pa.compute.invert(good)), self._run_id)
        with stopwatch.stage("write", len(rows)):
            for folder, part in (("maps", maps), ("errors", errors)):
                file = self._output / folder / name
                if len(part):
                    file.write_bytes(_parquet(part))
                else:
                    file.delete()  # an earlier attempt at this task may have had one
        try:
            self._check_lease()
        except OutputConflictError:
            # The run that took over counts these images as not done; leave it no second copy.
            (self._output / "maps" / name).delete()
            (self._output / "errors" / name).delete()
            raise
        stopwatch.report()
        kinds = Counter(errors["error_type"].to_pylist())
        # Waited for: the receipt counts on every task having been heard when the last one ends.
        ray.get(self._tally.commit.remote(ctx.task_idx, len(maps), dict(kinds)))

    def _check_lease(self) -> None:
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
    reasons = [json.loads(reason) for reason in rows["error"].to_pylist()]
    columns = {
        "id": rows["id"],
        "uri": rows["uri"],
        **{
            name: [reason[name] for reason in reasons]
            for name in ("stage", "error_type", "message", "retryable")
        },
        "run_id": [run_id] * len(rows),
    }
    return pa.table(columns, schema=schema.ERRORS)


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


# Recovery and resume


class Commits:
    """The commit records under ``OUTPUT/checkpoint/``: which ids are done."""

    def __init__(self, output: Location) -> None:
        self._output = output
        self._place = output / "checkpoint"

    def recover(self) -> int:
        """Remove what unfinished writes have left, and return how many there were.

        A record is deleted before its data, so that a writer that is still alive either has
        committed by then, and its data stay, or can no longer commit.
        """
        if self._output.is_local:
            self._remove_partial_files()
        unfinished = 0
        for name in self.pending():
            base = name.removesuffix(_PENDING)
            (self._place / name).delete()
            if (self._place / f"{base}{_COMMITTED}").exists():
                continue
            unfinished += 1
            for folder in ("maps", "errors"):
                (self._output / folder / f"{base}{_COMMITTED}").delete()
        return unfinished

    def _remove_partial_files(self) -> None:
        for folder in ("", "checkpoint", "errors", "manifest", "maps", "runs"):
            for name in (self._output / folder).names():
                if name.endswith(PARTIAL):
                    (self._output / folder / name).delete()

    def pending(self) -> list[str]:
        """Names of the records of writes that are going on, or never finished."""
        return [name for name in self._place.names() if name.endswith(_PENDING)]

    def committed(self, run_id: str = "") -> list[str]:
        """Names of the records of writes that are committed: of one run, or of all."""
        return [
            name
            for name in self._place.names()
            if name.endswith(_COMMITTED)
            and not name.endswith(_PENDING)
            and (not run_id or name.startswith(f"{run_id}-"))
        ]

    def count(self, run_id: str) -> tuple[int, dict[str, int]]:
        """How many maps a run has committed, and how many errors of each kind."""
        names = self.committed(run_id)
        failing = set((self._output / "errors").names()).intersection(names)
        with ThreadPoolExecutor(32) as pool:
            rows = sum(len(ids) for ids in pool.map(self._read_ids, names))
            kinds = Counter(kind for part in pool.map(self._read_kinds, failing) for kind in part)
        return rows - kinds.total(), dict(kinds)

    def _read_kinds(self, name: str) -> list[str]:
        table = artifacts.read(self._output / "errors" / name, ["error_type"])
        return list(table["error_type"].to_pylist())

    def done(self) -> np.ndarray:
        """The ids that are committed, sorted, int64."""
        names = self.committed()
        with ThreadPoolExecutor(32) as pool:
            parts = list(pool.map(self._read_ids, names))
        return np.unique(np.concatenate([np.empty(0, np.int64), *parts]))

    def _read_ids(self, name: str) -> np.ndarray:
        return artifacts.read(self._place / name, ["id"])["id"].to_numpy()


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
        checkpoint_path=(output / "checkpoint").path,
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
