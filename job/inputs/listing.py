"""Listing: which objects an INPUT names, sorted, without holding them all in memory."""

import errno
import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from fsspec.spec import AbstractFileSystem
from fsspec.utils import glob_translate

from job.errors import ConfigError, StorageError
from job.inputs.left_out import LeftOut, why_left_out
from job.storage.location import (
    STORAGE_ERRORS,
    Location,
    StorageOptions,
    explain,
    locate,
    size_of,
    stamp,
    tag_of,
)
from job.storage.notices import waiting_for
from job.storage.refusals import kind_of
from job.storage.s3 import DEFAULT_RETRY_POLICY, S3, RetryPolicy
from job.storage.web import plain


@dataclass(frozen=True)
class StoredObject:
    """One listed object.

    Attributes:
        path: on its filesystem.
        size: in bytes; None where the storage does not tell.
        etag: a tag that changes with it.
        is_named: whether INPUT asks for it by its name: by itself, or with a glob.
    """

    path: str
    size: int | None
    etag: str | None
    is_named: bool = field(default=False, compare=False)


def list_objects(
    uri: str,
    options: StorageOptions | None = None,
    retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY,
    left_out: LeftOut | None = None,
) -> Iterator[StoredObject]:
    """List a folder or prefix (recursively), a glob, or a single object, sorted by path.

    What is there by that very name comes before what it would match as a glob. On S3 no more than a
    page of a listing is in memory, locally no more than a folder. Links to folders are followed,
    each folder once.

    Args:
        uri: what to list.
        options: what the filesystem takes.
        retry_policy: how long to try.
        left_out: counts what lies there and is not listed: files of operating systems, links that
            lead nowhere.

    Raises:
        StorageError: nothing is there, or it may not be listed.
    """
    place = locate(uri, options, retry_policy)
    left_out = LeftOut() if left_out is None else left_out
    nothing = True
    waiting = waiting_for(f"INPUT {uri}")
    try:
        with waiting:
            for found in _objects(place, left_out):
                waiting.over()
                nothing = False
                yield found
    except Exception as error:  # filesystems of other clouds have errors of their own
        if not isinstance(error, STORAGE_ERRORS) and kind_of(error) == "unknown":
            raise
        raise StorageError(f"INPUT {uri} cannot be listed: {explain(error)}") from error
    if nothing and not left_out.total:
        raise StorageError(
            f"INPUT {uri}: nothing is there. Check the spelling; a folder, a prefix, a glob such as"
            " photos/**/*.jpg or a single image is expected"
        )


def _objects(place: Location, left_out: LeftOut) -> Iterator[StoredObject]:
    if place.is_local:
        return _local_objects(place.path, left_out)
    if isinstance(place.fs, S3) and place.fs.split_path(place.path)[0]:
        return _s3_objects(place.fs, place.path, left_out)
    return _other_objects(place, left_out)


def _sifted(
    objects: Iterable[StoredObject], root: str, left_out: LeftOut
) -> Iterator[StoredObject]:
    """Without what operating systems have left there."""
    for found in objects:
        path = plain(found.path).removeprefix(plain(root))
        # A console's stand-in for an empty folder, or a web server's link to sort one.
        if not path or path.endswith("/"):
            continue
        reason = why_left_out(path)
        if reason is None:
            yield found
        else:
            left_out.add(reason, path)


def _split_pattern(path: str, is_folder: Callable[[str], bool]) -> tuple[str, str]:
    """The folder that all that a glob matches is in, with a slash, and the pattern within it.

    Folders on the way are taken by their very names where such are there.
    """
    start = min(path.index(mark) for mark in "*?[" if mark in path)
    place = path.rfind("/", 0, start) + 1
    root, rest = path[:place], path[place:]
    while "/" in rest:
        name, _, further = rest.partition("/")
        if is_pattern(name) and not is_folder(root + name):
            break
        root, rest = f"{root}{name}/", further
    return root, rest


def _escaped(path: str) -> str:
    """A pattern that matches this path and no other."""
    return re.sub(r"[*?\[]", r"[\g<0>]", path)


def _local_objects(path: str, left_out: LeftOut) -> Iterator[StoredObject]:
    if os.path.isdir(path):
        folder = posixpath.join(path, "")
        return _sifted(_Walk(left_out).files(folder), folder, left_out)
    if os.path.lexists(path) or not is_pattern(path):
        return _named(_local_file(path, left_out))
    return _local_glob(path, left_out)


def _named(objects: Iterable[StoredObject]) -> Iterator[StoredObject]:
    return (replace(found, is_named=True) for found in objects)


def _local_glob(path: str, left_out: LeftOut) -> Iterator[StoredObject]:
    root, rest = _split_pattern(path, os.path.isdir)
    if not os.path.isdir(root):
        return iter(())
    parts = [(part, re.compile(glob_translate(part)).match) for part in rest.split("/")]

    def may_hold(folder: str) -> bool:
        names = folder.removeprefix(root).rstrip("/").split("/")
        for name, (part, match) in zip(names, parts, strict=False):
            if part == "**":
                return True
            if not match(name):
                return False
        return len(names) < len(parts)

    matches = re.compile(glob_translate(_escaped(root) + rest)).match
    walk = _Walk(left_out, may_hold, lambda path: matches(path) is not None)
    return _sifted(_named(walk.files(root)), root, left_out)


class _Walk:
    """A walk through a folder and what is nested in it, in the order of the whole paths.

    Links to folders are followed unless the folder is in the walk already: by its own name, which
    goes before that of a link, or by an earlier link.

    Args:
        left_out: counts the links and files that are none.
        may_hold: whether a folder may hold what is looked for.
        matches: whether a file is looked for.
    """

    def __init__(
        self,
        left_out: LeftOut,
        may_hold: Callable[[str], bool] = lambda folder: True,
        matches: Callable[[str], bool] = lambda path: True,
    ) -> None:
        self._left_out = left_out
        self._may_hold = may_hold
        self._matches = matches
        self._root = ""
        # Device and inode of each folder that a link has led to, and of those within.
        self._reached: set[tuple[int, int]] = set()

    def files(self, root: str) -> Iterator[StoredObject]:
        # A folder's name ends with a slash here, also for the order: that of the whole paths.
        self._root = os.path.realpath(root)
        waiting = [(root, False, False)]
        while waiting:
            path, is_link, by_link = waiting.pop()
            if not path.endswith("/"):
                yield from _local_file(path, self._left_out)
                continue
            if by_link and self._is_reached(path):
                if is_link:
                    self._left_out.add("again", path)
                continue
            with os.scandir(path) as entries:
                children = [child for entry in entries for child in self._child(entry, by_link)]
            waiting.extend(sorted(children, reverse=True))

    def _child(self, entry: "os.DirEntry[str]", by_link: bool) -> Iterator[tuple[str, bool, bool]]:
        """What to look at: its path, whether that is a link, and whether a link is on the way."""
        folder = f"{entry.path}/"
        if entry.is_dir(follow_symlinks=False):
            if self._may_hold(folder):
                yield folder, False, by_link
        elif entry.is_symlink() and os.path.isdir(entry.path):
            if self._may_hold(folder):
                yield folder, True, True
        elif self._matches(entry.path):
            yield entry.path, False, by_link

    def _is_reached(self, folder: str) -> bool:
        """Whether the walk comes, or has come, to this folder by another way."""
        if f"{os.path.realpath(folder)}/".startswith(f"{self._root.rstrip('/')}/"):
            return True
        status = os.stat(folder)
        key = status.st_dev, status.st_ino
        if key in self._reached:
            return True
        self._reached.add(key)
        return False


def _local_file(path: str, left_out: LeftOut) -> Iterator[StoredObject]:
    """The file at a path; nothing for what is none: a link to nowhere, a pipe."""
    try:
        status = os.stat(path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            raise
        if os.path.islink(path):
            left_out.add("dangling", path)
        return
    if stat.S_ISREG(status.st_mode):
        yield StoredObject(path, status.st_size, stamp(status))
    else:
        left_out.add("special", path)


def _s3_objects(fs: S3, path: str, left_out: LeftOut) -> Iterator[StoredObject]:
    bucket, key, _ = fs.split_path(path)
    folder = f"{key}/" if key else ""
    found = _under_prefix(fs, bucket, folder)
    first = next(found, None)
    if first is not None:
        yield from _sifted(chain([first], found), f"{bucket}/{folder}", left_out)
    elif key and fs.isfile(path):
        yield from _named(_as_described({path: fs.info(path)}))
    elif key:
        matched = _globbed(fs, path, left_out) if is_pattern(path) else iter(())
        first = next(matched, None)
        if first is not None:
            yield from chain([first], matched)
            return
        root = path.rpartition("/")[0]
        yield from _sifted(_under_prefix(fs, bucket, key), root, left_out)


def _globbed(fs: AbstractFileSystem, path: str, left_out: LeftOut) -> Iterator[StoredObject]:
    root, rest = _split_pattern(path, fs.isdir)
    found = fs.glob(_escaped(root) + rest, detail=True)
    return _sifted(_named(_as_described(found)), root, left_out)


def _under_prefix(fs: S3, bucket: str, prefix: str) -> Iterator[StoredObject]:
    for found in fs.listing(bucket, prefix):
        yield StoredObject(f"{bucket}/{found['Key']}", found["Size"], tag_of(found))


def _other_objects(place: Location, left_out: LeftOut) -> Iterator[StoredObject]:
    fs, path = place.fs, place.path
    if fs.isdir(path):
        entries = _as_described(fs.find(path, detail=True))
        return _sifted(entries, f"{path.rstrip('/')}/", left_out)
    if fs.isfile(path):
        return _named(_as_described({path: fs.info(path)}))
    if is_pattern(path):
        return _globbed(fs, path, left_out)
    parent, _, prefix = path.rpartition("/")
    found = fs.find(parent or path, detail=True, **({"prefix": prefix} if parent else {}))
    named = {name: info for name, info in found.items() if not parent or name.startswith(path)}
    return _sifted(_as_described(named), parent, left_out)


def _as_described(entries: dict[str, dict[str, Any]]) -> Iterator[StoredObject]:
    for path in sorted(entries):
        info = entries[path]
        if info.get("type") == "file":
            yield StoredObject(path, size_of(info), tag_of(info))


def is_pattern(path: str) -> bool:
    """Whether a path could be meant as a glob."""
    return any(mark in path for mark in "*?[")


def refuse_overlap(source: Location, output: Location) -> None:
    """Refuse an OUTPUT inside INPUT, where a later run would list its own results.

    Raises:
        ConfigError: naming both.
    """
    if _is_inside(output, source):
        raise ConfigError(
            f"OUTPUT {output.uri} is inside INPUT {source.uri}: the next run would find results"
            " among its images. Put OUTPUT beside INPUT"
        )


def _is_inside(output: Location, source: Location) -> bool:
    if is_pattern(source.path) and not source.exists():
        root, rest = _split_pattern(source.path, source.fs.isdir)
        matches = re.compile(glob_translate(_escaped(root) + rest)).match
        return any(matches((output / name).path) for name in ("lock.json", "maps/x.parquet"))
    inside, around = output.path, source.path
    if source.is_local and output.is_local:
        inside, around = os.path.realpath(inside), os.path.realpath(around)
    elif type(source.fs) is not type(output.fs) or source.root != output.root:
        return False
    return f"{inside}/".startswith(f"{around.rstrip('/')}/")
