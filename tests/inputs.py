"""Inputs for tests that fetch nothing."""

from collections.abc import Iterator
from dataclasses import dataclass

from job.inputs.left_out import LeftOut
from job.rows import Listed
from job.storage.location import Location


@dataclass(frozen=True)
class MadeInput:
    """An INPUT that lists what it is told to, and has nothing to fetch.

    Attributes:
        uris: of its images, in the order of the listing.
    """

    uris: tuple[str, ...]
    name: str = "s3://photos"
    uri: str = "s3://photos"

    def list(self, left_out: LeftOut) -> Iterator[Listed]:
        return (Listed(uri, 1000, "etag") for uri in self.uris)

    def check(self) -> None:
        raise NotImplementedError

    def would_list(self, file: Location) -> bool:
        raise NotImplementedError

    def fetch(self, row: Listed, limit: int | None = None) -> bytes:
        raise NotImplementedError
