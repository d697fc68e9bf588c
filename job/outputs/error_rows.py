"""Error rows: the images that have no map and why, as ``errors/`` has them."""

import numpy as np

from job.outputs import names
from job.outputs.commits import Commits
from job.storage import parquet
from job.storage.location import Location


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


def open_errors(commits: Commits, *, only_retryable: bool) -> np.ndarray:
    """Ids of images whose last word is an error: they have no map. Sorted int64.

    Args:
        commits: of the OUTPUT.
        only_retryable: leave out what would only fail again.
    """
    # Records are in the order of their runs: of each id the last row counts.
    last: dict[int, bool] = {}
    mapped = [np.empty(0, np.int64)]
    for record in commits.records:
        rows = commits.failed(record, ["id", "retryable"])
        last.update((row["id"], row["retryable"]) for row in rows)
        mapped.append(np.setdiff1d(record.ids, [row["id"] for row in rows]))
    ids = [id for id, is_retryable in last.items() if is_retryable or not only_retryable]
    return np.setdiff1d(np.array(ids, np.int64), np.concatenate(mapped))
