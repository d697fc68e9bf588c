"""Lock: who writes to an OUTPUT now; at most one run at a time, and a dead one gives way."""

import contextlib
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from job.errors import OutputConflictError, StoppedError, StorageError
from job.storage.location import Location
from job.storage.refusals import STORAGE_ERRORS, explain

BEAT_SECONDS = 5.0
# A holder on another machine that misses this many beats in a row is dead.
_MISSED_BEATS = 3


class OutputLock:
    """Holds ``OUTPUT/lock.json`` while a run goes on, as a context.

    The holder renews it every few seconds. A holder whose process is gone from this machine, or one
    elsewhere that no longer renews, is dead, and its lock is taken over. Elsewhere is any other
    machine, whatever its name, and any other container: only who sees the same processes can tell
    that one is gone. Writers check :func:`is_held` before they write and before they commit, so
    that what a dead run left running cannot commit behind the next run's back.

    Args:
        output: the run's OUTPUT.
        run_id: the name by which writers know the holder.
        beat_seconds: seconds between renewals.

    Raises:
        OutputConflictError: another run holds it; says who and since when.
        StorageError: OUTPUT cannot be written.
    """

    def __init__(self, output: Location, run_id: str, beat_seconds: float = BEAT_SECONDS) -> None:
        self._output = output
        self._file = output / "lock.json"
        self._beat_seconds = beat_seconds
        self._stop = threading.Event()
        self._record: dict[str, Any] = {
            "run_id": run_id,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process": _process_identity(os.getpid()),
            "namespace": _pid_namespace(),
            "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "beat": 0,
        }
        self._thread = threading.Thread(target=self._renew, daemon=True, name="lock")

    def __enter__(self) -> "OutputLock":
        try:
            self._take()
        except StoppedError:
            self.release()
            raise
        except STORAGE_ERRORS as error:
            raise StorageError(
                f"OUTPUT {self._output.uri} cannot be written: {explain(error)}"
            ) from error
        self._thread.start()
        return self

    def _take(self) -> None:
        holder = _read(self._file)
        if holder is not None and self._is_alive(holder):
            raise OutputConflictError(
                f"OUTPUT {self._output.uri} is being written by run {holder.get('run_id')} on"
                f" {holder.get('host')} (process {holder.get('pid')}) since {holder.get('since')}."
                " Wait for it or stop it"
            )
        self._write()
        if holder is not None or not self._output.is_local:
            # Of two that start at once the last to write wins; the other sees it here.
            time.sleep(min(1.0, self._beat_seconds))
        if not is_held(self._output, self._record["run_id"]):
            raise OutputConflictError(
                f"OUTPUT {self._output.uri} was taken by another run that started just now"
            )

    def __exit__(self, *raised: object) -> None:
        self.release()

    def release(self) -> None:
        """Give the OUTPUT back, once: whatever of this run still works can commit nothing more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        with contextlib.suppress(*STORAGE_ERRORS):  # else it is taken over, as from a dead holder
            if is_held(self._output, self._record["run_id"]):
                self._file.delete()

    def _renew(self) -> None:
        while not self._stop.wait(self._beat_seconds):
            self._record["beat"] += 1
            try:
                if not is_held(self._output, self._record["run_id"]):
                    return
                self._write()
            except STORAGE_ERRORS:
                continue  # storage has a bad moment; the next beat tries again

    def _write(self) -> None:
        self._file.write_bytes(json.dumps(self._record).encode())

    def _is_alive(self, holder: dict[str, Any]) -> bool:
        if self._sees(holder):
            return holder.get("process") == _process_identity(int(holder.get("pid", 0)))
        deadline = time.monotonic() + _MISSED_BEATS * self._beat_seconds
        while time.monotonic() < deadline:
            time.sleep(self._beat_seconds / 2)
            now = _read(self._file)
            if now is None:
                return False
            if now != holder:
                return True
        return False

    def _sees(self, holder: dict[str, Any]) -> bool:
        """Whether the holder's process would be found from here: same machine, same container.

        Names of hosts do not tell: containers on one network have the same, and so may machines.
        """
        boot, namespace = _boot_of(holder), holder.get("namespace")
        if boot and namespace:
            is_same = boot == _boot_of(self._record) and namespace == self._record["namespace"]
            return is_same and not _is_hidden(int(holder.get("pid", 0)))
        # Neither has /proc; nothing tells containers apart, and there are none on such systems.
        return (
            not Path("/proc/self").exists()
            and not boot
            and holder.get("host") == self._record["host"]
        )


def is_held(output: Location, run_id: str) -> bool:
    """Whether this run still holds the OUTPUT."""
    holder = _read(output / "lock.json")
    return holder is not None and holder.get("run_id") == run_id


def _read(file: Location) -> dict[str, Any] | None:
    try:
        record = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _pid_namespace() -> str | None:
    """Names the set of processes that this one sees, ``pid:[4026531836]``; unique on a machine."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _is_hidden(pid: int) -> bool:
    """Whether it is another user's process that /proc does not show (its mount option hidepid)."""
    if Path(f"/proc/{pid}/stat").exists():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _boot_of(holder: dict[str, Any]) -> str:
    """The machine that a holder runs on, and since when: the boot id in its process's identity."""
    boot, colon, _ = str(holder.get("process") or "").partition(":")
    return boot if colon else ""


def _process_identity(pid: int) -> str | None:
    """A process and when it was started, so that a reused number is not taken for it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _process_identity_without_proc(pid)
    zombie, started = status[0] == "Z", status[19]
    return None if zombie else f"{boot}:{pid}:{started}"


def _process_identity_without_proc(pid: int) -> str | None:
    if Path("/proc/self").exists():
        return None
    try:
        os.kill(pid, 0)
    except OSError:
        return None
    return str(pid)
