"""Holders: the process behind a claim, and whether it is gone for certain."""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Ids of the runs of this process that hold an OUTPUT.
_holding: set[str] = set()


def begin(run_id: str) -> None:
    """A run of this process begins to hold an OUTPUT."""
    _holding.add(run_id)


def end(run_id: str) -> None:
    """A run of this process holds it no more, whether or not its claim could be marked."""
    _holding.discard(run_id)


def describe_this_process() -> dict[str, Any]:
    """What a claim says of the process that makes it."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process": _process_identity(os.getpid()),
        "namespace": _pid_namespace(),
        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def is_visible(holder: Mapping[str, Any]) -> bool:
    """Whether a holder's process would be found from here: same machine, same container.

    Names of hosts do not tell: containers on one network have the same, and so may machines.
    """
    boot, namespace = _boot_of(holder), holder.get("namespace")
    if not boot or not namespace:  # a system without /proc, where nothing tells
        return False
    is_same = boot == _boot_id() and namespace == _pid_namespace()
    return is_same and not _is_hidden(_pid_of(holder))


def is_running(holder: Mapping[str, Any]) -> bool:
    """Whether a holder's process runs, and still holds; only of one that :func:`is_visible`."""
    pid = _pid_of(holder)
    process = _process_identity(pid)
    if process is None or holder.get("process") != process:
        return False
    return pid != os.getpid() or holder.get("run_id") in _holding


def describe(holder: Mapping[str, Any]) -> str:
    """A holder in words."""
    return (
        f"run {holder.get('run_id')} on {holder.get('host')} (process {holder.get('pid')})"
        f" since {holder.get('since')}"
    )


def _pid_of(holder: Mapping[str, Any]) -> int:
    pid = holder.get("pid")
    return pid if isinstance(pid, int) else 0


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


def _boot_of(holder: Mapping[str, Any]) -> str:
    """The machine that a holder runs on, and since when: the boot id in its process's identity."""
    boot, colon, _ = str(holder.get("process") or "").partition(":")
    return boot if colon else ""


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _process_identity(pid: int) -> str | None:
    """A process and when it was started, so that a reused number is not taken for it."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    zombie, started = status[0] == "Z", status[19]
    return None if zombie else f"{_boot_id()}:{pid}:{started}"
