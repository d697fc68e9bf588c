"""Claims: who writes to an OUTPUT now. A run writes its own claim only, and the highest one holds.

Nothing is locked, and no storage has to compare before it writes: a run that is late, because it or
its storage was paused, finds a higher claim and stops (docs/operations.md tells the whole rule).
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any

from job.errors import OutputConflictError, StorageError
from job.outputs import holders, names
from job.outputs.clock import Clock, Ticking
from job.storage.location import Location
from job.storage.refusals import STORAGE_ERRORS, explain

_SUFFIX = ".json"
BEAT_SECONDS = 5.0
# A holder elsewhere that misses this many beats in a row is dead.
MISSED_BEATS = 3
# How formats 1 and 2 said who holds an OUTPUT.
_EARLIER = "lock.json"


class OutputClaim:
    """A run's claim to an OUTPUT, as a context.

    It is renewed every few seconds, and marked at its end. A new run takes over from a holder whose
    process is gone from this machine, or from one elsewhere that no longer renews. Elsewhere is any
    other machine, whatever its name, and any other container: only who sees the same processes can
    tell that one is gone.

    Attributes:
        name: what the names of all that the run writes begin with.
        epoch: the run's place in the order of runs on this OUTPUT.
        run_id: the run.

    Args:
        output: the run's OUTPUT.
        run_id: the run.
        beat_seconds: seconds between renewals.
        clock: tells the time.

    Raises:
        OutputConflictError: another run holds it; says who and since when.
        StorageError: OUTPUT cannot be written.
    """

    def __init__(
        self,
        output: Location,
        run_id: str,
        beat_seconds: float = BEAT_SECONDS,
        clock: Clock | None = None,
    ) -> None:
        self.run_id = run_id
        self.epoch = 0
        self.name = ""
        self._output = output
        self._beat_seconds = beat_seconds
        self._clock = clock or Clock()
        self._record: dict[str, Any] = {"run_id": run_id, **holders.describe_this_process()}
        self._record["beat"] = 0
        self._acknowledged = self._clock.now()
        self._beats: Ticking | None = None
        self._is_over = threading.Event()
        self._is_marked = False
        self._ending = threading.Lock()

    def __enter__(self) -> "OutputClaim":
        try:
            self._take()
        except BaseException as error:
            self.release()
            if not isinstance(error, STORAGE_ERRORS):
                raise
            raise StorageError(
                f"OUTPUT {self._output.uri} cannot be written: {explain(error)}"
            ) from error
        self._beats = self._clock.every(self._beat_seconds, self._renew, "claim")
        return self

    def __exit__(self, *raised: object) -> None:
        self.release()

    def ask(self) -> None:
        """Ask whether the run still holds OUTPUT: before each change of it.

        A holder whose beats were not acknowledged may have been taken for dead: nothing changes
        until one is.

        Raises:
            OutputConflictError: another run took over, or this one has given OUTPUT back.
            OSError: storage does not answer.
        """
        if self._is_over.is_set():
            raise OutputConflictError(f"run {self.run_id} has given {self._output.uri} back")
        if self._clock.now() - self._acknowledged > MISSED_BEATS * self._beat_seconds:
            self._beat()
        check_held(self._output, self.name)

    @contextlib.contextmanager
    def telling_loss(self) -> Iterator[None]:
        """Within the context, a run that was replaced says so, whatever storage says of its writes.

        Who takes over removes what this run has half written, or written and not committed.

        Raises:
            OutputConflictError: in place of a storage error, when another run took over.
        """
        try:
            yield
        except (StorageError, *STORAGE_ERRORS):
            with contextlib.suppress(*STORAGE_ERRORS):
                check_held(self._output, self.name)
            raise

    def release(self) -> None:
        """Give OUTPUT back, once: whatever of this run still works can change nothing more."""
        self._is_over.set()
        with self._ending:
            if self._beats is not None:
                self._beats.stop()
            try:
                if self.name and not self._is_marked:
                    # Else it is taken over, as from a dead holder.
                    with contextlib.suppress(*STORAGE_ERRORS):
                        self._write({**self._record, "ended": True})
                        self._is_marked = True
            finally:
                holders.end(self.run_id)

    def _take(self) -> None:
        self._refuse_earlier_format()
        seen = None
        while (highest := _highest(self._output)) != seen:
            seen = highest  # watching it may have taken a while: another may have come
            if highest:
                self._refuse_if_alive(self._output / names.CLAIMS / f"{highest}{_SUFFIX}")
        # Seals count as well: a claim may have been removed by hand.
        taken = map(names.epoch_of, (self._output / names.CLAIMS).names())
        self.epoch = max(taken, default=0) + 1
        self.name = names.claim_name(self.epoch, self.run_id)
        holders.begin(self.run_id)
        self._beat()
        # Of those that start at once the highest goes on; the others see it here.
        settling = 2 * self._output.listing_lag
        self._clock.sleep(min(settling, MISSED_BEATS * self._beat_seconds))
        try:
            self.ask()
        except OutputConflictError:
            raise OutputConflictError(
                f"OUTPUT {self._output.uri} was taken by another run that started just now"
            ) from None

    def _refuse_earlier_format(self) -> None:
        lock = self._output / _EARLIER
        if lock.exists():
            self._refuse_if_alive(lock)
            lock.delete()

    def _refuse_if_alive(self, claim: Location) -> None:
        if self._is_alive(claim):
            holder = _read(claim) or {}
            raise OutputConflictError(
                f"OUTPUT {self._output.uri} is being written by {holders.describe(holder)}."
                " Wait for it or stop it"
            )

    def _is_alive(self, claim: Location) -> bool:
        holder = _read(claim)
        if holder is not None and holder.get("ended"):
            return False
        if holder is not None and holders.is_visible(holder):
            return holders.is_running(holder)
        deadline = self._clock.now() + MISSED_BEATS * self._beat_seconds
        while self._clock.now() < deadline:
            self._clock.sleep(self._beat_seconds / 2)
            now = _read(claim)
            if now != holder:
                # One that began to be written just now says who it is by now.
                return now is not None and not now.get("ended")
        return False

    def _renew(self) -> None:
        # Storage may have a bad moment: the next beat tries again.
        with contextlib.suppress(*STORAGE_ERRORS):
            self._beat()

    def _beat(self) -> None:
        began = self._clock.now()
        self._record["beat"] += 1
        self._write(self._record)
        self._acknowledged = max(began, self._acknowledged)

    def _write(self, record: dict[str, Any]) -> None:
        claim = self._output / names.CLAIMS / f"{self.name}{_SUFFIX}"
        claim.write_bytes(json.dumps(record).encode())


def check_held(output: Location, name: str) -> None:
    """Check that a claim is the one that holds an OUTPUT.

    Args:
        output: the OUTPUT.
        name: of the claim.

    Raises:
        OutputConflictError: a later run has made a higher one, or OUTPUT was removed.
        OSError: storage does not answer.
    """
    highest = _highest(output)
    if names.order(highest) < names.order(name):
        # A folder may leave out a file that is replaced just then.
        highest = _highest(output)
    if highest == name:
        return
    run_id = names.run_of(name)
    if names.order(highest) > names.order(name):
        raise OutputConflictError(
            f"run {run_id} no longer holds {output.uri}: run {names.run_of(highest)} took over"
        )
    raise OutputConflictError(f"run {run_id} no longer holds {output.uri}: its claim is gone")


def _highest(output: Location) -> str:
    """Name of the claim that holds an OUTPUT; nothing when there is none."""
    # Beside them lie seals, and half-written ones in a local folder.
    claims = [name for name in (output / names.CLAIMS).names() if name.endswith(_SUFFIX)]
    found = [name.removesuffix(_SUFFIX) for name in claims if names.epoch_of(name)]
    return max(found, key=names.order, default="")


def _read(claim: Location) -> dict[str, Any] | None:
    try:
        record = json.loads(claim.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
