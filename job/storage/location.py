"""Location: a place in some storage. Each kind of storage lists, fetches and writes by itself."""

import errno
import os
import posixpath
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self

from job.limits import RetryPolicy
from job.storage.objects import Listing, TellUnlisted

if TYPE_CHECKING:
    import pyarrow.fs

StorageOptions = dict[str, Any]

# Ends the name of a file that is still being written; a writer that was killed leaves it.
PARTIAL = ".partial"


class Location(ABC):
    """A place in some storage, whether or not anything is there. Travels to workers as it is.

    Its path is taken literally, whatever it looks like; only :meth:`listing` and
    :meth:`would_list` know patterns.

    Attributes:
        path: on its filesystem.
    """

    path: str

    @property
    def listing_lag(self) -> float:
        """Seconds after which everybody's listing has what was written, at most."""
        return 1.0

    @property
    def leaves_half_written(self) -> bool:
        """Whether a writer that is killed leaves a file whose name ends in :data:`PARTIAL`."""
        return False

    @classmethod
    @abstractmethod
    def open(cls, uri: str, options: StorageOptions, retry_policy: RetryPolicy) -> "Location":
        """The place of a URI; :func:`job.storage.opening.locate` words what is raised."""

    @property
    @abstractmethod
    def uri(self) -> str:
        """What a person or another tool opens: a plain path when local, ``s3://…`` otherwise."""

    @property
    def is_local(self) -> bool:
        """Whether the path means what each node has there."""
        return False

    @property
    def name(self) -> str:
        """The last part of the path."""
        return posixpath.basename(self.path)

    @property
    @abstractmethod
    def arrow(self) -> "pyarrow.fs.FileSystem":
        """The same filesystem for Arrow, Parquet and Ray Data."""

    def __truediv__(self, name: str) -> Self:
        return self.at(posixpath.join(self.path, name))

    @abstractmethod
    def at(self, path: str) -> Self:
        """Another path on the same filesystem."""

    @abstractmethod
    def holds(self, uri: str) -> bool:
        """Whether the filesystem is the one that a URI names."""

    @abstractmethod
    def listing(self, tell: TellUnlisted) -> Listing:
        """What the place names: a folder or prefix, with all that is nested in it, or a glob, or a
        single object.

        What is there by that very name comes before what it would match as a glob.

        Args:
            tell: is told of files that lie there and cannot be listed.
        """

    @abstractmethod
    def would_list(self, file: "Location") -> bool:
        """Whether a listing of this place would find a file, were it there."""

    @abstractmethod
    def exists(self) -> bool:
        """Whether anything is there."""

    def read_bytes(self) -> bytes:
        return self.fetch(self.path, None, None)

    @abstractmethod
    def fetch(
        self, path: str, etag: str | None, size: int | None, limit: int | None = None
    ) -> bytes:
        """An object of this storage, whole, if it is still the one that was listed.

        Args:
            path: the object, as :attr:`uri` or :attr:`path` name it.
            etag: what a listing had; None takes whatever is there.
            size: likewise, for storage whose tags cannot be compared.
            limit: the most bytes to take, and to unpack what is stored packed
                (``Content-Encoding``) to; None leaves it packed.

        Raises:
            ChangedError: it is another one by now.
            ImageError: it cannot be unpacked, or is too large.
        """

    @abstractmethod
    def write_bytes(self, data: bytes) -> None:
        """Write so that a reader sees all of it or nothing, whenever the writer is killed."""

    @abstractmethod
    def obstacle(self) -> str:
        """What keeps files from being written below this place, in words; makes nothing.

        Returns:
            Nothing when they could be written, as far as can be seen.
        """

    @abstractmethod
    def entries(self) -> dict[str, int]:
        """Names of the files directly under this place, sorted, and their sizes in bytes.

        Nothing when it does not exist. On object storage it may lag a little behind what others
        write; :meth:`size` never does.
        """

    def names(self) -> list[str]:
        """Names of the files directly under this place, sorted; none when it does not exist."""
        return list(self.entries())

    @abstractmethod
    def size(self) -> int | None:
        """Bytes of the file at exactly this place; None when there is none."""

    @abstractmethod
    def move_to(self, target: Self) -> None:
        """Give a file another place, over whatever file is there.

        A reader sees all of it at the old place, at the new one, or at both, whenever the mover is
        killed.

        Args:
            target: on the same filesystem; folders on the way are made.

        Raises:
            FileNotFoundError: there is no file here, or no longer.
        """

    @abstractmethod
    def delete(self) -> None:
        """Remove one file; one that is already gone is fine."""


def not_there(path: str) -> FileNotFoundError:
    """The error that says that no file is at a path."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def in_the_way(file: str) -> str:
    """Why nothing can be written below a file."""
    return f"a file is in the way ({file}). Give a folder for the results"


def printable(uri: str) -> str:
    """Text that Arrow and JSON can hold: a file name's bytes that are no UTF-8, spelt out."""
    return uri.encode("utf-8", "backslashreplace").decode()
