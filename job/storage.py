"""URI → filesystem: opening, listing, atomic writes, and what went wrong in plain words."""

import asyncio
import contextlib
import os
import posixpath
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import aiohttp
import fsspec
import pyarrow.fs
from botocore.exceptions import BotoCoreError, ClientError
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem
from fsspec.utils import glob_translate

from job.errors import ConfigError, StorageError

StorageOptions = dict[str, Any]

# Ends the name of a local file that is still being written; a writer that was killed leaves it.
PARTIAL = ".partial"

# What filesystems raise when storage refuses, fails or does not answer. Those of the S3 client
# are no OSErrors.
STORAGE_ERRORS = (
    OSError,
    ValueError,
    BotoCoreError,
    ClientError,
    aiohttp.ClientError,
    asyncio.TimeoutError,
)


@dataclass(frozen=True)
class Location:
    """A place in some storage: a filesystem and a path on it. Travels to workers as it is."""

    fs: AbstractFileSystem
    path: str

    @property
    def is_local(self) -> bool:
        return isinstance(self.fs, LocalFileSystem)

    @property
    def uri(self) -> str:
        """What a person or another tool opens: a plain path when local, ``s3://…`` otherwise."""
        return self.path if self.is_local else str(self.fs.unstrip_protocol(self.path))

    @cached_property
    def arrow(self) -> pyarrow.fs.FileSystem:
        """The same filesystem for Arrow, Parquet and Ray Data."""
        return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(self.fs))

    def __truediv__(self, name: str) -> "Location":
        return Location(self.fs, posixpath.join(self.path, name))

    def exists(self) -> bool:
        return bool(self.fs.exists(self.path))

    def read_bytes(self) -> bytes:
        return bytes(self.fs.cat_file(self.path))

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


@dataclass(frozen=True)
class StoredObject:
    """One listed object: where it is, its size in bytes, and a tag that changes with it."""

    path: str
    size: int
    etag: str | None


def locate(uri: str, options: StorageOptions | None = None) -> Location:
    """Open the filesystem of a URI: a local path, ``s3://``, ``gs://``, anything fsspec opens.

    Raises:
        ConfigError: an unknown scheme, a scheme whose package is missing, or options that the
            filesystem does not take.
    """
    if not uri:
        raise ConfigError("an empty path; give a folder or a URI (is a shell variable unset?)")
    arguments = dict(options or {})
    scheme = uri.split("://", 1)[0] if "://" in uri else "file"
    if scheme != "file":
        # A cached listing would hide what other workers have just written.
        arguments.setdefault("use_listings_cache", False)
    try:
        fs, path = fsspec.url_to_fs(uri, **arguments)
        if scheme == "s3":
            fs.connect()  # options that do not fit come to light here, not at the first object
    except ImportError as error:
        raise ConfigError(
            f"{uri}: reading {scheme}:// needs a package that is not installed ({error})"
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"{uri}: {error}. Use a local path, s3://, gs:// or another scheme that fsspec knows"
        ) from error
    except (TypeError, AttributeError, BotoCoreError) as error:
        raise ConfigError(
            f"--storage-options, or the credentials, do not fit {scheme}://: {explain(error)}"
        ) from error
    except OSError as error:
        raise StorageError(f"{uri} cannot be opened: {explain(error)}") from error
    return Location(fs, path.rstrip("/") or "/")


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
    if any(mark in source.path for mark in "*?[") and not source.exists():
        matches = re.compile(glob_translate(source.path)).match
        return any(matches((output / name).path) for name in ("lock.json", "maps/x.parquet"))
    inside, around = output.path, source.path
    if source.is_local and output.is_local:
        inside, around = os.path.realpath(inside), os.path.realpath(around)
    elif type(source.fs) is not type(output.fs):
        return False
    return f"{inside}/".startswith(f"{around.rstrip('/')}/")


def list_objects(uri: str, options: StorageOptions | None = None) -> Iterator[StoredObject]:
    """List a folder or prefix (recursively), a glob, or a single object, sorted by path.

    Raises:
        StorageError: nothing is there, or it may not be listed.
    """
    place = locate(uri, options)
    try:
        entries = _entries(place)
    except STORAGE_ERRORS as error:
        raise StorageError(f"INPUT {uri} cannot be listed: {explain(error)}") from error
    if not entries:
        raise StorageError(
            f"INPUT {uri}: nothing is there. Check the spelling; a folder, a prefix, a glob such as"
            " photos/**/*.jpg or a single image is expected"
        )
    for path in sorted(entries):
        info = entries[path]
        is_marker = path.endswith("/")  # a console's stand-in for an empty folder
        if info.get("type") == "file" and not is_marker:
            yield StoredObject(path, int(info.get("size") or 0), _etag(info))


def _entries(place: Location) -> dict[str, dict[str, Any]]:
    fs, path = place.fs, place.path
    if fs.isdir(path):
        return dict(fs.find(path, detail=True))
    if fs.isfile(path):
        return {path: fs.info(path)}
    if any(mark in path for mark in "*?["):
        return dict(fs.glob(path, detail=True))
    if place.is_local:
        return {}
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


def explain(error: BaseException) -> str:
    """What a storage error means and what to do, in one sentence without a traceback."""
    text = " ".join(str(error).split()) or type(error).__name__
    name = type(error).__name__
    if isinstance(error, PermissionError):
        return f"permission denied ({text}). Check the credentials and the bucket's policy"
    if isinstance(error, FileNotFoundError):
        return f"not found ({text})"
    if isinstance(error, NotADirectoryError | FileExistsError):
        return f"a file is in the way ({text})"
    if name in {"NoCredentialsError", "PartialCredentialsError"}:
        return "no AWS credentials were found. Set AWS_PROFILE, AWS_ACCESS_KEY_ID, or use a role"
    if name in {"EndpointConnectionError", "ConnectTimeoutError"}:
        return f"the endpoint does not answer ({text}). Check AWS_ENDPOINT_URL and the network"
    return f"{name}: {text}"
