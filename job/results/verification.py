"""Verification: reconcile manifest, maps, errors and commit records of an OUTPUT."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from job.errors import StorageError
from job.images.map_png import decode_map
from job.outputs.commits import Commits
from job.outputs.receipts import check_format
from job.results.maps import UNREADABLE
from job.storage import parquet
from job.storage.location import Location
from job.storage.refusals import explain

# Problems by their kind, and what one of them is called.
KINDS = {
    "images with more than one map": "image with more than one map",
    "rows of images that are not listed": "row of an image that is not listed",
    "files that cannot be read": "file that cannot be read",
    "committed images without a row": "committed image without a row",
    "rows that were never committed": "row that was never committed",
    "writes that were not finished": "write that was not finished",
    "maps that do not decode": "map that does not decode",
    "maps of another size than their row says": "map of another size than its row says",
}


@dataclass
class Verdict:
    """What an OUTPUT holds, and what is wrong with it.

    Attributes:
        images: rows of the manifest.
        maps: images that have a map.
        open_errors: images that have none, and an error row instead.
        not_done: images that have neither.
        problems: what must not be, by kind: the first few offenders of each, and how many.
        unreadable: files that cannot be read.
    """

    images: int = 0
    maps: int = 0
    open_errors: int = 0
    not_done: int = 0
    problems: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)

    @property
    def is_complete(self) -> bool:
        """Every image has exactly one map or an error row, and nothing else is there."""
        return not self.problems and not self.not_done

    def blame(self, kind: str, offenders: list[str]) -> None:
        """Add offenders to a kind of problem."""
        if offenders:
            count, first = self.problems.get(kind, (0, []))
            self.problems[kind] = (count + len(offenders), (first + offenders)[:5])


def verify(output: Location, *, deep: bool = False) -> Verdict:
    """Check that every id of the manifest is exactly one of map, error, not done.

    Args:
        output: the OUTPUT.
        deep: decode every PNG as well, and compare its size with ``height`` and ``width``.

    Raises:
        OutputConflictError: the OUTPUT has a format that this version does not know.
        StorageError: there is no manifest to check against.
    """
    check_format(output)
    verdict = Verdict()
    listed = _ids(output, "manifest", verdict)
    if not len(listed):
        raise StorageError(f"OUTPUT {output.uri} has no manifest: no run has begun there")
    maps, errors = _ids(output, "maps", verdict), _ids(output, "errors", verdict)
    mapped, failed = np.unique(maps), np.setdiff1d(errors, maps)
    verdict.images, verdict.maps = len(listed), len(mapped)
    verdict.open_errors = len(failed)
    verdict.not_done = len(np.setdiff1d(listed, np.union1d(maps, errors)))
    numbers, counts = np.unique(maps, return_counts=True)
    verdict.blame("images with more than one map", _named(numbers[counts > 1]))
    verdict.blame("rows of images that are not listed", _named(np.setdiff1d(maps, listed)))
    _check_commits(output, np.union1d(maps, errors), verdict)
    if deep:
        _check_pngs(output, verdict)
    return verdict


def _ids(output: Location, folder: str, verdict: Verdict) -> np.ndarray:
    found = [np.empty(0, np.int64)]
    for _, table in _readable(output, folder, ["id"], verdict):
        found.append(table["id"].to_numpy())
    return np.concatenate(found)


def _readable(
    output: Location, folder: str, columns: list[str], verdict: Verdict
) -> Iterator[tuple[str, pa.Table]]:
    """The files of a folder that can be read; the others become problems."""
    for name in (output / folder).names():
        file = output / folder / name
        if file.uri in verdict.unreadable:
            continue
        try:
            yield name, parquet.read(file, columns)
        except (StorageError, OSError) as error:
            reason = str(error) if isinstance(error, StorageError) else explain(error)
            verdict.blame("files that cannot be read", [reason])
            verdict.unreadable.add(file.uri)


def _check_commits(output: Location, written: np.ndarray, verdict: Verdict) -> None:
    commits = Commits(output)
    try:
        done = commits.done()
    except StorageError as error:
        verdict.blame("files that cannot be read", [str(error)])
        return
    verdict.blame("committed images without a row", _named(np.setdiff1d(done, written)))
    verdict.blame("rows that were never committed", _named(np.setdiff1d(written, done)))
    verdict.blame("writes that were not finished", commits.pending())


def _check_pngs(output: Location, verdict: Verdict) -> None:
    columns = ["id", "height", "width", "map"]
    for name, table in _readable(output, "maps", columns, verdict):
        for row in table.to_pylist():
            where = f"maps/{name}: image {row['id']}"
            try:
                shape = decode_map(row["map"]["bytes"]).shape
            except UNREADABLE as error:
                verdict.blame("maps that do not decode", [f"{where}: {error}"])
                continue
            if shape != (row["height"], row["width"]):
                verdict.blame("maps of another size than their row says", [where])


def _named(ids: np.ndarray) -> list[str]:
    return [f"image {number}" for number in ids.tolist()]
