"""Temporary directory: the directory where a Ray of this machine keeps its sockets and logs."""

import errno
import os
import tempfile
from pathlib import Path

from job.cluster.ray_internals import find_temporary_directory
from job.errors import JobError

# What Ray adds to the directory for its longest socket, and what a socket's path may have
# (`man 7 unix`).
_SESSION = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
_LONGEST = 107
_WAY_OUT = "Set RAY_TMPDIR to a short directory with room, such as /tmp"


def check() -> None:
    """Refuse a directory in which Ray could not start.

    Raises:
        JobError: it says which, why, and which variable names it.
    """
    found = find_temporary_directory()
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "/tmp")
    what = f"Ray's temporary directory {found} ({name})"
    excess = len(os.fsencode(found + _SESSION)) - _LONGEST
    if excess > 0:
        raise JobError(
            f"{what} is {excess} characters too long: paths of Ray's sockets in it would have more"
            f" than {_LONGEST}. {_WAY_OUT}"
        )
    try:
        Path(found).mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=found) as file:
            file.write(bytes(2**20))  # a file system that is full takes an empty file
    except OSError as error:
        raise JobError(f"{what} cannot be written: {_reason(error)}. {_WAY_OUT}") from error


def explain(error: BaseException) -> str | None:
    """What an error of Ray's start means that has to do with this directory or with memory."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and "AF_UNIX" in text:
        return f"the paths of its sockets would be too long ({text}). {_WAY_OUT}"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{_reason(error)}. {_WAY_OUT}"
    if "object store" in text.lower() or "/dev/shm" in text:
        return f"{text}. Give /dev/shm more room (docker run --shm-size)"
    return None


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "no space is left on it"
    return f"{error.strerror or error} ({error.filename})" if error.filename else str(error)
