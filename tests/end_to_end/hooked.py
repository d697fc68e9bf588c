"""The job on a cluster that is there, in whose workers something of it is changed."""

import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import ray

# Names the folder by which a test and what is changed tell each other where they are.
_NOTES = "NOTES"


def run_hooked(hook: Callable[[], None]) -> int:
    """Run the job's command line on the cluster of ``RAY_ADDRESS``.

    Args:
        hook: called in each worker process as it starts.
    """
    from job.cli.main import main

    # Workers run the hook before they know where this process has its modules from.
    found = {"PYTHONPATH": str(Path(__file__).parents[2]), _NOTES: os.environ[_NOTES]}
    ray.init(
        address=os.environ["RAY_ADDRESS"],
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"worker_process_setup_hook": hook, "env_vars": found},
    )
    return main(sys.argv[1:])


def note(name: str) -> Path:
    """A file in the folder of notes."""
    return Path(os.environ[_NOTES]) / name


def wait_for_note(name: str) -> None:
    """Wait until the test has written a note."""
    while not note(name).exists():
        time.sleep(0.01)
