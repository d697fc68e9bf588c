"""Location: a place in some storage. Each kind of storage lists, fetches and writes by itself."""

import contextlib
import posixpath
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError
from fsspec.spec import AbstractFileSystem

from job.errors import ConfigError, StorageError
from job.limits import DEFAULT_RETRY_POLICY, RetryPolicy
from job.storage.objects import Listing, TellUnlisted, described
from job.storage.patterns import Pattern, is_pattern
from job.storage.refusals import explain, kind_of
from job.storage.uris import is_within_archive, scheme_of

if TYPE_CHECKING:
    import pyarrow.fs

StorageOptions = dict[str, Any]

# What is wrong with credentials before anybody was asked about them: options that do not fit.
_OPTIONS = {"ConfigNotFound", "ConfigParseError", "PartialCredentialsError", "ProfileNotFound"}


@dataclass(frozen=True)
class Location(ABC):
    """A place in some storage, whether or not anything is there. Travels to workers as it is.

    Attributes:
        fs: the filesystem; nothing outside :mod:`job.storage` looks at it.
        path: on it.
    """

    fs: AbstractFileSystem
    path: str

    @classmethod
    @abstractmethod
    def open(cls, uri: str, options: StorageOptions, retry_policy: RetryPolicy) -> "Location":
        """The place of a URI; see :func:`locate`, which makes sentences of what is raised."""

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

    @cached_property
    def arrow(self) -> "pyarrow.fs.FileSystem":
        """The same filesystem for Arrow, Parquet and Ray Data."""
        import pyarrow.fs

        return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(self.fs))

    def __truediv__(self, name: str) -> "Location":
        return self.at(posixpath.join(self.path, name))

    def at(self, path: str) -> "Location":
        """Another path on the same filesystem."""
        return replace(self, path=path)

    @abstractmethod
    def holds(self, uri: str) -> bool:
        """Whether the filesystem is the one that a URI names."""

    def listing(self, tell: TellUnlisted) -> Listing:
        """What the place names: a folder or prefix, with all that is nested in it, or a glob, or a
        single object.

        What is there by that very name comes before what it would match as a glob.

        Args:
            tell: is told of files that lie there and cannot be listed.
        """
        if self.fs.isdir(self.path):
            found = self.fs.find(self.path, detail=True)
            return Listing("folder", f"{self.path.rstrip('/')}/", described(found.items()))
        if self.fs.isfile(self.path):
            return self._single()
        if is_pattern(self.path):
            return self._matched()
        parent, _, prefix = self.path.rpartition("/")
        more = {"prefix": prefix} if parent else {}
        found = self.fs.find(parent or self.path, detail=True, **more)
        named = (
            (path, info) for path, info in found.items() if not parent or path.startswith(self.path)
        )
        return Listing("folder", parent, described(named))

    def _single(self) -> Listing:
        return Listing("object", self.path, described([(self.path, self.fs.info(self.path))]))

    def _matched(self) -> Listing:
        pattern = Pattern.of(self.path, self.fs.isdir)
        found = self.fs.glob(pattern.path, detail=True)
        return Listing("glob", pattern.root, described(found.items()))

    def would_list(self, file: "Location") -> bool:
        """Whether a listing of this place would find a file, were it there."""
        if not self.holds(file.uri):
            return False
        if is_pattern(self.path) and not self.exists():
            return Pattern.of(self.path, self.fs.isdir).matcher()(file.path)
        return file.path.startswith(f"{self.path.rstrip('/')}/")

    def exists(self) -> bool:
        return bool(self.fs.exists(self.path))

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

    def write_bytes(self, data: bytes) -> None:
        """Write so that a reader sees all of it or nothing, whenever the writer is killed."""
        self.fs.pipe_file(self.path, data)

    def obstacle(self) -> str:
        """What keeps files from being written below this place, in words; makes nothing.

        Returns:
            Nothing when they could be written, as far as can be seen.
        """
        return in_the_way(self.path) if self.exists() and self.fs.isfile(self.path) else ""

    def names(self) -> list[str]:
        """Names of the files directly under this place, sorted; none when it does not exist."""
        try:
            entries = self.fs.ls(self.path, detail=True)
        except FileNotFoundError:
            return []
        return sorted(
            posixpath.basename(entry["name"]) for entry in entries if entry["type"] == "file"
        )

    def delete(self) -> None:
        """Remove one file; one that is already gone is fine."""
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self.path)


def locate(
    uri: str,
    options: StorageOptions | None = None,
    retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY,
) -> Location:
    """Open the storage of a URI: a local path, ``s3://``, ``gs://``, anything fsspec opens.

    Args:
        uri: a path or URI.
        options: what the filesystem takes.
        retry_policy: with S3; other filesystems have options of their own for it.

    Raises:
        ConfigError: an unknown scheme, a scheme whose package is missing, or options that the
            filesystem does not take.
        StorageError: it cannot be opened, or its URIs would not tell its files from another's.
    """
    if not uri:
        raise ConfigError("an empty path; give a folder or a URI (is a shell variable unset?)")
    scheme = scheme_of(uri)
    try:
        return _kind(uri).open(uri, dict(options or {}), retry_policy)
    except ImportError as error:
        raise ConfigError(
            f"{uri}: reading {scheme}:// needs a package that is not installed ({error})"
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"{uri}: {error}. Use a local path, s3://, gs:// or another scheme that fsspec knows"
        ) from error
    except (TypeError, AttributeError, BotoCoreError) as error:
        if kind_of(error) in ("credentials", "network") and type(error).__name__ not in _OPTIONS:
            raise StorageError(f"{uri} cannot be opened: {explain(error)}") from error
        raise ConfigError(
            f"--storage-options, or the credentials, do not fit {scheme}://: {explain(error)}"
        ) from error
    except Exception as error:  # filesystems of other clouds have errors of their own
        if not isinstance(error, OSError) and kind_of(error) == "unknown":
            raise
        raise StorageError(f"{uri} cannot be opened: {explain(error)}") from error


def _kind(uri: str) -> type[Location]:
    """Which kind of storage a URI is of. Only that one is loaded: that of S3 takes a while."""
    scheme = scheme_of(uri)
    if scheme in ("file", "local"):
        from job.storage.local import LocalLocation

        return LocalLocation
    if scheme in ("s3", "s3a"):
        from job.storage.s3 import S3Location

        return S3Location
    if scheme in ("http", "https"):
        from job.storage.web import WebLocation

        return WebLocation
    if is_within_archive(uri):
        from job.storage.archives import ArchiveLocation

        return ArchiveLocation
    from job.storage.general import GeneralLocation

    return GeneralLocation


def in_the_way(file: str) -> str:
    """Why nothing can be written below a file."""
    return f"a file is in the way ({file}). Give a folder for the results"


def printable(uri: str) -> str:
    """Text that Arrow and JSON can hold: a file name's bytes that are no UTF-8, spelt out."""
    return uri.encode("utf-8", "backslashreplace").decode()
