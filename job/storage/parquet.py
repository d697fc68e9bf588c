"""Artifacts: what runs have left under an OUTPUT, read back file by file."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from job.errors import StorageError
from job.storage.location import Location


def tables(
    output: Location, folder: str, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """The Parquet files of ``maps``, ``errors`` or ``manifest``, one at a time, oldest first.

    Args:
        output: the OUTPUT.
        folder: which of its folders.
        columns: what to read of them, so that no more is fetched; None for everything.
    """
    place = output / folder
    for name in place.names():
        if name.endswith(".parquet"):
            yield read(place / name, columns)


def first_errors(output: Location, run_id: str, count: int) -> list[tuple[str, str]]:
    """URI and reason of the first images that a run could not give a map."""
    found: list[tuple[str, str]] = []
    place = output / "errors"
    for name in place.names():
        if len(found) < count and name.startswith(f"{run_id}-"):
            rows = read(place / name, ["uri", "message"]).slice(0, count - len(found))
            found += [(row["uri"], row["message"]) for row in rows.to_pylist()]
    return found


def read(file: Location, columns: Sequence[str] | None = None) -> pa.Table:
    """One Parquet file, or some columns of it.

    Raises:
        StorageError: it is damaged, or a column is of a foreign type. Ray registers one whose
            values are pickles, which whoever takes them out of the table would run.
    """
    with file.arrow.open_input_file(file.path) as source:
        try:
            table = pq.read_table(source, columns=list(columns) if columns else None)
        except pa.ArrowException as error:
            raise StorageError(f"{file.uri} is damaged, or no Parquet file") from error
    for field in table.schema:
        if not _is_plain(field.type):
            raise StorageError(
                f"{file.uri}: column {field.name!r} is of the type {field.type}, which no run"
                " writes. Remove the file"
            )
    return table


def _is_plain(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return False
    if pa.types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    return all(_is_plain(kind.field(number).type) for number in range(kind.num_fields))


def open_errors(output: Location, *, only_retryable: bool) -> np.ndarray:
    """Ids of images whose last word is an error: they have no map. Sorted int64.

    Args:
        output: the OUTPUT.
        only_retryable: leave out what would only fail again.
    """
    rows = list(tables(output, "errors", ["id", "retryable"]))
    if not rows:
        return np.empty(0, np.int64)
    failed = pa.concat_tables(rows)
    # Files are named after their runs, which sort by time: of each id the last row counts.
    ids, last = np.unique(failed["id"].to_numpy()[::-1], return_index=True)
    if only_retryable:
        ids = ids[failed["retryable"].to_numpy()[::-1][last]]
    mapped = [table["id"].to_numpy() for table in tables(output, "maps", ["id"])]
    return np.setdiff1d(ids, np.concatenate([np.empty(0, np.int64), *mapped]))
