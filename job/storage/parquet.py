"""Parquet: files of rows in any storage, read and written whole."""

import io
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from job.errors import StorageError
from job.storage.location import Location


def tables(folder: Location, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The Parquet files of a folder, one at a time, by their names.

    Args:
        folder: where they are.
        columns: what to read of them, so that no more is fetched; None for everything.
    """
    for name in folder.names():
        if name.endswith(".parquet"):
            yield read(folder / name, columns)


def read(file: Location, columns: Sequence[str] | None = None) -> pa.Table:
    """One Parquet file, or some columns of it.

    Raises:
        StorageError: it is damaged, lacks a column, or has one of a foreign type. Ray registers one
            whose values are pickles, which whoever takes them out of the table would run.
    """
    with file.arrow.open_input_file(file.path) as source:
        try:
            opened = pq.ParquetFile(source, pre_buffer=True)
            missing = sorted(set(columns or ()).difference(opened.schema_arrow.names))
            table = opened.read(list(columns) if columns else None)
            table.validate(full=True)
        except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
            if isinstance(error, OSError) and not _is_of_arrow(error):
                raise
            raise StorageError(f"{file.uri} is damaged, or no Parquet file") from error
    if missing:
        raise StorageError(f"{file.uri}: there is no column {missing[0]!r}, which a run writes")
    for field in table.schema:
        if not _is_plain(field.type):
            raise StorageError(
                f"{file.uri}: column {field.name!r} is of the type {field.type}, which no run"
                " writes. Remove the file"
            )
    return table


def _is_of_arrow(error: OSError) -> bool:
    """Whether it is about what the file holds: those of storage have a number, or a type."""
    return type(error) is OSError and error.errno is None


def _is_plain(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return False
    if pa.types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    return all(_is_plain(kind.field(number).type) for number in range(kind.num_fields))


def to_bytes(table: pa.Table, uncompressed: Sequence[str] = ()) -> bytes:
    """A table as a Parquet file.

    Args:
        table: the rows.
        uncompressed: paths of columns (``map.bytes``) that compressing again would not make
            smaller.
    """
    leaves = pq.ParquetFile(pa.BufferReader(_written(table.schema.empty_table()))).schema
    paths = [leaves.column(index).path for index in range(len(leaves))]
    compression = {path: "NONE" if path in uncompressed else "ZSTD" for path in paths}
    return _written(table, compression=compression)


def schema_to_bytes(schema: pa.Schema) -> bytes:
    """A Parquet file that says what its columns are, and has no rows.

    It has no row group either: ``datasets`` takes the first one's rows for the size of its batches.
    """
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, schema):
        pass
    return buffer.getvalue()


def _written(table: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()
