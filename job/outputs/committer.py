"""Committer: the one process that makes what was written visible, and counts it."""

import contextlib
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from job.errors import JobError, StorageError
from job.outputs import names
from job.outputs.attempts import Attempt
from job.outputs.claims import OutputClaim
from job.outputs.records import CommittedFile, Record
from job.storage.at_once import at_once
from job.storage.location import Location
from job.wording import counted

# Attempts that are committed together, at most.
_GROUP = 32


class Committer:
    """Commits what a run's workers have written; only the run's own process has one.

    Attributes:
        maps: images that the run has given a map, committed.
        errors: images that it could not, by kind, committed.
        left_out: rows that were not committed, for they came with an image that was committed
            already, or was never asked for.

    Args:
        output: the run's OUTPUT.
        claim: the run's claim to it.
    """

    def __init__(self, output: Location, claim: OutputClaim) -> None:
        self.maps = 0
        self.errors: Counter[str] = Counter()
        self.left_out = 0
        self._output = output
        self._claim = claim
        self._number = 0
        self._open: np.ndarray = np.empty(0, np.int64)
        self._is_open: np.ndarray = np.empty(0, bool)

    def expect(self, ids: np.ndarray) -> None:
        """From now on these images are committed, each once, and no others.

        Args:
            ids: int64, sorted, each once.
        """
        self._open = ids
        self._is_open = np.ones(len(ids), bool)

    @property
    def remaining(self) -> int:
        """Images that are expected and not committed."""
        return int(self._is_open.sum())

    @property
    def note(self) -> str:
        """What a person is told of rows that were left out; nothing when there are none."""
        if not self.left_out:
            return ""
        if self.left_out == 1:
            return "1 row was left out, for its image had come before"
        return (
            f"{self.left_out:,} rows were left out, for they came with images that had come before"
        )

    def check_finished(self) -> None:
        """Check that every image that was expected is committed.

        Raises:
            JobError: some are not; says how many.
        """
        left = self.remaining
        if not left:
            return
        have, them = ("has", "it") if left == 1 else ("have", "them")
        why = f": {self.note}" if self.note else ""
        raise JobError(
            f"{left:,} of {counted(len(self._open), 'image')} {have} neither a map nor an error"
            f" row{why}. What is committed stays; the same command goes on with {them}"
        )

    def commit(self, attempts: Sequence[Attempt]) -> None:
        """Commit attempts together: their records, then, behind them, their files.

        Raises:
            OutputConflictError: another run took over.
            StorageError: what was written has vanished.
            OSError: OUTPUT cannot be written. Whether these attempts are committed, the next run
                finds out.
        """
        records = [self._record(attempt) for attempt in attempts if self._takes(attempt)]
        if not records:
            return
        # Asked before each step: what a run that took over does not know of must not become
        # visible, and what it knows of is committed.
        self._claim.ask()
        at_once(lambda record: (self._output / record.name).write_bytes(record.to_bytes()), records)
        self._claim.ask()
        # They count from here on: whoever takes over moves them, should this run not come to it.
        for record in records:
            kinds = [kind for kind in record.rows["error_type"].to_pylist() if kind is not None]
            self.maps += len(record.ids) - len(kinds)
            self.errors.update(kinds)
        move_to_places(self._output, [file for record in records for file in record.files])

    def clear(self) -> None:
        """Remove what this run's attempts have left that were not committed."""
        attempts = self._output / names.ATTEMPTS
        left = [name for name in attempts.names() if name.startswith(f"{self._claim.name}-")]
        self._claim.ask()
        at_once(lambda name: (attempts / name).delete(), left)

    @contextlib.contextmanager
    def at_work(self, then: Callable[[], None]) -> Iterator["CommitQueue"]:
        """Within the context, attempts are committed as they come, in a thread.

        Args:
            then: called, in the thread, when some are committed.

        Raises:
            BaseException: what :meth:`commit` or ``then`` has raised; at the end of the context,
                or when the next attempt comes.
        """
        waiting = CommitQueue(self, then)
        try:
            yield waiting
        finally:
            waiting.finish()
        waiting.check()

    def _takes(self, attempt: Attempt) -> bool:
        """Whether none of an attempt's images is committed already."""
        if not len(attempt.ids):
            return True
        places = np.searchsorted(self._open, attempt.ids)
        known = places < len(self._open)
        known[known] = self._open[places[known]] == attempt.ids[known]
        is_new = known.all() and self._is_open[places].all()
        if not is_new or len(np.unique(attempt.ids)) < len(attempt.ids):
            self.left_out += len(attempt.ids)
            return False
        self._is_open[places] = False
        return True

    def _record(self, attempt: Attempt) -> Record:
        record = Record.of(attempt, f"{self._claim.name}-{self._number:06d}")
        self._number += 1
        return record


class CommitQueue:
    """Attempts on their way to be committed; see :meth:`Committer.at_work`."""

    def __init__(self, committer: Committer, then: Callable[[], None]) -> None:
        self._committer = committer
        self._then = then
        self._waiting: queue.SimpleQueue[Attempt | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="commits")
        self._thread.start()

    def add(self, attempt: Attempt) -> None:
        """Have an attempt committed."""
        self.check()
        self._waiting.put(attempt)

    def check(self) -> None:
        """Raise what has kept attempts from being committed."""
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Return when all that has come is committed, or cannot be."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while group := self._next_group():
                self._committer.commit(group)
                self._then()
        except BaseException as error:
            self._error = error

    def _next_group(self) -> list[Attempt]:
        """What has come, when anything has; nothing at the end."""
        group = []
        with contextlib.suppress(queue.Empty):
            attempt = self._waiting.get()
            while attempt is not None:
                group.append(attempt)
                if len(group) == _GROUP:
                    return group
                attempt = self._waiting.get_nowait()
            if group:
                self._waiting.put(None)  # for the turn after this
        return group


def move_to_places(output: Location, files: Sequence[CommittedFile]) -> None:
    """Move committed files to where readers look; one that is there already stays.

    Raises:
        StorageError: one has vanished.
        OSError: it cannot be done now.
    """
    at_once(lambda file: _move_to_place(output, file), files)


def _move_to_place(output: Location, file: CommittedFile) -> None:
    if file.attempt is None:
        return
    try:
        (output / file.attempt).move_to(output / file.name)
    except FileNotFoundError:
        if (output / file.name).size() != file.size:
            raise StorageError(
                f"{(output / file.attempt).uri} has vanished before it was moved to {file.name}."
                " Its images are done again by the same command"
            ) from None
