"""Store: an object storage in memory that answers as S3 does.

What is written is there at once for whoever asks for it by its name; listings may be behind, and
come in pages. A move is a copy and a removal.
"""

import errno
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Self, cast

import pyarrow as pa
import pyarrow.fs

from job.limits import RetryPolicy
from job.storage.location import Location, StorageOptions
from job.storage.objects import Listing, StoredObject, TellUnlisted
from tests.simulation.requests import Requests

# Is told of each effect: what was done, to which path, and what is there now (None: nothing).
Watcher = Callable[[str, str, bytes | None], None]


class ObjectStore:
    """Objects by their paths, from OUTPUT on.

    Args:
        requests: how they come here.
        random: how far listings are behind.
        lag: seconds that they may be.
        page: names that one answer has, at most.

    Attributes:
        objects: what is there.
        watchers: are told of each effect.
    """

    def __init__(self, requests: Requests, random: Random, lag: float, page: int) -> None:
        self.objects: dict[str, bytes] = {}
        self.watchers: list[Watcher] = []
        self._requests = requests
        self._random = random
        self._lag = lag
        self._page = page
        # What listings show: sizes by folder and name; and when the last change of one shows.
        self._listed: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self._shows: dict[str, float] = {}

    def put(self, path: str, data: bytes) -> None:
        """Write an object."""
        self._requests.make("put", path, lambda: self._set("put", path, data))

    def get(self, path: str) -> bytes:
        """Read one; raises FileNotFoundError."""
        return cast(bytes, self._requests.make("get", path, lambda: self._there(path)))

    def head(self, path: str) -> int | None:
        """Its size; None when there is none."""
        size = self._requests.make("head", path, lambda: _size(self.objects.get(path)))
        return cast(int | None, size)

    def delete(self, path: str) -> None:
        """Remove one; one that is gone is fine."""
        self._requests.make("delete", path, lambda: self._set("delete", path, None))

    def copy(self, path: str, target: str) -> None:
        """Copy one: read when it begins, written when it ends; raises FileNotFoundError."""

        def land(data: bytes) -> None:
            self._set("copy", target, data)

        self._requests.make("copy", target, land, begin=lambda: self._there(path))

    def list(self, folder: str) -> dict[str, int]:
        """Sizes of the objects directly under a path by their names, sorted."""
        found: dict[str, int] = {}
        last = ""

        def page() -> list[tuple[str, int]]:
            return sorted(item for item in self._listed[folder].items() if item[0] > last)

        while True:
            entries = self._requests.make("list", f"{folder}/", page)[: self._page]
            found.update(entries)
            if len(entries) < self._page:
                return found
            last = entries[-1][0]

    def _there(self, path: str) -> bytes:
        data = self.objects.get(path)
        if data is None:
            raise FileNotFoundError(errno.ENOENT, "no such object", path)
        return data

    def _set(self, operation: str, path: str, data: bytes | None) -> None:
        if data is None:
            self.objects.pop(path, None)
        else:
            self.objects[path] = data
        if self._lag:
            scheduler = self._requests.scheduler
            shows = scheduler.now + self._random.uniform(0.0, self._lag)
            shows = self._shows[path] = max(shows, self._shows.get(path, 0.0))
            scheduler.at(shows, self._show, path, data)
        else:
            self._show(path, data)
        for watcher in self.watchers:
            watcher(operation, path, data)

    def _show(self, path: str, data: bytes | None) -> None:
        folder, _, name = path.rpartition("/")
        if data is None:
            self._listed[folder].pop(name, None)
        else:
            self._listed[folder][name] = len(data)


def _size(data: bytes | None) -> int | None:
    return None if data is None else len(data)


@dataclass(frozen=True)
class SimLocation(Location):
    """A place in an :class:`ObjectStore`."""

    store: ObjectStore
    path: str

    @classmethod
    def open(cls, uri: str, options: StorageOptions, retry_policy: RetryPolicy) -> Location:
        raise NotImplementedError

    @property
    def uri(self) -> str:
        return f"s3://sim/out/{self.path}".rstrip("/")

    @property
    def arrow(self) -> pyarrow.fs.FileSystem:
        return cast(pyarrow.fs.FileSystem, _Opener(self.store))

    def at(self, path: str) -> Self:
        return replace(self, path=path)

    def read_bytes(self) -> bytes:
        return self.store.get(self.path)

    def write_bytes(self, data: bytes) -> None:
        self.store.put(self.path, data)

    def entries(self) -> dict[str, int]:
        return self.store.list(self.path)

    def names(self) -> list[str]:
        return list(self.entries())

    def size(self) -> int | None:
        return self.store.head(self.path)

    def exists(self) -> bool:
        return self.store.head(self.path) is not None or bool(self.store.list(self.path))

    def delete(self) -> None:
        self.store.delete(self.path)

    def move_to(self, target: Self) -> None:
        self.store.copy(self.path, target.path)
        self.store.delete(self.path)

    def holds(self, uri: str) -> bool:
        raise NotImplementedError

    def listing(self, tell: TellUnlisted) -> Listing:
        folder = f"{self.path}/"  # runs make none in others
        found = (StoredObject(folder + name, size, None) for name, size in self.entries().items())
        return Listing("folder", folder, found)

    def would_list(self, file: Location) -> bool:
        raise NotImplementedError

    def fetch(
        self, path: str, etag: str | None, size: int | None, limit: int | None = None
    ) -> bytes:
        raise NotImplementedError

    def obstacle(self) -> str:
        raise NotImplementedError


@dataclass(frozen=True)
class _Opener:
    """Of Arrow's filesystems what reading takes; theirs would call from threads of their own."""

    store: ObjectStore

    def open_input_file(self, path: str) -> Any:
        return pa.BufferReader(self.store.get(path))
