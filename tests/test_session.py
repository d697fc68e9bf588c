"""The session: what Ray would tell a driver stays in Ray's log files."""

import time

import pytest
import ray
from ray._private.utils import publish_error_to_driver

from job.session import cluster_session


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
    worker = ray._private.worker.global_worker
    publish_error_to_driver("too_many", message, worker.gcs_client, worker.current_job_id)


def heard(capfd: pytest.CaptureFixture[str], words: str, seconds: float) -> bool:
    """Whether words come on standard output: what is told afterwards shows that telling works."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if words in capfd.readouterr().out:
            return True
        time.sleep(0.1)
    return False
