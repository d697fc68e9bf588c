"""Records: what is committed together, images and the files of their rows, as in ``commits/``."""

import json
import re
from collections.abc import Container
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from job.errors import StorageError
from job.outputs import names
from job.outputs.attempts import Attempt
from job.storage import parquet
from job.storage.location import Location

_NAME = re.compile(rf"(?:{'|'.join(names.DATA)})/[^/]+\.parquet")
_ATTEMPT = re.compile(rf"{names.ATTEMPTS}/[^/]+\.parquet")
_COLUMNS = pa.schema([pa.field("id", pa.int64(), False), pa.field("error_type", pa.string())])


@dataclass(frozen=True)
class CommittedFile:
    """A file of maps/, errors/ or manifest/.

    Attributes:
        name: from OUTPUT on.
        size: in bytes; None in formats 1 and 2, which did not say.
        attempt: where it lies until it is moved to its place, from OUTPUT on; likewise.
    """

    name: str
    size: int | None = None
    attempt: str | None = None


@dataclass(frozen=True)
class Record:
    """A commit record.

    Attributes:
        name: from OUTPUT on.
        rows: ``id`` (int64) of each image that is done, and ``error_type``: why it has no map, or
            null; formats 1 and 2 had only the ids.
        files: what was written.
    """

    name: str
    rows: pa.Table
    files: tuple[CommittedFile, ...]

    @classmethod
    def of(cls, attempt: Attempt, stem: str) -> "Record":
        """The record by which an attempt is committed.

        Args:
            attempt: the attempt.
            stem: what its names begin with.
        """
        rows = pa.table({"id": attempt.ids, "error_type": attempt.error_types}, schema=_COLUMNS)
        files = (
            CommittedFile(f"{folder}/{stem}.parquet", size, name)
            for folder, (name, size) in attempt.files.items()
        )
        return cls(f"{names.COMMITS}/{stem}.parquet", rows, tuple(files))

    @property
    def ids(self) -> np.ndarray:
        """Of the images that are done, int64."""
        ids: np.ndarray = self.rows["id"].to_numpy()
        return ids

    @property
    def run_id(self) -> str:
        """The run that has committed it."""
        parts = names.parts_of(self.name)
        return parts.run_id if parts else ""

    def to_bytes(self) -> bytes:
        """As it is stored."""
        files = [[file.name, file.size, file.attempt] for file in self.files]
        return parquet.to_bytes(self.rows.replace_schema_metadata({"files": json.dumps(files)}))


def read_record(output: Location, name: str, there: Container[str]) -> Record:
    """A record of an OUTPUT.

    Args:
        output: the OUTPUT.
        name: of the record, from OUTPUT on.
        there: names of the files in ``maps/``, ``errors/`` and ``manifest/``, from OUTPUT on.

    Raises:
        StorageError: it is damaged, or none.
    """
    rows = parquet.read(output / name)
    said = (rows.schema.metadata or {}).get(b"files")
    columns = [(column.name, column.type) for column in rows.schema]
    expected = [(column.name, column.type) for column in _COLUMNS]
    if columns != (expected[:1] if said is None else expected) or rows["id"].null_count:
        raise _no_record(output / name)
    if said is not None:
        return Record(name, rows, _files(said, output / name))
    places = places_of(name)
    found = [place for place in places if place in there]
    # Without any it is void.
    return Record(name, rows, tuple(CommittedFile(place) for place in found or places[:1]))


def places_of(record: str) -> list[str]:
    """Where the files of a record may lie, from OUTPUT on."""
    return [f"{folder}/{names.base(record)}" for folder in names.DATA]


def _files(said: bytes, record: Location) -> tuple[CommittedFile, ...]:
    """What a record says of its files: nothing else is moved, or read, for it."""
    try:
        files = [(name, size, attempt) for name, size, attempt in json.loads(said)]
        are_sound = all(
            type(size) is int and _NAME.fullmatch(name) and _ATTEMPT.fullmatch(attempt)
            for name, size, attempt in files
        )
    except (ValueError, TypeError, RecursionError):
        are_sound = False
    if not are_sound:
        raise _no_record(record)
    return tuple(CommittedFile(*file) for file in files)


def _no_record(place: Location) -> StorageError:
    return StorageError(
        f"{place.uri} is no commit record, or a damaged one. Remove it, and the next run does its"
        " images again"
    )
