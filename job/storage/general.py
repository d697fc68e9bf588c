"""General: whatever else fsspec opens, such as ``gs://``, ``abfs://``, ``hf://`` and ``sftp://``."""

import errno
import re
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec.spec import AbstractFileSystem

from job.errors import ChangedError, StorageError
from job.limits import RetryPolicy
from job.storage.location import Location, StorageOptions, printable
from job.storage.objects import size_of, tag_of
from job.storage.uris import scheme_of, without_copies

# What URIs may say of a filesystem, and no URI of an image does.
_SECRETS = {"password", "token"}


@dataclass(frozen=True)
class GeneralLocation(Location):
    """A place on a filesystem of fsspec.

    Attributes:
        root: what its URIs begin with, up to the slash behind the host, where the filesystem would
            leave the host out; passwords are no part of it.
        base: the path that ``root`` stands for.
    """

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

    def holds(self, uri: str) -> bool:
        own = self.uri
        if scheme_of(uri) != scheme_of(own):
            return False
        return uri.startswith(self.root) if self.root else _says(uri)[1] == _says(own)[1]

    def fetch(
        self, path: str, etag: str | None, size: int | None, limit: int | None = None
    ) -> bytes:
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


def opened(uri: str, options: StorageOptions) -> tuple[AbstractFileSystem, str]:
    """The filesystem of a URI, and the path on it."""
    # A cached listing would hide what other workers have just written.
    fs, path = fsspec.url_to_fs(uri, **{"use_listings_cache": False, **options})
    return fs, path.rstrip("/") or "/"


def uri_of(fs: AbstractFileSystem, path: str, root: str, base: str) -> str:
    """The URI of a path; see :class:`GeneralLocation`."""
    if root:
        return printable(root + path.removeprefix(base).lstrip("/"))
    return printable(str(fs.unstrip_protocol(path)))


def root_of(fs: AbstractFileSystem, path: str, uri: str, archive: str = "") -> tuple[str, str]:
    """:attr:`GeneralLocation.root` and :attr:`GeneralLocation.base` of a filesystem.

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
