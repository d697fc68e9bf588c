"""Fetching: the bytes of an image, or whose fault it is that there are none.

An image is blamed only when another one can be read: in the same storage, by the same process,
after this one could not be, and before it is tried again. Else nothing is known about the image.
"""

import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from job.errors import ChangedError, ImageError, JobError
from job.inputs.base import Input
from job.rows import Fault, Listed
from job.storage.refusals import ENVIRONMENT, Kind, answer_of, explain, kind_of
from job.storage.uris import archive_of, scheme_of
from job.wording import counted

# Where the pattern of a glob begins.
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Doubt:
    """A fetch that failed, before it is known whose fault that is.

    Attributes:
        kind: what went wrong, as far as the error tells.
        reason: a sentence.
        has_its_word: whether the storage itself has said so.
        is_late: whether nothing came in time: then a second time is not tried.
    """

    kind: Kind
    reason: str
    has_its_word: bool = True
    is_late: bool = False


class Fetcher:
    """Fetches images of an input, and settles whose fault it was where one could not be had.

    Args:
        source: the input.
        witnesses: images that the driver has just listed.
        timeout: seconds that fetching one may take, retries included.
        threads: images fetched at the same time.
        byte_limit: the most bytes of an image, also when it is unpacked.
    """

    def __init__(
        self,
        source: Input,
        *,
        witnesses: Sequence[Listed] = (),
        timeout: float = 300.0,
        threads: int = 32,
        byte_limit: int = 2**29,
    ) -> None:
        self._source = source
        self._timeout = timeout
        self._threads = threads
        self._byte_limit = byte_limit
        self._witnesses = [found for found in witnesses if not self._is_too_large(found)]
        # The last image that was fetched, by storage.
        self._read: dict[str, Listed] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_read": {}}

    def fetch(self, listed: Listed) -> bytes | ImageError | Doubt:
        """One image, whole; what is certain about it; or a doubt, to be settled."""
        if self._is_too_large(listed):
            return ImageError(
                "too_large",
                f"{counted(listed.size or 0, 'byte')}, over the limit of {self._byte_limit:,};"
                " raise --byte-limit if such images are expected",
            )
        try:
            data = self._source.fetch(listed, self._byte_limit)
        except ChangedError:
            message = "the object is not the one that was listed"
            return ImageError("changed", message, retryable=True)
        except ImageError as error:
            return error
        except JobError as error:  # the storage of an earlier INPUT cannot be opened
            return Doubt("credentials", str(error), has_its_word=False)
        except Exception as error:  # filesystems of other clouds have errors of their own
            return _doubt(error, listed.uri)
        self._read[self._storage(listed.uri)] = listed
        return data

    def _is_too_large(self, listed: Listed) -> bool:
        return listed.size is not None and listed.size > self._byte_limit

    def late(self) -> Doubt:
        """The doubt about an object of which nothing came in time."""
        message = f"nothing came within {self._timeout:g} s; see --image-timeout"
        return Doubt("network", message, is_late=True)

    def settle(
        self, doubts: Mapping[int, tuple[Listed, Doubt]]
    ) -> dict[int, bytes | ImageError | Fault]:
        """Whose fault it was that objects could not be read, once others of them have been tried.

        Args:
            doubts: the objects, by numbers of the caller's.

        Returns:
            The object after all; why it cannot be had; or what keeps all objects from being read.
        """
        settled: dict[int, bytes | ImageError | Fault] = {}
        pool = ThreadPoolExecutor(self._threads, "settle")
        try:
            for name in dict.fromkeys(self._storage(listed.uri) for listed, _ in doubts.values()):
                concerned = {
                    number: (listed, doubt)
                    for number, (listed, doubt) in doubts.items()
                    if self._storage(listed.uri) == name
                }
                settled.update(self._settle(pool, name, concerned))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return settled

    def _settle(
        self, pool: ThreadPoolExecutor, name: str, doubts: Mapping[int, tuple[Listed, Doubt]]
    ) -> dict[int, bytes | ImageError | Fault]:
        witnesses = self._witnesses_of(name)
        if not witnesses:
            return {
                number: self._unattested(listed, doubt)
                for number, (listed, doubt) in doubts.items()
            }
        outcomes = self._tried(pool, witnesses)
        known = [outcome for outcome in outcomes if isinstance(outcome, Doubt)]
        if len(known) == len(outcomes):
            against = next((doubt for doubt in known if doubt.kind in ENVIRONMENT), known[0])
            return {
                number: self._fault(listed, doubt, against)
                for number, (listed, doubt) in doubts.items()
            }
        again = {number: listed for number, (listed, doubt) in doubts.items() if not doubt.is_late}
        tried = dict(zip(again, self._tried(pool, list(again.values())), strict=True))
        settled: dict[int, bytes | ImageError | Fault] = {}
        for number, (_, doubt) in doubts.items():
            outcome = tried.get(number, doubt)
            settled[number] = _blamed(outcome) if isinstance(outcome, Doubt) else outcome
        return settled

    def _witnesses_of(self, name: str) -> list[Listed]:
        """Objects that can be read if any can: the last that was, and what the driver has seen."""
        latest = self._read.get(name)
        known = [latest] if latest is not None else []
        known += [witness for witness in self._witnesses if self._storage(witness.uri) == name]
        return list(dict.fromkeys(known))

    def _tried(
        self, pool: ThreadPoolExecutor, objects: Sequence[Listed]
    ) -> list[bytes | ImageError | Doubt]:
        arriving = [pool.submit(self.fetch, listed) for listed in objects]
        outcomes: list[bytes | ImageError | Doubt] = []
        for future in arriving:
            try:
                outcomes.append(future.result(self._timeout))
            except TimeoutError:
                outcomes.append(self.late())
        return outcomes

    def _unattested(self, listed: Listed, doubt: Doubt) -> ImageError | Fault:
        """What to make of a doubt where nothing is known that could be read."""
        if doubt.kind in ENVIRONMENT and not doubt.is_late:
            return self._fault(listed, doubt, None)
        error = _blamed(doubt)
        retryable = error.retryable or doubt.kind == "forbidden"
        return ImageError(error.kind, error.message, retryable=retryable)

    def _fault(self, listed: Listed, doubt: Doubt, against: Doubt | None) -> Fault:
        if against is not None and doubt.kind not in ENVIRONMENT:
            doubt = against
        kind, reason = doubt.kind, doubt.reason
        is_local = scheme_of(listed.uri) == "file"
        if kind == "missing":
            look = "Check the mount" if is_local else "Check the bucket and the endpoint"
            reason = f"nothing of what was listed is there: {reason}. {look}"
            kind = "mount" if is_local else "bucket"
        if kind == "forbidden":
            reason = f"nothing of what was listed may be read: {reason}"
        name = self._storage(listed.uri)
        if name == self._storage(self._source.uri):
            name = f"INPUT {self._source.uri}"
        return Fault(name, kind, reason.rstrip("."))

    def _storage(self, uri: str) -> str:
        """What can be read or not as a whole: a bucket, container or host; INPUT or a folder."""
        scheme = scheme_of(uri)
        archive = archive_of(uri)
        if archive:
            return f"{scheme}://{archive}"
        if scheme != "file":
            return f"{scheme}://{uri.partition('://')[2].partition('/')[0]}"
        root = _WILD.split(self._source.uri)[0]
        return root if uri.startswith(root) else posixpath.dirname(uri)


def _doubt(error: Exception, uri: str) -> ImageError | Doubt:
    kind, reason = kind_of(error), explain(error)
    answer = answer_of(error)
    if kind == "archived":
        tier = f" ({answer.tier})" if answer is not None and answer.tier else ""
        message = f"archived{tier}: restore it first, then run again with --retry-errors"
        return ImageError("archived", message, retryable=True)
    if scheme_of(uri) == "file" and kind in ("missing", "forbidden"):
        return _local_doubt(kind, reason, uri)
    return Doubt(kind, reason, has_its_word=answer is None or answer.is_of_s3)


def _local_doubt(kind: Kind, reason: str, path: str) -> Doubt:
    """The word of a file system counts only where the folder is there to be asked."""
    folder = posixpath.dirname(path)
    if kind == "missing" and not os.path.isdir(folder):
        reason = f"the folder {folder} is not there. Mount it on every node"
        return Doubt("mount", reason, has_its_word=False)
    if kind == "forbidden" and not os.access(folder, os.X_OK):
        reason = f"the folder {folder} may not be entered. Give the job the right to, on every node"
        return Doubt("mount", reason, has_its_word=False)
    try:
        # Where a file system is not mounted, there is an empty folder.
        return Doubt(kind, reason, has_its_word=kind != "missing" or any(os.scandir(folder)))
    except OSError as error:
        return Doubt("mount", f"the folder {folder}: {explain(error)}", has_its_word=False)


def _blamed(outcome: Doubt) -> ImageError:
    """What an object that could not be read is told to be, where others can be read."""
    if outcome.is_late:
        return ImageError("timed_out", outcome.reason, retryable=True)
    if outcome.kind == "missing":
        message = "the object is gone since it was listed"
        return ImageError("missing", message, retryable=not outcome.has_its_word)
    if outcome.kind == "mount":
        return ImageError("missing", outcome.reason, retryable=True)
    if outcome.kind == "forbidden" and outcome.has_its_word:
        return ImageError("forbidden", outcome.reason)
    return ImageError("fetch_failed", outcome.reason, retryable=True)
