"""The job as if on a machine of its own: ``python -m tests.end_to_end.elsewhere run …``.

Nobody sees its process, so others judge it by its beats, which come twice a second. With a note
``pause`` it pauses in the worst moment: a worker has asked whether the run holds OUTPUT and has
still to write, and its own process has asked and is in the midst of writing a commit record.
"""

import os
import signal
import sys
from functools import partial
from typing import Any

from tests.end_to_end.hooked import note, run_hooked, wait_for_note

# The commit in whose midst the run pauses.
PAUSES_IN = "-000002.parquet"


def move_away() -> None:
    """Have this process seen by nobody else."""
    from job import pipeline
    from job.outputs import holders

    boot_id = f"machine-of-{os.getpid()}"
    holders._boot_id = lambda: boot_id
    patched: Any = pipeline
    patched.OutputClaim = partial(pipeline.OutputClaim, beat_seconds=0.5)


def pause_in_a_commit() -> None:
    """Have this process stop when a record is written and not yet in its place."""
    replace = os.replace

    def pause_and_replace(source: str, target: str) -> None:
        if "/commits/" in target and target.endswith(PAUSES_IN):
            note("hold").touch()
            wait_for_note("held")
            note("paused").touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        replace(source, target)

    os.replace = pause_and_replace  # type: ignore[assignment]


def write_late() -> None:
    """Have this worker process be slow to write, from a moment on."""
    from job.outputs import attempts

    write = attempts._write

    def wait_and_write(*arguments: Any) -> Any:
        if note("hold").exists():
            note("held").touch()
            wait_for_note("go")
        return write(*arguments)

    attempts._write = wait_and_write  # type: ignore[assignment]


if __name__ == "__main__":
    move_away()
    if note("pause").exists():
        pause_in_a_commit()
    sys.exit(run_hooked(write_late))
