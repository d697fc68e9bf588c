"""Fsspec location: Azure, Google, SFTP, HDFS, the Hub, and whatever else fsspec opens.

What holds for one of these clouds alone (``abfs://``, ``gs://``, ``sftp://``, ``hdfs://``,
``hf://``) goes here, too, until it is enough for a module of its own, as S3, the web, archives and
local folders have.
"""

import contextlib
import errno
import posixpath
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import fsspec
from fsspec.spec import AbstractFileSystem

from job.errors import ChangedError, StorageError
from job.limits import RetryPolicy
from job.storage.location import PARTIAL, Location, StorageOptions, in_the_way, not_there, printable
from job.storage.objects import Listing, StoredObject, TellUnlisted, described, size_of, tag_of
from job.storage.patterns import Pattern, is_pattern
from job.storage.uris import scheme_of, without_copies

if TYPE_CHECKING:
    import pyarrow.fs

# What URIs may say of a filesystem, and no URI of an image does.
_SECRETS = {"password", "token"}
_RENAMING = {"arrow_hdfs", "ftp", "hdfs", "sftp", "smb", "ssh", "webHDFS", "webhdfs"}


@dataclass(frozen=True)
class FsspecLocation(Location):
    """A place on a filesystem of fsspec: how most of them list, fetch and write.

    Attributes:
        fs: the filesystem; nothing outside :mod:`job.storage` looks at it.
        path: on it.
        root: what its URIs begin with, up to the slash behind the host, where the filesystem would
            leave the host out; passwords are no part of it.
        base: the path that ``root`` stands for.
    """

    fs: AbstractFileSystem
    path: str
    root: str = ""
    base: str = ""

    @classmethod
    def open(cls, uri: str, options: StorageOptions, retry_policy: RetryPolicy) -> "Location":
        fs, path = opened(uri, options)
        root, base = root_of(fs, path, uri)
        return cls(fs, path, root, base)

    @property
    def uri(self) -> str:
        return uri_of(self.fs, self.path, self.root, self.base)

    @property
    def leaves_half_written(self) -> bool:
        return _renames(self.fs)

    @cached_property
    def arrow(self) -> "pyarrow.fs.FileSystem":
        import pyarrow.fs

        from job.storage.arrow import LiteralHandler

        # A copy, for the place would else hold itself.
        return pyarrow.fs.PyFileSystem(LiteralHandler(replace(self)))

    def at(self, path: str) -> Self:
        return replace(self, path=path)

    def holds(self, uri: str) -> bool:
        own = self.uri
        if scheme_of(uri) != scheme_of(own):
            return False
        return uri.startswith(self.root) if self.root else _says(uri)[1] == _says(own)[1]

    def listing(self, tell: TellUnlisted) -> Listing:
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

    def would_list(self, file: Location) -> bool:
        if not self.holds(file.uri):
            return False
        if is_pattern(self.path) and not self.exists():
            return Pattern.of(self.path, self.fs.isdir).matcher()(file.path)
        return file.path.startswith(f"{self.path.rstrip('/')}/")

    def exists(self) -> bool:
        return self._info() is not None

    def size(self) -> int | None:
        info = self._info()
        return size_of(info) if info is not None and info["type"] == "file" else None

    def _info(self) -> dict[str, Any] | None:
        """What is there, as the filesystem describes it; None where nothing is.

        ``exists`` and ``isfile`` of most filesystems also say no when the storage does not answer.
        """
        try:
            return dict(self.fs.info(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def fetch(
        self, path: str, etag: str | None, size: int | None, limit: int | None = None
    ) -> bytes:
        path = self._path_of(path)
        data = bytes(self.fs.cat_file(path))
        if size is None or len(data) == size:
            return data
        # Some storage unpacks what is packed on the way: the object is the same, its bytes more.
        info = self.fs.info(path)
        if (size_of(info), tag_of(info)) != (size, etag):
            raise ChangedError(path)
        if len(data) < size:
            raise OSError(errno.EIO, f"{len(data):,} bytes came of {size:,}", path)
        return data

    def write_bytes(self, data: bytes) -> None:
        if not _renames(self.fs) or self.size() is not None:
            self.fs.pipe_file(self.path, data)
            return
        # Files there grow as they are written: a new one has its name when it is whole.
        folder, name = posixpath.split(self.path)
        partial = self.at(posixpath.join(folder, f".{name}.{uuid.uuid4().hex}{PARTIAL}"))
        self.fs.makedirs(folder, exist_ok=True)
        try:
            self.fs.pipe_file(partial.path, data)
            self.fs.mv(partial.path, self.path)
        except BaseException:
            with contextlib.suppress(Exception):
                partial.delete()
            raise

    def _path_of(self, uri: str) -> str:
        """The path of a URI that :attr:`uri` has made, or a path as it is.

        In a URI, and not in a path, some filesystems take ``?`` and ``#`` for the end of the path.
        """
        if self.root and uri.startswith(self.root):
            around = self.base or ("/" if self.path.startswith("/") else "")
            return posixpath.join(around, uri.removeprefix(self.root))
        return uri.removeprefix(str(self.fs.unstrip_protocol("")))

    def move_to(self, target: Self) -> None:
        size = self.size()
        if size is None:
            raise not_there(self.path)
        if target.path == self.path:
            return
        if _renames(self.fs):
            self.fs.makedirs(posixpath.dirname(target.path), exist_ok=True)
            self.fs.mv(self.path, target.path)
            return
        # fs.mv would take the paths for patterns.
        self.fs.cp_file(self.path, target.path)
        copied = target.size()
        if copied != size:  # Azure may copy on after it has answered
            raise OSError(errno.EIO, f"{copied} bytes of {size:,} are copied", target.path)
        self.delete()

    def obstacle(self) -> str:
        return in_the_way(self.path) if self.size() is not None else ""

    def entries(self) -> dict[str, int]:
        """See :meth:`Location.entries`.

        Raises:
            StorageError: it does not tell the size of a file, as web servers may not.
        """
        sizes = {}
        for found in self._children():
            if found.size is None:
                raise StorageError(f"{self.at(found.path).uri}: its size is not told there")
            sizes[posixpath.basename(found.path)] = found.size
        return sizes

    def names(self) -> list[str]:
        return [posixpath.basename(found.path) for found in self._children()]

    def _children(self) -> Iterator[StoredObject]:
        try:
            found = self.fs.ls(self.path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return
        own = self.path.strip("/")  # of which a file is the only entry
        yield from described((e["name"], e) for e in found if e["name"].strip("/") != own)

    def delete(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self.path)


def _renames(fs: AbstractFileSystem) -> bool:
    """Whether a filesystem has folders and renames files.

    Object storages copy, and show an object when it is whole.
    """
    kinds = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    return bool(kinds & _RENAMING)


def opened(uri: str, options: StorageOptions) -> tuple[AbstractFileSystem, str]:
    """The filesystem of a URI, and the path on it."""
    # A cached listing would hide what other workers have just written.
    fs, path = fsspec.url_to_fs(uri, **{"use_listings_cache": False, **options})
    return fs, path.rstrip("/") or "/"


def uri_of(fs: AbstractFileSystem, path: str, root: str, base: str) -> str:
    """The URI of a path; see :class:`FsspecLocation`."""
    if root:
        return printable(root + path.removeprefix(base).lstrip("/"))
    return printable(str(fs.unstrip_protocol(path)))


def root_of(fs: AbstractFileSystem, path: str, uri: str, archive: str = "") -> tuple[str, str]:
    """:attr:`FsspecLocation.root` and :attr:`FsspecLocation.base` of a filesystem.

    Args:
        fs: the filesystem.
        path: on it.
        uri: both, as they were given.
        archive: the end of it that names an archive.

    Raises:
        StorageError: whatever its URIs began with, they would not name the same.
    """
    own = without_copies(uri).removesuffix(archive)
    if "::" in own:
        raise StorageError(
            f"{uri}: the URIs of files there would not say where they are, for :: in them divides"
            " the links of a chain. Give a URI without it: a host by its name, %3A%3A in a web"
            " path, or an archive's as in zip://FOLDER::ARCHIVE"
        )
    if any(own.count(letter) != path.count(letter) for letter in "?#"):
        raise StorageError(
            f"{uri}: the URIs of files there would not say where they are, for {scheme_of(own)}://"
            " does not take ? or # for a part of a name. Give a folder without them"
        )
    scheme, mark, rest = own.partition("://")
    named, told = _says(own)
    public = {name: value for name, value in told.items() if name not in _SECRETS}
    host = rest.partition("/")[0]
    if public != told:
        host = re.sub(":.*@", "@", host)
    begin = f"{scheme}{mark}{host}/"
    # Azure's paths begin with the container, which its hosts do as well: container@account.
    for root, base in ("", ""), (begin, ""), (begin, path.partition("/")[0]):
        if _says(uri_of(fs, path, root, base)) == (named, public):
            return root, base
    raise StorageError(
        f"{uri}: the URIs of files there would not say where they are. Give what tells the place"
        f" of {scheme}:// in --storage-options, or copy the files to a folder or a bucket"
    )


def _says(uri: str) -> tuple[str, dict[str, Any]]:
    """A URI's path on its filesystem, and what it says of that: a host, a user, a repository."""
    of_scheme = fsspec.get_filesystem_class(scheme_of(uri))
    path = str(of_scheme._strip_protocol(uri)).strip("/")
    try:
        return path, dict(of_scheme._get_kwargs_from_urls(uri))
    except (LookupError, ValueError):  # it says nothing
        return path, {}
