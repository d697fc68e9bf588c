"""The session: Ray's own lines stay in its log files, and a stopped process ends as it should."""

import sys
import time
from typing import Any

import pytest
import ray
from ray._private.utils import publish_error_to_driver

from job.cluster.session import cluster_session
from job.errors import StoppedError
from tests.end_to_end.processes import members, outcome, started, wait_for

# A run that is stopped while threads of its process ask Ray for one thing after the other.
STOPPED = """
import threading, time, ray
from job.errors import StoppedError
from job.cluster.session import cluster_session, end_process

def slow(row):
    time.sleep(0.05)
    return row

def ask():
    while True:
        ray.available_resources()
        ray.put(1)

try:
    with cluster_session():
        rows = ray.data.range(1000, override_num_blocks=100).map(slow).iter_rows()
        next(iter(rows))
        threading.Thread(target=ask, daemon=True).start()
        raise StoppedError("stopped")
except StoppedError as error:
    end_process(error.exit_code)
"""


def test_a_stopped_process_ends_with_its_own_exit_code_and_takes_its_ray_along() -> None:
    with started([sys.executable, "-c", STOPPED]) as process:
        ended = outcome(process)
        assert ended.exit_code == StoppedError.exit_code, ended.stderr
        wait_for(lambda: not members(process.pid), 10, "its Ray to go")


@pytest.mark.usefixtures("ray_session")
def test_what_a_raylet_tells_drivers_is_not_on_standard_output(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with cluster_session():
        publish("12 processes have been started")
        time.sleep(2)
    assert capfd.readouterr().out == ""
    publish("heard again")
    assert heard(capfd, "heard again", 30)


def publish(message: str) -> None:
    worker: Any = ray._private.worker.global_worker
    publish_error_to_driver("too_many", message, worker.gcs_client, worker.current_job_id)


def heard(capfd: pytest.CaptureFixture[str], words: str, seconds: float) -> bool:
    """Whether words come on standard output: what is told afterwards shows that telling works."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if words in capfd.readouterr().out:
            return True
        time.sleep(0.1)
    return False
