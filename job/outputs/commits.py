"""Commits: which ids are done, and what becomes of writes that never finished.

A record that is still pending is a write that never finished: its data files are removed.
"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from job.storage import parquet
from job.storage.local import PARTIAL
from job.storage.location import Location

# Where the records of an OUTPUT are. Format 1 called the folder ``checkpoint``; what is committed
# there counts, and nothing is added to it.
FOLDER, _EARLIER = "commits", "checkpoint"
_PENDING = ".pending.parquet"
_COMMITTED = ".parquet"


class Commits:
    """The commit records of an OUTPUT: which ids are done.

    Args:
        output: the OUTPUT.
    """

    def __init__(self, output: Location) -> None:
        self._output = output
        self._places = [output / FOLDER, output / _EARLIER]

    def recover(self) -> int:
        """Remove what unfinished writes have left, and return how many there were.

        A record is deleted before its data, so that a writer that is still alive either has
        committed by then, and its data stay, or can no longer commit.
        """
        if self._output.is_local:
            self._remove_partial_files()
        unfinished = 0
        for place in self._places:
            for name in place.names():
                if not name.endswith(_PENDING):
                    continue
                (place / name).delete()
                data = f"{name.removesuffix(_PENDING)}{_COMMITTED}"
                if (place / data).exists():
                    continue
                unfinished += 1
                for folder in ("maps", "errors"):
                    (self._output / folder / data).delete()
        return unfinished

    def _remove_partial_files(self) -> None:
        for folder in ("", FOLDER, _EARLIER, "errors", "manifest", "maps", "runs"):
            for name in (self._output / folder).names():
                if name.endswith(PARTIAL):
                    (self._output / folder / name).delete()

    def runs(self) -> list[str]:
        """Ids of the runs that have begun a write here and left a record of it, oldest first."""
        return sorted({file.name.rpartition("-")[0] for file in self._records()})

    def pending(self) -> list[str]:
        """Names of the records of writes that are going on, or never finished."""
        return [file.name for file in self._records() if file.name.endswith(_PENDING)]

    def committed(self, run_id: str = "") -> list[str]:
        """Names of the records of writes that are committed: of one run, or of all."""
        return [file.name for file in self._committed(run_id)]

    def count(self, run_id: str) -> tuple[int, dict[str, int]]:
        """How many maps a run has committed, and how many errors of each kind."""
        files = self._committed(run_id)
        failing = set((self._output / "errors").names()).intersection(file.name for file in files)
        with ThreadPoolExecutor(32) as pool:
            rows = sum(len(ids) for ids in pool.map(_read_ids, files))
            kinds = Counter(kind for part in pool.map(self._read_kinds, failing) for kind in part)
        return rows - kinds.total(), dict(kinds)

    def _read_kinds(self, name: str) -> list[str]:
        table = parquet.read(self._output / "errors" / name, ["error_type"])
        return list(table["error_type"].to_pylist())

    def done(self) -> np.ndarray:
        """The ids that are committed, sorted, int64."""
        with ThreadPoolExecutor(32) as pool:
            parts = list(pool.map(_read_ids, self._committed()))
        return np.unique(np.concatenate([np.empty(0, np.int64), *parts]))

    def _committed(self, run_id: str = "") -> list[Location]:
        return [
            file
            for file in self._records()
            if not file.name.endswith(_PENDING)
            and (not run_id or file.name.startswith(f"{run_id}-"))
        ]

    def _records(self) -> list[Location]:
        """The records in all folders, by their names."""
        found = [place / name for place in self._places for name in place.names()]
        records = [file for file in found if file.name.endswith(_COMMITTED)]
        return sorted(records, key=lambda file: file.name)


def _read_ids(record: Location) -> np.ndarray:
    return parquet.read(record, ["id"])["id"].to_numpy()
