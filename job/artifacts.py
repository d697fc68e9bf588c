"""Artifacts: what runs have left under an OUTPUT, read back table by table."""

import io
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from job.storage import Location


def tables(
    output: Location, folder: str, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """The Parquet files of ``maps``, ``errors`` or ``manifest``, one at a time, oldest first.

    Args:
        output: the OUTPUT.
        folder: which of its folders.
        columns: what to read of them; None for everything.
    """
    place = output / folder
    for name in place.names():
        if name.endswith(".parquet"):
            data = io.BytesIO((place / name).read_bytes())
            yield pq.read_table(data, columns=list(columns) if columns is not None else None)
