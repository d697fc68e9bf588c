"""Listed files: the images under a folder, a prefix or a glob, or a single one."""

import threading
from collections.abc import Iterator
from typing import Any

from job.errors import ImageError, JobError, StorageError
from job.image_names import is_image_name
from job.inputs.left_out import LeftOut
from job.inputs.listing import find_objects, list_objects
from job.limits import DEFAULT_RETRY_POLICY, RetryPolicy
from job.rows import Listed
from job.storage.canonical import Canonical
from job.storage.location import Location, StorageOptions
from job.storage.opening import locate
from job.storage.refusals import explain
from job.storage.uris import absolute, plain


class ListedFiles:
    """Objects of a storage that are images by their names, or are asked for by name: an ``Input``.

    Args:
        source: a folder, prefix, glob or single object.
        options: what its storage is opened with; and others, where images of an earlier INPUT lie.
        retry_policy: likewise.
    """

    def __init__(
        self,
        source: str,
        options: StorageOptions | None = None,
        retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY,
    ) -> None:
        self.name = source
        self._options = dict(options or {})
        self._retry_policy = retry_policy
        self._place = locate(absolute(source), options, retry_policy)
        self._places = [self._place]
        self._opening = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        kept = {**self.__dict__, "_places": [self._place]}
        del kept["_opening"]
        return kept

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._opening = threading.Lock()

    @property
    def uri(self) -> str:
        return self._place.uri

    def check(self) -> None:
        """Look whether anything is there: on a disk at one folder or a few, on S3 at one page."""
        next(list_objects(self._place, self.name), None)

    def would_list(self, file: Location) -> bool:
        return self._place.would_list(file)

    def list(self, left_out: LeftOut) -> Iterator[Listed]:
        canonical = Canonical()
        names: dict[str, str] = {}
        for found, is_named in find_objects(self._place, self.name, left_out):
            if not (is_named or is_image_name(plain(found.path))):
                left_out.add("no_image", found.path)
                continue
            name = self._place.at(found.path).uri
            uri = canonical(name)
            if uri not in names:
                names[uri] = uri if uri == name else name
                yield Listed(uri, found.size, found.etag)
            elif names[uri] != name:
                left_out.add("renamed", found.path)

    def fetch(self, row: Listed, limit: int | None = None) -> bytes:
        if row.part is not None:  # the whole object would be another image, or none
            raise ImageError(
                "unsupported",
                f"this version cannot read parts of {row.uri} (here {row.part!r}): it reads whole"
                " files. Run the version that has listed them, with --retry-errors",
                retryable=True,
            )
        return self._holding(row.uri).fetch(row.uri, row.etag, row.size, limit)

    def _holding(self, uri: str) -> Location:
        """A place on the storage of a URI, which is opened when it is met for the first time."""
        with self._opening:
            place = next((place for place in self._places if place.holds(uri)), None)
            if place is None:
                place = self._opened(uri)
                self._places.append(place)
            return place

    def _opened(self, uri: str) -> Location:
        try:
            return locate(uri, self._options, self._retry_policy)
        except JobError:
            raise
        except Exception as error:  # filesystems of other clouds have errors of their own
            raise StorageError(f"{uri} cannot be opened: {explain(error)}") from error
