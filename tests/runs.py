"""What runs do to an OUTPUT, without Ray and models: claim, write attempts, commit, be killed."""

import io
import itertools
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from job import schema
from job.errors import ImageError
from job.inputs.base import Input
from job.inputs.manifest import Manifest, freeze
from job.limits import RetryPolicy
from job.outputs import receipts
from job.outputs.attempts import Attempt, write_attempt, write_manifest
from job.outputs.claims import OutputClaim
from job.outputs.clock import Clock
from job.outputs.commits import Commits
from job.outputs.committer import Committer
from job.outputs.encoder import MapEncoder
from job.outputs.names import DATA
from job.outputs.recovery import recover
from job.rows import failure
from job.storage.location import Location, StorageOptions
from job.storage.objects import Listing, TellUnlisted

if TYPE_CHECKING:
    from job.outputs.clock import Ticking

NAMES, COLOURS = ("sky", "ground"), np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
# Ids of runs, as they come in time.
RUNS = [f"2026112{day}T000000-{day:016x}" for day in range(10)]
TASK = 4


def encoded(
    ids: Iterable[int],
    failed: Iterable[int] = (),
    run_id: str = RUNS[0],
    *,
    retryable: Iterable[int] = (),
) -> pa.Table:
    """Rows as the encoder leaves them.

    Args:
        ids: of the images.
        failed: those of them that have no map.
        run_id: the run.
        retryable: those that have no map, and may have one later.
    """
    numbers = list(ids)
    reasons = dict.fromkeys(failed, failure("decode", ImageError("truncated", "cut short")))
    gone = failure("fetch", ImageError("missing", "not there", retryable=True))
    reasons.update(dict.fromkeys(retryable, gone))
    maps = np.empty(len(numbers), object)
    for row, number in enumerate(numbers):
        maps[row] = np.full((3, 1 + number % 7), number % 2, np.uint8)
    batch = {
        "id": np.asarray(numbers, np.int64),
        "uri": np.array([f"in/{number}.jpg" for number in numbers], object),
        "height": np.full(len(numbers), 3, np.int32),
        "width": np.asarray(numbers, np.int32) % 7 + 1,
        "map": maps,
        "confidence": np.full(len(numbers), 0.5, np.float32),
        "error": np.array([reasons.get(number) for number in numbers], object),
    }
    return MapEncoder(NAMES, COLOURS, model="m", run_id=run_id)(batch)


def listed(ids: Iterable[int]) -> pa.Table:
    """Rows of the manifest, of the images of these ids."""
    rows = [{"id": number, "uri": f"in/{number}.jpg"} for number in ids]
    return pa.Table.from_pylist(rows, schema=schema.MANIFEST)


def attempt(
    output: Location,
    claim: OutputClaim,
    ids: Iterable[int],
    failed: Iterable[int] = (),
    **more: Iterable[int],
) -> Attempt:
    """What a worker of a run does with a task's rows; see :func:`encoded`."""
    rows = encoded(ids, failed, claim.run_id, **more)
    return write_attempt(output, claim.name, claim.run_id, rows, schema.maps(NAMES, COLOURS))


def expecting(output: Location, claim: OutputClaim, ids: Iterable[int]) -> Committer:
    """What commits images of these ids."""
    committer = Committer(output, claim)
    committer.expect(np.sort(np.asarray(list(ids), np.int64)))
    return committer


def run(
    output: Location, ids: Iterable[int], failed: Iterable[int] = (), run_id: str = RUNS[0]
) -> Commits:
    """A run from its beginning to its end; what it has found that earlier ones had committed.

    Args:
        output: its OUTPUT.
        ids: of the images that it sets out for, unless they are done; :data:`TASK` to a task.
        failed: those of them that it gives no map.
        run_id: the run.
    """
    with OutputClaim(output, run_id, clock=Hands()) as claim:
        found = recover(output, claim)
        left = np.setdiff1d(np.asarray(list(ids), np.int64), found.done()).tolist()
        committer = expecting(output, claim, left)
        committer.commit(
            [
                attempt(output, claim, part, set(failed).intersection(part))
                for start in range(0, len(left), TASK)
                if (part := left[start : start + TASK])
            ]
        )
        committer.clear()
    return found


def frozen_in(source: Input, output: Location) -> Manifest:
    """The manifest of an OUTPUT, as a run leaves it that lists an input and does no more."""
    with OutputClaim(output, receipts.new_run_id(), clock=Hands()) as claim:
        found = freeze(source, recover(output, claim).manifest_files())
        committer = Committer(output, claim)
        for part in found.new_parts:
            committer.commit([write_manifest(output, claim.name, part)])
    return found


def tree(output: Location) -> set[str]:
    """Names of all files of a local OUTPUT."""
    root = Path(output.path)
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def of_data(names: Iterable[str]) -> set[str]:
    """Those of them that readers of the results open, who leave out names with a dot in front."""
    return {name for name in names if re.match(rf"(?:{'|'.join(DATA)})/[^.]", name)}


def ids_in(output: Location, folder: str) -> list[int]:
    """The id of every row of a folder, sorted."""
    files = [output / folder / name for name in (output / folder).names()]
    tables = [pq.read_table(io.BytesIO(file.read_bytes()), columns=["id"]) for file in files]
    return sorted(number for table in tables for number in table["id"].to_pylist())


class Hands(Clock):
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.time = 0.0
        self.beats: list[Callable[[], object]] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def every(self, seconds: float, action: Callable[[], object], name: str) -> "Ticking":
        self.beats.append(action)
        return self

    def stop(self) -> None:
        """As of what is done again and again."""


class Killed(BaseException):
    """The process has ended here: nothing catches this."""


class Dying:
    """Ends a process at one of its requests; none that it makes afterwards is done.

    Args:
        when: whether it is this request, of a kind for a path.
    """

    def __init__(self, when: Callable[[str, str], bool]) -> None:
        self._when = when
        self.is_dead = False

    def __call__(self, kind: str, path: str) -> None:
        self.is_dead = self.is_dead or self._when(kind, path)
        if self.is_dead:
            raise Killed


def run_until(
    when: Callable[[str, str], bool],
    output: Location,
    ids: Iterable[int],
    failed: Iterable[int] = (),
    run_id: str = RUNS[0],
) -> bool:
    """As :func:`run`, but killed at a request; returns whether it was."""
    dying = Dying(when)
    try:
        run(Watched(output, dying), ids, failed, run_id)
    except Killed:
        return True
    return False


def watching(claim: OutputClaim, look: Callable[[str, str], None]) -> "Watched":
    """The OUTPUT of a run, whose requests are looked at from now on."""
    claim._output = place = Watched(claim._output, look)
    return place


def overtaking(output: Location, run_id: str, meanwhile: Callable[[], object]) -> OutputClaim:
    """The claim of a run that is paused between its look at the claims and its own.

    Args:
        output: its OUTPUT.
        run_id: the run.
        meanwhile: what happens while it is paused.
    """
    paused = [meanwhile]

    def look(kind: str, path: str) -> None:
        if kind == "write" and paused:
            paused.pop()()

    return OutputClaim(Watched(output, look), run_id, clock=Hands())


def at_request(number: int) -> Callable[[str, str], bool]:
    """Whether it is the request of this number, from 0."""
    seen = itertools.count()
    return lambda kind, path: next(seen) == number


def is_request(wanted: str, part: str, kind: str, path: str) -> bool:
    """Whether it is a request of the kind that is wanted, for a path with this part in it."""
    return kind == wanted and part in path


# The first request of a commit behind its records.
at_move = partial(is_request, "read", "/attempts/")


class Watched(Location):
    """A place whose requests can be looked at, or end the process.

    A move is two requests, as on S3: a copy, and then the removal.

    Args:
        inner: the place.
        look: called before each request with its kind and its path.
    """

    def __init__(self, inner: Location, look: Callable[[str, str], None]) -> None:
        self._inner = inner
        self._look = look
        self.path = inner.path

    @classmethod
    def open(cls, uri: str, options: StorageOptions, retry_policy: RetryPolicy) -> Location:
        raise NotImplementedError

    @property
    def uri(self) -> str:
        return self._inner.uri

    @property
    def is_local(self) -> bool:
        return self._inner.is_local

    @property
    def leaves_half_written(self) -> bool:
        return self._inner.leaves_half_written

    @property
    def listing_lag(self) -> float:
        return self._inner.listing_lag

    @property
    def arrow(self) -> pyarrow.fs.FileSystem:
        self._look("read", self.path)
        return self._inner.arrow

    def at(self, path: str) -> Self:
        return type(self)(self._inner.at(path), self._look)

    def holds(self, uri: str) -> bool:
        return self._inner.holds(uri)

    def listing(self, tell: TellUnlisted) -> Listing:
        raise NotImplementedError

    def would_list(self, file: Location) -> bool:
        raise NotImplementedError

    def obstacle(self) -> str:
        raise NotImplementedError

    def exists(self) -> bool:
        self._look("size", self.path)
        return self._inner.exists()

    def fetch(
        self, path: str, etag: str | None, size: int | None, limit: int | None = None
    ) -> bytes:
        self._look("read", path)
        return self._inner.fetch(path, etag, size, limit)

    def write_bytes(self, data: bytes) -> None:
        self._look("write", self.path)
        self._inner.write_bytes(data)

    def names(self) -> list[str]:
        return list(self.entries())

    def entries(self) -> dict[str, int]:
        self._look("list", self.path)
        return self._inner.entries()

    def size(self) -> int | None:
        self._look("size", self.path)
        return self._inner.size()

    def delete(self) -> None:
        self._look("delete", self.path)
        self._inner.delete()

    def move_to(self, target: Self) -> None:
        data = self.read_bytes()
        target.write_bytes(data)
        self.delete()
