"""URI → filesystem: reading, and atomic writes."""

import contextlib
import errno
import os
import posixpath
import re
import uuid
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import fsspec
from botocore.exceptions import BotoCoreError
from fsspec.implementations.http import HTTPFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from job.errors import ChangedError as ChangedError
from job.errors import ConfigError, StorageError
from job.storage import archives, web
from job.storage.archives import archive_of
from job.storage.packing import unpacked
from job.storage.refusals import REFUSALS as REFUSALS
from job.storage.refusals import STORAGE_ERRORS as STORAGE_ERRORS
from job.storage.refusals import explain as explain
from job.storage.refusals import kind_of
from job.storage.s3 import DEFAULT_RETRY_POLICY, S3, RetryPolicy
from job.storage.s3 import take_retries as take_retries
from job.wording import counted

if TYPE_CHECKING:
    import pyarrow.fs

StorageOptions = dict[str, Any]

# What is wrong with credentials before anybody was asked about them: options that do not fit.
_OPTIONS = {"ConfigNotFound", "ConfigParseError", "PartialCredentialsError", "ProfileNotFound"}

# What URIs may say of a filesystem, and no URI of an image does.
_SECRETS = {"password", "token"}

# Ends the name of a local file that is still being written; a writer that was killed leaves it.
PARTIAL = ".partial"


@dataclass(frozen=True)
class Location:
    """A place in some storage: a filesystem and a path on it. Travels to workers as it is.

    Attributes:
        fs: the filesystem.
        path: on it.
        archive: what a URI of a place within an archive ends with: ``::`` and where the archive is.
        root: what its URIs begin with, up to the slash behind the host, where the filesystem would
            leave the host out; passwords are no part of it.
        base: the path that ``root`` stands for.
    """

    fs: AbstractFileSystem
    path: str
    archive: str = ""
    root: str = ""
    base: str = ""

    @property
    def is_local(self) -> bool:
        return isinstance(self.fs, LocalFileSystem)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return posixpath.basename(self.path)

    @property
    def uri(self) -> str:
        """What a person or another tool opens: a plain path when local, ``s3://…`` otherwise."""
        if self.root:
            uri = self.root + self.path.removeprefix(self.base).lstrip("/")
        else:
            uri = self.path if self.is_local else str(self.fs.unstrip_protocol(self.path))
        uri += self.archive
        # A file name's bytes that are no UTF-8: text that Arrow and JSON can hold.
        return uri.encode("utf-8", "backslashreplace").decode()

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

    def holds(self, uri: str) -> bool:
        """Whether the filesystem is the one that a URI names."""
        own = self.uri
        if (scheme_of(uri), archive_of(uri)) != (scheme_of(own), self.archive):
            return False
        if self.root:
            return uri.startswith(self.root)
        return _meaning(uri)[1] == _meaning(own)[1]

    def exists(self) -> bool:
        return bool(self.fs.exists(self.path))

    def read_bytes(self) -> bytes:
        return self.fetch(self.path, None, None)

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
        if self.is_local:
            return _read_unchanged(as_named(path), etag)
        if isinstance(self.fs, S3):
            data, encoding = self.fs.fetch(path, etag, size)
        elif isinstance(self.fs, HTTPFileSystem):
            data, encoding = web.fetch(self.fs, path, etag, size, limit)
        elif self.archive:
            return archives.fetch(self.fs, path.removesuffix(self.archive), size)
        else:
            return _cat_unchanged(self.fs, path, etag, size)
        return data if limit is None else unpacked(data, encoding, limit)

    def write_bytes(self, data: bytes) -> None:
        """Write so that a reader sees all of it or nothing, whenever the writer is killed."""
        if not self.is_local:
            self.fs.pipe_file(self.path, data)
            return
        os.makedirs(posixpath.dirname(self.path), exist_ok=True)
        partial = f"{self.path}.{uuid.uuid4().hex}{PARTIAL}"
        try:
            with open(partial, "wb") as file:
                file.write(data)
            os.replace(partial, self.path)
        except BaseException:
            if os.path.exists(partial):
                os.unlink(partial)
            raise

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


def _read_unchanged(path: str, etag: str | None) -> bytes:
    with open(path, "rb") as file:
        before = stamp(os.fstat(file.fileno()))
        data = file.read()
        status = os.fstat(file.fileno())
    if etag is not None and not before == stamp(status) == etag:
        raise ChangedError(path)
    if len(data) < status.st_size:  # a mount that loses its server may end a file early
        told = f"{counted(len(data), 'byte')} came of {status.st_size:,}"
        raise OSError(errno.EIO, told, path)
    return data


def _cat_unchanged(fs: AbstractFileSystem, path: str, etag: str | None, size: int | None) -> bytes:
    data = bytes(fs.cat_file(path))
    if size is None or len(data) == size:
        return data
    # Some storage unpacks what is packed on the way: the object is the same, its bytes are more.
    info = fs.info(path)
    if (size_of(info), tag_of(info)) != (size, etag):
        raise ChangedError(path)
    if len(data) < size:
        raise OSError(errno.EIO, f"{len(data):,} bytes came of {size:,}", path)
    return data


def size_of(info: dict[str, Any]) -> int | None:
    """Bytes of an object as its filesystem describes it; None where that is not told."""
    size = info.get("size")
    return None if size is None else int(size)


def tag_of(info: dict[str, Any]) -> str | None:
    """What changes with an object, as its filesystem describes it; None where nothing does."""
    for key in ("ETag", "etag", "md5Hash", "content_md5"):
        if info.get(key):
            return str(info[key]).strip('"')
    modified = info.get("mtime") or info.get("LastModified") or info.get("last_modified")
    return None if modified is None else f"{modified}-{info.get('size')}"


def stamp(status: os.stat_result) -> str:
    """What changes with a local file: its stand-in for an ETag."""
    return f"{status.st_mtime}-{status.st_size}"


def locate(
    uri: str,
    options: StorageOptions | None = None,
    retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY,
) -> Location:
    """Open the filesystem of a URI: a local path, ``s3://``, ``gs://``, anything fsspec opens.

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
    arguments = dict(options or {})
    scheme = uri.split("://", 1)[0] if "://" in uri else "file"
    if scheme != "file":
        # A cached listing would hide what other workers have just written.
        arguments.setdefault("use_listings_cache", False)
    archive = root = base = ""
    try:
        if scheme in S3.protocol:
            fs, path = S3(retry_policy=retry_policy, **arguments), S3._strip_protocol(uri)
            fs.connect()  # options that do not fit come to light here, not at the first object
        elif scheme == "file":
            # fsspec.url_to_fs would take "::" in a path for a chain of filesystems.
            fs, path = LocalFileSystem(**arguments), LocalFileSystem._strip_protocol(uri)
        else:
            uri, archive = archives.complete(uri, arguments)
            fs, path = fsspec.url_to_fs(uri, **arguments)
            root, base = _root_of(fs, path, uri, archive)
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
    return Location(fs, path.rstrip("/") or "/", archive, root, base)


def scheme_of(uri: str) -> str:
    """What a URI begins with, ``file`` for a path."""
    scheme, mark, _ = uri.partition("://")
    return scheme if mark and "/" not in scheme else "file"


def _root_of(fs: AbstractFileSystem, path: str, uri: str, archive: str) -> tuple[str, str]:
    """:attr:`Location.root` and :attr:`Location.base` of a filesystem.

    Args:
        fs: the filesystem.
        path: on it.
        uri: both, as they were given.
        archive: the archive's part of it.

    Raises:
        StorageError: whatever its URIs began with, they would not name the same.
    """
    own = archives.without_copies(uri).removesuffix(archive)
    if "::" in own:
        raise StorageError(
            f"{uri}: the URIs of files there would not say where they are, for :: in them divides"
            " the links of a chain. Give a URI without it: a host by its name, %3A%3A in a web"
            " path, or an archive's as in zip://FOLDER::ARCHIVE"
        )
    if archives.is_within(uri) and not archive:
        raise StorageError(
            f"{uri}: the URIs of files there would not say what they are in. Name an archive behind"
            " the folder in it, as in zip://FOLDER::ARCHIVE"
        )
    scheme, mark, rest = own.partition("://")
    named, told = _meaning(own)
    public = {name: value for name, value in told.items() if name not in _SECRETS}
    host = rest.partition("/")[0]
    if public != told:
        host = re.sub(":.*@", "@", host)
    begin = f"{scheme}{mark}{host}/"
    # Azure's paths begin with the container, which its hosts do as well: container@account.
    for root, base in ("", ""), (begin, ""), (begin, path.partition("/")[0]):
        same = Location(fs, path, root=root, base=base).uri
        if _meaning(same) == (named, public):
            return root, base
    raise StorageError(
        f"{uri}: the URIs of files there would not say where they are. Give what tells the place"
        f" of {scheme}:// in --storage-options, or copy the files to a folder or a bucket"
    )


def _meaning(uri: str) -> tuple[str, dict[str, Any]]:
    """A URI's path on its filesystem, and what it says of that: a host, a user, a repository."""
    of_scheme = fsspec.get_filesystem_class(scheme_of(uri))
    path = str(of_scheme._strip_protocol(uri)).strip("/")
    try:
        return path, dict(of_scheme._get_kwargs_from_urls(uri))
    except (LookupError, ValueError):  # it says nothing
        return path, {}


def as_named(path: str) -> str:
    """The file that :attr:`Location.uri` means: with the bytes that it has spelt out."""
    if os.path.exists(path):
        return path
    return re.sub(r"\\udc([89a-f][0-9a-f])", lambda found: chr(0xDC00 + int(found[1], 16)), path)
