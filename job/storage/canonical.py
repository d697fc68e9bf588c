"""Canonical: the one URI of a file, however it is written and whatever links lead to it."""

import os

from job.storage.local import as_named
from job.storage.location import printable
from job.storage.uris import (
    absolute_path,
    archive_of,
    is_within_archive,
    scheme_of,
    with_plain_host,
    without_copies,
    without_links,
)


class Canonical:
    """Gives files their one URI: that of the place where they lie.

    - Local: the whole path, in which no folder is a link. The file itself may be one: its own name
      is what stores of nameless contents have (git-annex, DVC, the Hub's cache).
    - Web: the host in small letters, no port that goes without saying, and the path as it is asked
      for. A query stays as it is.
    - Archives: the archive by its one URI.
    - Else scheme and host. Keys of an object storage stay as they are: ``a//b`` is not ``a/b``.

    What folders are is looked up once: one of it serves one listing.
    """

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def __call__(self, uri: str) -> str:
        uri = without_copies(uri)
        scheme = scheme_of(uri)
        if scheme in ("file", "local"):
            return self._local(uri if uri.startswith("/") else absolute_path(uri))
        if is_within_archive(uri):
            return self._archived(uri)
        if scheme in ("http", "https"):
            return _web(uri)
        return with_plain_host(uri)

    def _local(self, path: str) -> str:
        folder, _, name = path.rpartition("/")
        real = self._folder(folder)
        return path if real == folder else f"{real}/{name}"

    def _folder(self, path: str) -> str:
        """A folder without links, nothing for the root; one that is gone is taken by its name."""
        known = self._folders.get(path)
        if known is None:
            known = self._folders[path] = self._looked_up(path)
        return known

    def _looked_up(self, path: str) -> str:
        around, _, name = path.rpartition("/")
        if name in ("", ".", ".."):
            return _real(path or "/")
        real = f"{self._folder(around)}/{name}"
        return _real(real) if os.path.islink(as_named(real)) else real

    def _archived(self, uri: str) -> str:
        archive = archive_of(uri)
        return f"{uri.removesuffix(archive)}::{self(archive[2:])}" if archive else uri


def _real(path: str) -> str:
    return printable(without_links(as_named(path))).rstrip("/")


def _web(uri: str) -> str:
    from yarl import URL  # takes a while to load

    url, mark, query = with_plain_host(uri.partition("#")[0]).partition("?")
    scheme, _, rest = url.partition("://")
    try:
        path = URL(url).raw_path
    except ValueError:  # it names nothing
        return uri
    return f"{scheme}://{rest.partition('/')[0]}{path}{mark}{query}"
