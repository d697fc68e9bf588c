"""Error rows: the images that have no map and why, as ``errors/`` has them."""

import numpy as np
import pyarrow as pa

from job import schema
from job.outputs import names
from job.storage import parquet
from job.storage.location import Location


def to_error_rows(rows: pa.Table, run_id: str) -> pa.Table:
    """Rows of ``errors/``, of encoded rows that all have an error.

    Args:
        rows: with ``id``, ``uri`` and ``error``.
        run_id: the run that could not give them a map.
    """
    run_ids = pa.array([run_id] * len(rows), pa.string())
    told = rows.select(["id", "uri", "error"]).flatten().append_column("run_id", run_ids)
    return told.rename_columns(schema.ERRORS.names).cast(schema.ERRORS)


def first_errors(output: Location, run_id: str, count: int) -> list[tuple[str, str]]:
    """URI and reason of the first images that a run could not give a map."""
    found: list[tuple[str, str]] = []
    place = output / "errors"
    for name in place.names():
        parts = names.parts_of(name)
        if len(found) < count and parts is not None and parts.run_id == run_id:
            rows = parquet.read(place / name, ["uri", "message"]).slice(0, count - len(found))
            found += [(row["uri"], row["message"]) for row in rows.to_pylist()]
    return found


def open_errors(output: Location, *, only_retryable: bool) -> np.ndarray:
    """Ids of images whose last word is an error: they have no map. Sorted int64.

    Args:
        output: the OUTPUT.
        only_retryable: leave out what would only fail again.
    """
    rows = list(parquet.tables(output / "errors", ["id", "retryable"]))
    if not rows:
        return np.empty(0, np.int64)
    failed = pa.concat_tables(rows)
    # Files are named after their runs, in the order of these: of each id the last row counts.
    ids, last = np.unique(failed["id"].to_numpy()[::-1], return_index=True)
    if only_retryable:
        ids = ids[failed["retryable"].to_numpy()[::-1][last]]
    mapped = [table["id"].to_numpy() for table in parquet.tables(output / "maps", ["id"])]
    return np.setdiff1d(ids, np.concatenate([np.empty(0, np.int64), *mapped]))
