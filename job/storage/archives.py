"""Archives: places within a zip or tar file, as ``zip://folder::s3://bucket/photos.zip``."""

import threading
from dataclasses import dataclass

from job.errors import ChangedError, StorageError
from job.limits import RetryPolicy
from job.storage.canonical import Canonical
from job.storage.fsspec_location import FsspecLocation, opened, root_of
from job.storage.location import Location, StorageOptions
from job.storage.uris import absolute, archive_of

# An archive is one open file: threads that read at different places in it take turns.
_reading = threading.Lock()


@dataclass(frozen=True)
class ArchiveLocation(FsspecLocation):
    """A place within an archive.

    Attributes:
        archive: what its URIs end with: ``::`` and where the archive is.
    """

    archive: str = ""

    @classmethod
    def open(cls, uri: str, options: StorageOptions, retry_policy: RetryPolicy) -> Location:
        uri, archive = _complete(uri, options)
        fs, path = opened(uri, options)
        if not archive:
            raise StorageError(
                f"{uri}: the URIs of files there would not say what they are in. Name an archive"
                " behind the folder in it, as in zip://FOLDER::ARCHIVE"
            )
        root, base = root_of(fs, path, uri, archive)
        return cls(fs, path, root, base, f"::{Canonical()(archive[2:])}")

    @property
    def uri(self) -> str:
        return super().uri + self.archive

    def holds(self, uri: str) -> bool:
        return archive_of(uri) == self.archive and super().holds(uri)

    def fetch(
        self, path: str, etag: str | None, size: int | None, limit: int | None = None
    ) -> bytes:
        path = path.removesuffix(self.archive)
        with _reading:
            data = bytes(self.fs.cat_file(path))
        if size is not None and len(data) != size:
            raise ChangedError(path)
        return data


def _complete(uri: str, options: StorageOptions) -> tuple[str, str]:
    """A URI that names its archive wherever it is opened, and the archive's part of it.

    Args:
        uri: as it was given.
        options: of the filesystem; an archive that is named there is moved into the URI.
    """
    archive = archive_of(uri)
    named = options.get("fo")
    if not archive and isinstance(named, str) and "target_protocol" not in options:
        archive = f"::{named}"
        uri += archive
    if not archive:
        return uri, ""
    options.pop("fo", None)
    *before, last = archive.split("::")
    full = "::".join([*before, absolute(last)])
    return uri.removesuffix(archive) + full, full
