"""Listing: which objects an INPUT names, sorted, without holding them all in memory."""

import errno
import os
import posixpath
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fsspec.utils import glob_translate

from job.errors import ConfigError, StorageError
from job.refusals import kind_of
from job.s3 import DEFAULT_PATIENCE, S3, Patience
from job.storage import STORAGE_ERRORS, Location, StorageOptions, explain, locate, stamp


@dataclass(frozen=True)
class StoredObject:
    """One listed object: where it is, its size in bytes, and a tag that changes with it."""

    path: str
    size: int
    etag: str | None


def list_objects(
    uri: str, options: StorageOptions | None = None, patience: Patience = DEFAULT_PATIENCE
) -> Iterator[StoredObject]:
    """List a folder or prefix (recursively), a glob, or a single object, sorted by path.

    On S3 no more than a page of a listing is in memory, locally no more than a folder.

    Raises:
        StorageError: nothing is there, or it may not be listed.
    """
    place = locate(uri, options, patience)
    nothing = True
    try:
        for found in _objects(place):
            nothing = False
            if not found.path.endswith("/"):  # a console's stand-in for an empty folder
                yield found
    except Exception as error:  # filesystems of other clouds have errors of their own
        if not isinstance(error, STORAGE_ERRORS) and kind_of(error) == "unknown":
            raise
        raise StorageError(f"INPUT {uri} cannot be listed: {explain(error)}") from error
    if nothing:
        raise StorageError(
            f"INPUT {uri}: nothing is there. Check the spelling; a folder, a prefix, a glob such as"
            " photos/**/*.jpg or a single image is expected"
        )


def _objects(place: Location) -> Iterator[StoredObject]:
    if place.is_local:
        return _local_objects(place)
    if isinstance(place.fs, S3) and place.fs.split_path(place.path)[0]:
        return _s3_objects(place.fs, place.path)
    return _as_described(_entries(place))


def _local_objects(place: Location) -> Iterator[StoredObject]:
    if os.path.isdir(place.path):
        yield from _files_under(place.path)
    elif os.path.isfile(place.path) or not _is_pattern(place.path):
        yield from _local_file(place.path)
    else:
        for path in sorted(place.fs.glob(place.path)):
            yield from _local_file(path)


def _files_under(folder: str) -> Iterator[StoredObject]:
    # A folder's name ends with a slash here, also for the order: that of the whole paths.
    waiting = [posixpath.join(folder, "")]
    while waiting:
        path = waiting.pop()
        if not path.endswith("/"):
            yield from _local_file(path)
            continue
        with os.scandir(path) as entries:
            children = [
                f"{entry.path}/" if entry.is_dir(follow_symlinks=False) else entry.path
                for entry in entries
            ]
        waiting.extend(sorted(children, reverse=True))


def _local_file(path: str) -> Iterator[StoredObject]:
    """The file at a path; nothing for what is none: a link to nowhere or to a folder, a pipe."""
    try:
        status = os.stat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return
        raise
    if stat.S_ISREG(status.st_mode):
        yield StoredObject(path, status.st_size, stamp(status))


def _s3_objects(fs: S3, path: str) -> Iterator[StoredObject]:
    bucket, key, _ = fs.split_path(path)
    in_folder = False
    for found in fs.listing(bucket, f"{key}/" if key else ""):
        in_folder = True
        yield _s3_object(bucket, found)
    if in_folder or not key:
        return
    if fs.isfile(path):
        yield from _as_described({path: fs.info(path)})
    elif _is_pattern(path):
        yield from _as_described(fs.glob(path, detail=True))
    else:
        for found in fs.listing(bucket, key):
            yield _s3_object(bucket, found)


def _s3_object(bucket: str, found: dict[str, Any]) -> StoredObject:
    return StoredObject(f"{bucket}/{found['Key']}", found["Size"], _etag(found))


def _as_described(entries: dict[str, dict[str, Any]]) -> Iterator[StoredObject]:
    for path in sorted(entries):
        info = entries[path]
        if info.get("type") == "file":
            yield StoredObject(path, int(info.get("size") or 0), _etag(info))


def _is_pattern(path: str) -> bool:
    return any(mark in path for mark in "*?[")


def _entries(place: Location) -> dict[str, dict[str, Any]]:
    fs, path = place.fs, place.path
    if fs.isdir(path):
        return dict(fs.find(path, detail=True))
    if fs.isfile(path):
        return {path: fs.info(path)}
    if _is_pattern(path):
        return dict(fs.glob(path, detail=True))
    parent, _, prefix = path.rpartition("/")
    if not parent:
        return dict(fs.find(path, detail=True))
    found = fs.find(parent, detail=True, prefix=prefix)
    return {name: info for name, info in found.items() if name.startswith(path)}


def _etag(info: dict[str, Any]) -> str | None:
    for key in ("ETag", "etag", "md5Hash", "content_md5"):
        if info.get(key):
            return str(info[key]).strip('"')
    modified = info.get("mtime") or info.get("LastModified") or info.get("last_modified")
    return None if modified is None else f"{modified}-{info.get('size')}"


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
    if _is_pattern(source.path) and not source.exists():
        matches = re.compile(glob_translate(source.path)).match
        return any(matches((output / name).path) for name in ("lock.json", "maps/x.parquet"))
    inside, around = output.path, source.path
    if source.is_local and output.is_local:
        inside, around = os.path.realpath(inside), os.path.realpath(around)
    elif type(source.fs) is not type(output.fs):
        return False
    return f"{inside}/".startswith(f"{around.rstrip('/')}/")
