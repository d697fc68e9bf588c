"""Input: what a run needs of whatever its images come from."""

from collections.abc import Iterator
from typing import Protocol

from job.inputs.left_out import LeftOut
from job.rows import Listed
from job.storage.location import Location


class Input(Protocol):
    """Where images come from: it lists rows, and fetches the bytes of one.

    It is opened once, by the process that starts the run, and travels to the workers by pickle.
    A row is one image, and is known by its ``uri`` and ``part``: files are whole objects, others
    may be parts of one (a member, a row). What a storage does not tell is None, also its size.

    Which images cannot be read, and which only could not be for a while, is decided by
    :mod:`job.inputs.fetching` for every input alike.
    """

    @property
    def name(self) -> str:
        """What messages call it: as a person has given it."""

    @property
    def uri(self) -> str:
        """Where it is, as the URIs of its rows begin, unless links lead elsewhere."""

    def check(self) -> None:
        """Look whether anything is there, in no more time than a page of it takes.

        Raises:
            StorageError: nothing is there, or it may not be read.
        """

    def would_list(self, file: Location) -> bool:
        """Whether it would list a file, were it there: OUTPUT must lie outside."""

    def list(self, left_out: LeftOut) -> Iterator[Listed]:
        """Its images, in an order that stays; each once, by the URI of the place where it lies.

        Args:
            left_out: counts what lies there and is no image.

        Raises:
            StorageError: nothing is there, or it may not be read.
        """

    def fetch(self, row: Listed, limit: int | None = None) -> bytes:
        """The bytes of an image, also of one that an earlier input has listed.

        Args:
            row: as it was listed; where its ``etag`` is None, whatever is there.
            limit: the most bytes to take, and to unpack what is stored packed to; None leaves it
                packed.

        Raises:
            ChangedError: another one is there by now.
            ImageError: it is certain that this image cannot be had.
            JobError: its storage, one of an earlier input, cannot be opened.
            Exception: anything else is a doubt: it may be the storage, the network, this process.
        """
