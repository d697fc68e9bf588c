"""Committed rows: what a commit record says of its images, and what its files have of them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from job import schema
from job.outputs.records import Record
from job.results.listed_images import ListedImages
from job.results.sound_rows import RowReader
from job.results.verdict import Verdict

# What is read of each file. The maps themselves are large: see job.results.map_check.
COLUMNS = {
    "maps": pa.schema(
        [schema.MAPS.field(name) for name in ("id", "uri", "height", "width", "model", "run_id")]
    ),
    "errors": schema.ERRORS,
}


@dataclass(frozen=True)
class FileRows:
    """The images of a file.

    Attributes:
        name: of the file, from OUTPUT on.
        ids: of the images, int64.
        is_committed: whether a record names the file.
    """

    name: str
    ids: np.ndarray
    is_committed: bool = True


@dataclass(frozen=True)
class RecordRows:
    """The images of a record's files, and what is wrong with them."""

    files: list[FileRows]
    verdict: Verdict


def compare_record(record: Record, reader: RowReader, images: ListedImages) -> RecordRows:
    """Compare the rows of a record's files with the record, and with the manifest.

    Args:
        record: one that counts.
        reader: of the OUTPUT.
        images: that are listed.
    """
    verdict = Verdict()
    names = [file.name for file in record.files if file.name.partition("/")[0] in COLUMNS]
    found: dict[str, pa.Table] = {}
    for name in names:
        rows = reader.read(name, COLUMNS[name.partition("/")[0]], verdict)
        if rows is not None:
            found[name] = rows
            images.check(name, rows, verdict)
    _compare(record, found, len(found) == len(names), verdict)
    files = [FileRows(name, rows["id"].to_numpy()) for name, rows in found.items()]
    return RecordRows(files, verdict)


def read_unnamed(name: str, reader: RowReader, is_committed: bool) -> FileRows:
    """The images of a file that no record names which could be read; none where it cannot be."""
    column = pa.schema([schema.MAPS.field("id")])
    rows = reader.read(name, column, Verdict()) if name.endswith(".parquet") else None
    ids = np.empty(0, np.int64) if rows is None else rows["id"].to_numpy()
    return FileRows(name, ids, is_committed)


def _compare(record: Record, found: dict[str, pa.Table], is_whole: bool, verdict: Verdict) -> None:
    twice, counts = np.unique(record.ids, return_counts=True)
    verdict.blame(
        "images that a commit record has twice",
        [f"image {number} of {record.name}" for number in twice[counts > 1]],
    )
    for name, rows in found.items():
        strange = ~np.isin(rows["id"].to_numpy(), record.ids)
        verdict.blame(
            "rows that were never committed",
            [f"image {number} in {name}" for number in rows["id"].to_numpy()[strange]],
        )
        if "error_type" in record.rows.column_names:
            against = _contradicting_errors if name.startswith("errors/") else _contradicting_maps
            verdict.blame(
                "rows that contradict their commit record", list(against(record, name, rows))
            )
    if is_whole:  # else it is told of the file
        there = [rows["id"].to_numpy() for rows in found.values()]
        missing = np.setdiff1d(record.ids, np.concatenate([np.empty(0, np.int64), *there]))
        verdict.blame(
            "committed images without a row",
            [f"image {number} of {record.name}" for number in missing],
        )


def _contradicting_maps(record: Record, name: str, rows: pa.Table) -> Iterator[str]:
    committed = _kinds(record)
    for number in rows["id"].to_pylist():
        kind = committed.get(number)
        if kind is not None:
            yield f"image {number} in {name}: committed as an error ({kind})"


def _contradicting_errors(record: Record, name: str, rows: pa.Table) -> Iterator[str]:
    committed = _kinds(record)
    for number, kind in zip(rows["id"].to_pylist(), rows["error_type"].to_pylist(), strict=True):
        if number in committed and committed[number] is None:
            yield f"image {number} in {name}: committed as a map"
        elif number in committed and committed[number] != kind:
            yield f"image {number} in {name}: error_type {kind}, committed as {committed[number]}"


def _kinds(record: Record) -> dict[int, str | None]:
    ids, kinds = record.rows["id"].to_pylist(), record.rows["error_type"].to_pylist()
    return dict(zip(ids, kinds, strict=True))
