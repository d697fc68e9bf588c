"""Commits: which ids are done, and what becomes of writes that never finished.

A record that is still pending is a write that never finished: its data files are removed.
"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from job.storage import parquet
from job.storage.location import PARTIAL, Location

_PENDING = ".pending.parquet"
_COMMITTED = ".parquet"


class Commits:
    """The commit records under ``OUTPUT/checkpoint/``: which ids are done."""

    def __init__(self, output: Location) -> None:
        self._output = output
        self._place = output / "checkpoint"

    def recover(self) -> int:
        """Remove what unfinished writes have left, and return how many there were.

        A record is deleted before its data, so that a writer that is still alive either has
        committed by then, and its data stay, or can no longer commit.
        """
        if self._output.is_local:
            self._remove_partial_files()
        unfinished = 0
        for name in self.pending():
            base = name.removesuffix(_PENDING)
            (self._place / name).delete()
            if (self._place / f"{base}{_COMMITTED}").exists():
                continue
            unfinished += 1
            for folder in ("maps", "errors"):
                (self._output / folder / f"{base}{_COMMITTED}").delete()
        return unfinished

    def _remove_partial_files(self) -> None:
        for folder in ("", "checkpoint", "errors", "manifest", "maps", "runs"):
            for name in (self._output / folder).names():
                if name.endswith(PARTIAL):
                    (self._output / folder / name).delete()

    def pending(self) -> list[str]:
        """Names of the records of writes that are going on, or never finished."""
        return [name for name in self._place.names() if name.endswith(_PENDING)]

    def committed(self, run_id: str = "") -> list[str]:
        """Names of the records of writes that are committed: of one run, or of all."""
        return [
            name
            for name in self._place.names()
            if name.endswith(_COMMITTED)
            and not name.endswith(_PENDING)
            and (not run_id or name.startswith(f"{run_id}-"))
        ]

    def count(self, run_id: str) -> tuple[int, dict[str, int]]:
        """How many maps a run has committed, and how many errors of each kind."""
        names = self.committed(run_id)
        failing = set((self._output / "errors").names()).intersection(names)
        with ThreadPoolExecutor(32) as pool:
            rows = sum(len(ids) for ids in pool.map(self._read_ids, names))
            kinds = Counter(kind for part in pool.map(self._read_kinds, failing) for kind in part)
        return rows - kinds.total(), dict(kinds)

    def _read_kinds(self, name: str) -> list[str]:
        table = parquet.read(self._output / "errors" / name, ["error_type"])
        return list(table["error_type"].to_pylist())

    def done(self) -> np.ndarray:
        """The ids that are committed, sorted, int64."""
        names = self.committed()
        with ThreadPoolExecutor(32) as pool:
            parts = list(pool.map(self._read_ids, names))
        return np.unique(np.concatenate([np.empty(0, np.int64), *parts]))

    def _read_ids(self, name: str) -> np.ndarray:
        return parquet.read(self._place / name, ["id"])["id"].to_numpy()
