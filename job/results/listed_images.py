"""Listed images: the manifest, as rows are compared with it; little is kept of each image."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from job import schema
from job.outputs.encoder import without_signature
from job.results.sound_rows import RowReader
from job.results.verdict import Verdict

_COLUMNS = pa.schema([schema.MANIFEST.field(name) for name in ("id", "uri", "part")])
_OPTIONAL = ("part",)  # format 1 had none
# As Python has them rows take many times the memory.
_ROWS_AT_ONCE = 10_000


@dataclass(frozen=True)
class ListedImages:
    """The images of a manifest.

    Attributes:
        ids: of the images, int64, sorted, each once.
        uris: a digest of each one's URI, int64: other URIs have others, but for one chance in
            10**19.
        is_whole: whether all of the manifest could be read.
    """

    ids: np.ndarray
    uris: np.ndarray
    is_whole: bool

    @classmethod
    def read(
        cls, reader: RowReader, files: Sequence[str], is_whole: bool, verdict: Verdict
    ) -> "ListedImages":
        """Read a manifest, and see whether each image has one id.

        Args:
            reader: of the OUTPUT.
            files: names of the manifest's files, from OUTPUT on.
            is_whole: whether these are all.
            verdict: is told what is wrong.
        """
        ids, uris, images = [_NONE], [_NONE], [_NONE]
        for name in files:
            told = Verdict()
            rows = reader.read(name, _COLUMNS, told, _OPTIONAL)
            is_whole &= not told.problems
            for count, first in told.problems.values():
                verdict.blame("lost or damaged parts of the manifest", first, count)
            if rows is None:
                continue
            ids.append(rows["id"].to_numpy())
            for some in rows.to_batches(_ROWS_AT_ONCE):
                uris.append(_digests(without_signature(uri) for uri, _ in _listed(some)))
                images.append(_digests(_key(*listed) for listed in _listed(some)))
        every = np.concatenate(ids)
        single, places, counts = np.unique(every, return_index=True, return_counts=True)
        twice = single[counts > 1]
        verdict.blame(
            "images that are listed more than once", [f"image {n}" for n in twice[:5]], len(twice)
        )
        _check_uris(reader, files, np.concatenate(images)[places], verdict)
        return cls(single, np.concatenate(uris)[places], is_whole)

    def check(self, name: str, rows: pa.Table, verdict: Verdict) -> None:
        """See whether rows are of images that are listed, with the same URI.

        Args:
            name: of their file, from OUTPUT on.
            rows: with ``id`` and ``uri``.
            verdict: is told what is wrong.
        """
        ids = rows["id"].to_numpy()
        places = np.searchsorted(self.ids, ids)
        known = places < len(self.ids)
        known[known] = self.ids[places[known]] == ids[known]
        if self.is_whole:
            unknown = [f"image {number} in {name}" for number in ids[~known]]
            verdict.blame("rows of images that are not listed", unknown)
        uris = rows["uri"].to_pylist()
        same = known.copy()
        same[known] = self.uris[places[known]] == _digests(uris)[known]
        others = [
            f"image {ids[row]} in {name}: {uris[row]}" for row in np.flatnonzero(known & ~same)
        ]
        verdict.blame("rows of another URI than the manifest has", others)


_NONE = np.empty(0, np.int64)


def _digests(keys: Iterable[object]) -> np.ndarray:
    # Python's hash of text is SipHash, of 64 bits.
    return np.fromiter(map(hash, keys), np.int64)


def _listed(rows: pa.RecordBatch) -> Iterator[tuple[str, str | None]]:
    """URI and part of each row."""
    uris = rows["uri"].to_pylist()
    parts = rows["part"].to_pylist() if "part" in rows.schema.names else [None] * len(uris)
    return zip(uris, parts, strict=True)


def _key(uri: str, part: str | None) -> str | tuple[str, str]:
    """What tells an image from every other."""
    return uri if part is None else (uri, part)


def _check_uris(
    reader: RowReader, files: Sequence[str], images: np.ndarray, verdict: Verdict
) -> None:
    """See whether no URI has two ids.

    Args:
        reader: of the OUTPUT.
        files: of the manifest.
        images: a digest of the URI and part of each id.
        verdict: is told what is wrong.
    """
    digests, counts = np.unique(images, return_counts=True)
    twice = digests[counts > 1]
    if not len(twice):
        return
    shown = set(twice[:5].tolist())
    named: defaultdict[tuple[str, str | None], set[int]] = defaultdict(set)
    for name in files:
        rows = reader.read(name, _COLUMNS, Verdict(), _OPTIONAL)
        for some in rows.to_batches(_ROWS_AT_ONCE) if rows is not None else []:
            for number, listed in zip(some["id"].to_pylist(), _listed(some), strict=True):
                if hash(_key(*listed)) in shown:
                    named[listed].add(number)
    offenders = [
        f"{uri}{f' ({part})' if part else ''}: images {_and(sorted(numbers))}"
        for (uri, part), numbers in named.items()
    ]
    verdict.blame("URIs with more than one id", offenders, len(twice))


def _and(numbers: Sequence[int]) -> str:
    *most, last = (f"{number}" for number in numbers)
    return f"{', '.join(most)} and {last}"
