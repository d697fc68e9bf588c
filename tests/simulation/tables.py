"""Tables: Arrow's own files in place of Parquet's, which take ten times as long to write and read.

What is in them, and that one which is cut short cannot be read, is the same.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import pyarrow as pa

from job.images.map_png import decode_map
from job.outputs import dataset_card
from job.results import map_check
from job.storage import parquet


def to_bytes(table: pa.Table, uncompressed: Sequence[str] = ()) -> bytes:
    """In place of :func:`job.storage.parquet.to_bytes`."""
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table)
    return bytes(buffer.getvalue())


def schema_to_bytes(schema: pa.Schema) -> bytes:
    """In place of :func:`job.storage.parquet.schema_to_bytes`."""
    return to_bytes(schema.empty_table())


def from_bytes(data: bytes) -> pa.Table:
    """A table that :func:`to_bytes` has written."""
    return _File(pa.BufferReader(data)).read()


class _File:
    """Of ``pyarrow.parquet.ParquetFile`` what reading takes."""

    def __init__(self, source: Any, pre_buffer: bool = False) -> None:
        with pa.ipc.open_file(source) as reader:
            self._table = reader.read_all()

    @property
    def schema_arrow(self) -> pa.Schema:
        return self._table.schema

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        if columns is None:
            return self._table
        return self._table.select([name for name in columns if name in self._table.column_names])


class _ParquetModule:
    """Of ``pyarrow.parquet`` likewise."""

    ParquetFile = _File


# By module and name, what is put in its place while runs are simulated.
REPLACED: tuple[tuple[Any, str, Any], ...] = (
    (parquet, "to_bytes", to_bytes),
    (parquet, "schema_to_bytes", schema_to_bytes),
    (parquet, "pq", _ParquetModule),
    # The same few maps and the same card again and again.
    (map_check, "decode_map", cache(decode_map)),
    (dataset_card, "card", cache(dataset_card.card)),
)
