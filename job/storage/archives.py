"""Archives: places within a zip or tar file, as ``zip://folder::s3://bucket/photos.zip``."""

import threading
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from job.errors import ChangedError

_SCHEMES = {"dir", "libarchive", "reference", "tar", "zip"}
# Links of a chain that only keep copies of what the next one names.
_COPIES = {"blockcache", "cached", "filecache", "simplecache"}
# An archive is one open file: threads that read at different places in it take turns.
_reading = threading.Lock()


def without_copies(uri: str) -> str:
    """A URI without ``simplecache::`` and the like: it names the same, however that is read."""
    first, mark, rest = uri.partition("::")
    return without_copies(rest) if mark and first.removesuffix("://") in _COPIES else uri


def archive_of(uri: str) -> str:
    """What a URI of a place within an archive ends with: ``::`` and where the archive is."""
    scheme, mark, rest = without_copies(uri).partition("://")
    if not mark or scheme not in _SCHEMES:
        return ""
    _, mark, archive = rest.partition("::")
    return mark + archive


def complete(uri: str, options: dict[str, Any]) -> tuple[str, str]:
    """A URI that names its archive wherever it is opened, and the archive's part of it.

    Args:
        uri: as it was given.
        options: of the filesystem; an archive that is named there is moved into the URI.
    """
    if not is_within(uri):
        return uri, ""
    archive = archive_of(uri)
    named = options.get("fo")
    if not archive and isinstance(named, str) and "target_protocol" not in options:
        archive = f"::{named}"
        uri += archive
    if not archive:
        return uri, ""
    options.pop("fo", None)
    *before, last = archive.split("::")
    if "://" not in last or last.startswith(("file://", "local://")):
        last = LocalFileSystem._strip_protocol(last)
    full = "::".join([*before, last])
    return uri.removesuffix(archive) + full, full


def is_within(uri: str) -> bool:
    """Whether a URI is of a place within an archive, whether or not it says which."""
    scheme, mark, _ = without_copies(uri).partition("://")
    return bool(mark) and scheme in _SCHEMES


def fetch(fs: AbstractFileSystem, path: str, size: int | None) -> bytes:
    """A file of an archive.

    Raises:
        ChangedError: it has another size by now.
    """
    with _reading:
        data = bytes(fs.cat_file(path))
    if size is not None and len(data) != size:
        raise ChangedError(path)
    return data
