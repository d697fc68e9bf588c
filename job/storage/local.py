"""Local: folders of this machine, or mounted on it."""

import contextlib
import errno
import os
import posixpath
import re
import stat
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

from fsspec.implementations.local import LocalFileSystem

from job.errors import ChangedError
from job.limits import RetryPolicy
from job.storage import durable
from job.storage.fsspec_location import FsspecLocation
from job.storage.location import PARTIAL, Location, StorageOptions, in_the_way, printable
from job.storage.mounts import is_on_network
from job.storage.objects import Listing, StoredObject, TellUnlisted
from job.storage.patterns import Pattern, is_pattern
from job.storage.uris import absolute_path, scheme_of
from job.wording import counted

# A path at which nothing is: also a link to itself, and a name that is too long for any file.
_NOTHING = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
# Looked for in every folder, where there is no pattern.
_EVERYTHING = frozenset({0})


@dataclass(frozen=True)
class LocalLocation(FsspecLocation):
    """A path on this machine."""

    @classmethod
    def open(cls, uri: str, options: StorageOptions, retry_policy: RetryPolicy) -> "LocalLocation":
        # fsspec.url_to_fs would take "::" in a path for a chain of filesystems.
        return cls(LocalFileSystem(**options), absolute_path(uri).rstrip("/") or "/")

    @property
    def uri(self) -> str:
        return printable(self.path)

    @property
    def is_local(self) -> bool:
        return True

    @property
    def listing_lag(self) -> float:
        # A client of NFS looks again at a folder in which it has written, as a run does with its
        # claims every 5 s.
        return 5.0 if is_on_network(self.path) else 0.1

    @property
    def leaves_half_written(self) -> bool:
        return True

    def holds(self, uri: str) -> bool:
        return scheme_of(uri) == "file"

    def listing(self, tell: TellUnlisted) -> Listing:
        """See :meth:`Location.listing`; no more than a folder is in memory.

        Links to folders are followed, each folder once.
        """
        path = self.path
        if os.path.isdir(path):
            folder = posixpath.join(path, "")
            return Listing("folder", folder, _Walk(tell).files(folder))
        if os.path.lexists(path) or not is_pattern(path):
            return Listing("object", path, _file(path, tell))
        pattern = Pattern.of(path, os.path.isdir)
        walk = _Walk(tell, pattern.parts_within(), pattern.matcher())
        files = walk.files(pattern.root) if os.path.isdir(pattern.root) else iter(())
        return Listing("glob", pattern.root, files)

    def would_list(self, file: Location) -> bool:
        if not self.holds(file.uri):
            return False
        if is_pattern(self.path) and not os.path.lexists(self.path):
            matches = Pattern.of(self.path, os.path.isdir).matcher()
            return matches(file.path) or matches(os.path.realpath(file.path))
        folder = os.path.realpath(self.path).rstrip("/")
        return os.path.realpath(file.path).startswith(f"{folder}/")

    def fetch(
        self, path: str, etag: str | None, size: int | None, limit: int | None = None
    ) -> bytes:
        path = as_named(path)
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

    def exists(self) -> bool:
        return _status(self.path) is not None

    def size(self) -> int | None:
        status = _status(self.path)
        return status.st_size if status is not None and stat.S_ISREG(status.st_mode) else None

    def write_bytes(self, data: bytes) -> None:
        """See :meth:`Location.write_bytes`; no power cut undoes it once it has returned."""
        folder, name = posixpath.split(self.path)
        durable.make_folder(folder)
        # Who reads a folder of Parquet files leaves out those with a dot in front.
        partial = posixpath.join(folder, f".{name}.{uuid.uuid4().hex}{PARTIAL}")
        try:
            with open(partial, "wb") as file:
                file.write(data)
                file.flush()
                durable.sync(file.fileno())
            os.replace(partial, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(partial)
            raise
        durable.keep(folder)

    def move_to(self, target: Self) -> None:
        """See :meth:`Location.move_to`; no power cut undoes it once it has returned."""
        with open(self.path, "rb") as file:
            durable.sync(file.fileno())
        folder = posixpath.dirname(target.path)
        durable.make_folder(folder)
        try:
            os.replace(self.path, target.path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # A folder of the two is a link to another disk.
            target.write_bytes(self.read_bytes())
            self.delete()
            return
        durable.keep(folder)
        durable.sync_folder(posixpath.dirname(self.path))

    def names(self) -> list[str]:
        return sorted(entry.name for entry in self._files())

    def entries(self) -> dict[str, int]:
        found = {}
        for entry in self._files():
            with contextlib.suppress(FileNotFoundError):  # gone since
                found[entry.name] = entry.stat().st_size
        return dict(sorted(found.items()))

    def _files(self) -> "Iterator[os.DirEntry[str]]":
        try:
            entries = os.scandir(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return
        with entries:
            yield from filter(_is_file, entries)

    def delete(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def obstacle(self) -> str:
        return obstacle(self.path)


def obstacle(path: str) -> str:
    """:meth:`Location.obstacle` of a folder, or of the one in which it would be made."""
    there = os.path.abspath(path)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        if os.path.islink(there) and not os.path.exists(there):
            return (
                f"{there} is a link that leads nowhere. Remove it, or make the folder that it names"
            )
        return in_the_way(there)
    if not os.access(there, os.W_OK | os.X_OK):
        return f"permission denied ({there}). Give a folder that this user may write"
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        return f"{there} is on a file system that is only read"
    return ""


def _status(path: str) -> os.stat_result | None:
    """What is at a path, through links; None where nothing is or can be."""
    try:
        return os.stat(path)
    except OSError as error:
        if error.errno not in _NOTHING:
            raise
        return None


def _is_file(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry of a folder is a file, or a link to one."""
    if not entry.is_symlink():
        return entry.is_file()
    status = _status(entry.path)
    return status is not None and stat.S_ISREG(status.st_mode)


def as_named(path: str) -> str:
    """The file that :attr:`LocalLocation.uri` means: with the bytes that it has spelt out."""
    if "\\udc" not in path or os.path.exists(path):
        return path
    return re.sub(r"\\udc([89a-f][0-9a-f])", lambda found: chr(0xDC00 + int(found[1], 16)), path)


def stamp(status: os.stat_result) -> str:
    """What changes with a file: its stand-in for an ETag."""
    return f"{status.st_mtime}-{status.st_size}"


class _Walk:
    """A walk through a folder and what is nested in it, in the order of the whole paths.

    Links to folders are followed unless all that is looked for there is in the walk already: by the
    folder's own name, which goes before that of a link, or by an earlier link.

    Args:
        tell: is told of links that are not followed, and of files that are none.
        within: what is looked for in a folder: parts of a pattern, by their numbers.
        matches: whether a file is looked for.
    """

    def __init__(
        self,
        tell: TellUnlisted,
        within: Callable[[str], frozenset[int]] = lambda folder: _EVERYTHING,
        matches: Callable[[str], bool] = lambda path: True,
    ) -> None:
        self._tell = tell
        self._within = within
        self._matches = matches
        self._root = self._real_root = ""
        # Device and inode of each folder that a link has led to, and of those within; and what was
        # looked for there.
        self._reached: set[tuple[int, int, frozenset[int]]] = set()

    def files(self, root: str) -> Iterator[StoredObject]:
        # A folder's name ends with a slash here, also for the order: that of the whole paths.
        self._root, self._real_root = root, posixpath.join(os.path.realpath(root), "")
        waiting = [(root, False, False)]
        while waiting:
            path, is_link, by_link = waiting.pop()
            if not path.endswith("/"):
                yield from _file(path, self._tell)
                continue
            if by_link and self._is_reached(path):
                if is_link:
                    self._tell("again", path)
                continue
            with os.scandir(path) as entries:
                children = [child for entry in entries for child in self._child(entry, by_link)]
            waiting.extend(sorted(children, reverse=True))

    def _child(self, entry: "os.DirEntry[str]", by_link: bool) -> Iterator[tuple[str, bool, bool]]:
        """What to look at: its path, whether that is a link, and whether a link is on the way."""
        folder = f"{entry.path}/"
        if entry.is_dir(follow_symlinks=False):
            if self._within(folder):
                yield folder, False, by_link
        elif entry.is_symlink() and os.path.isdir(entry.path):
            if self._within(folder):
                yield folder, True, True
        elif self._matches(entry.path):
            yield entry.path, False, by_link

    def _is_reached(self, folder: str) -> bool:
        """Whether the walk comes, or has come, to this folder by another way."""
        looked_for = self._within(folder)
        real = posixpath.join(os.path.realpath(folder), "")
        if real.startswith(self._real_root):
            around = posixpath.join(os.path.realpath(posixpath.dirname(folder[:-1])), "")
            by_its_name = self._root + real.removeprefix(self._real_root)
            if around.startswith(real) or looked_for <= self._within(by_its_name):
                return True
        status = os.stat(folder)
        key = status.st_dev, status.st_ino, looked_for
        if key in self._reached:
            return True
        self._reached.add(key)
        return False


def _file(path: str, tell: TellUnlisted) -> Iterator[StoredObject]:
    """The file at a path; nothing for what is none: a link to nowhere, a pipe."""
    try:
        status = os.stat(path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            raise
        if os.path.islink(path):
            tell("dangling", path)
        return
    if stat.S_ISREG(status.st_mode):
        yield StoredObject(path, status.st_size, stamp(status))
    else:
        tell("special", path)
