"""Attempts: what a task has written, where no reader of maps/ looks, until it is committed."""

import json
import platform
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from job import schema
from job.errors import OutputConflictError, StorageError
from job.outputs import names
from job.outputs.claims import check_held
from job.storage import parquet
from job.storage.location import Location

# PNGs: compressing them again costs time and saves nothing.
_DEFLATED = ("map.bytes",)


@dataclass(frozen=True)
class Attempt:
    """One attempt at a task, in storage.

    Attributes:
        ids: of its images, int64.
        error_types: of each image, why it has no map; None where it has one.
        files: name and size in bytes of what it has written, by the folder it is for.
    """

    ids: np.ndarray
    error_types: list[str | None]
    files: dict[str, tuple[str, int]]

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Attempt":
        """Of a row that :func:`write_attempt` has returned."""
        files = {folder: (name, size) for folder, name, size in json.loads(row["files"])}
        return cls(np.asarray(row["ids"], np.int64), list(row["error_types"]), files)

    def to_row(self) -> pa.Table:
        """A table of one row, by which it travels to the driver."""
        files = [(folder, *file) for folder, file in self.files.items()]
        return pa.table(
            {
                "ids": pa.array([self.ids], pa.list_(pa.int64())),
                "error_types": pa.array([self.error_types], pa.list_(pa.string())),
                "files": [json.dumps(files)],
            }
        )


def write_attempt(
    output: Location, claim: str, run_id: str, rows: pa.Table, maps: pa.Schema
) -> Attempt:
    """Write a task's rows, each to the data of ``maps/`` or to that of ``errors/``.

    Args:
        output: the run's OUTPUT.
        claim: name of the run's claim, which has to hold.
        run_id: the run.
        rows: encoded rows (:data:`job.rows.ENCODED`), one or more.
        maps: the schema of ``maps/``.

    Raises:
        OutputConflictError: another run took over.
        StorageError: OUTPUT is not the same folder on this node.
        OSError: it cannot be written.
    """
    _check_held(output, claim)
    good = rows["error"].is_null()
    mapped = rows.filter(good).drop_columns(["error"]).cast(maps)
    failed = to_error_rows(rows.filter(pc.invert(good)), run_id)
    files = {}
    for folder, part in (("maps", mapped), ("errors", failed)):
        if len(part):
            files[folder] = _write(output, claim, folder, parquet.to_bytes(part, _DEFLATED))
    ids = [part["id"].to_numpy() for part in (mapped, failed)]
    kinds = [*([None] * len(mapped)), *failed["error_type"].to_pylist()]
    return Attempt(np.concatenate(ids), kinds, files)


def to_error_rows(rows: pa.Table, run_id: str) -> pa.Table:
    """Rows of ``errors/``, of encoded rows that all have an error.

    Args:
        rows: with ``id``, ``uri`` and ``error``.
        run_id: the run that could not give them a map.
    """
    run_ids = pa.array([run_id] * len(rows), pa.string())
    told = rows.select(["id", "uri", "error"]).flatten().append_column("run_id", run_ids)
    return told.rename_columns(schema.ERRORS.names).cast(schema.ERRORS)


def write_manifest(output: Location, claim: str, rows: pa.Table) -> Attempt:
    """Write rows that are new in the manifest; they are no images that are done.

    Args:
        output: the run's OUTPUT.
        claim: name of the run's claim.
        rows: of :data:`job.schema.MANIFEST`.
    """
    file = _write(output, claim, "manifest", parquet.to_bytes(rows))
    return Attempt(np.empty(0, np.int64), [], {"manifest": file})


def _write(output: Location, claim: str, folder: str, data: bytes) -> tuple[str, int]:
    # A name of its own for each attempt: none writes over another's.
    name = f"{names.ATTEMPTS}/{claim}-{secrets.token_hex(8)}.{folder}.parquet"
    (output / name).write_bytes(data)
    return name, len(data)


def _check_held(output: Location, claim: str) -> None:
    try:
        check_held(output, claim)
    except OutputConflictError as error:
        if output.is_local and not output.exists():
            raise StorageError(
                f"OUTPUT {output.uri} is not there on node {platform.node()}. Mount the same folder"
                " at the same path on every node, or use an object storage such as s3://"
            ) from error
        raise
