"""Tables: Arrow's own files in place of Parquet's, which take ten times as long to write and read.

What is in them, and that one which is cut short cannot be read, is the same.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa

from job.images.map_png import decode_map
from job.results import verification
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
    return _ParquetModule.read_table(pa.BufferReader(data))


class _ParquetModule:
    """Of ``pyarrow.parquet`` what reading takes."""

    @staticmethod
    def read_table(source: Any, columns: Sequence[str] | None = None) -> pa.Table:
        with pa.ipc.open_file(source) as reader:
            table = reader.read_all()
        return table if columns is None else table.select(columns)


# By module and name, what is put in its place while runs are simulated.
REPLACED: tuple[tuple[Any, str, Any], ...] = (
    (parquet, "to_bytes", to_bytes),
    (parquet, "schema_to_bytes", schema_to_bytes),
    (parquet, "pq", _ParquetModule),
    # The same few maps again and again; each is decoded once.
    (verification, "decode_map", lru_cache(maxsize=None)(decode_map)),
)
