"""Stopping by hand, and logs that nobody reads any more: what a person meets in a terminal."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import write_pictures
from tests.end_to_end.processes import (
    can_work,
    finish,
    members,
    outcome,
    short_directory,
    started,
    wait_for,
)
from tests.end_to_end.test_resume import SMALL_STEPS, committed_rows
from tests.outputs import check_each_image_once, live_claims

Command = Callable[..., list[str]]
IMAGES = 200


def test_ctrl_c_says_how_much_is_committed_and_how_to_go_on(
    job_command: Command, tmp_path: Path
) -> None:
    source, output = write_pictures(tmp_path / "in", IMAGES, seed=400), tmp_path / "out"
    with started(job_command(source, output, *SMALL_STEPS, "--workers=1")) as process:
        wait_for(lambda: committed_rows(output), 240, "the first commit")
        process.send_signal(signal.SIGINT)
        finished = outcome(process)
        wait_for(lambda: not any(map(can_work, members(process.pid))), 60, "its Ray to go")
    kept = len(committed_rows(output))
    assert finished.exit_code == 130, finished.stderr
    said = f"stopped: {kept} of {IMAGES} images are committed; the same command goes on"
    assert finished.stderr.splitlines()[-1] == said
    assert "Traceback" not in finished.stderr
    assert 0 < kept < IMAGES
    (receipt,) = [json.loads(path.read_text()) for path in (output / "runs").iterdir()]
    assert (receipt["status"], receipt["maps"]) == ("stopped", kept)
    assert live_claims(output) == []


def test_a_log_that_nobody_reads_any_more_does_not_end_the_work(
    job_command: Command, pictures: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    words = job_command(pictures, output, "--workers=1")
    told, tell = os.pipe()
    with short_directory() as place, os.fdopen(told) as log:
        process = subprocess.Popen(
            words, stdout=tell, stderr=tell, env={**os.environ, "RAY_TMPDIR": str(place)}
        )
        os.close(tell)
        try:
            assert log.readline() == "on Ray started here\n"
            log.close()  # as `head -1` does
            assert process.wait(240) == 0
        finally:
            process.kill()
            process.wait()
    check_each_image_once(output, 24)
    (receipt,) = [json.loads(path.read_text()) for path in (output / "runs").iterdir()]
    assert (receipt["status"], receipt["maps"]) == ("finished", 24)


@pytest.mark.parametrize("redirected", ["> /dev/full 2>&1", ">&- 2>&-", "| true"])
def test_a_log_that_cannot_be_written_leaves_the_exit_code_that_of_the_work(
    job_command: Command, tmp_path: Path, redirected: str
) -> None:
    words = job_command(tmp_path / "nowhere", tmp_path / "out")
    line = f'set -o pipefail; "$@" {redirected}'
    finished = finish(["bash", "-c", line, "bash", *words])
    assert finished.exit_code == 3, "nothing is at INPUT"
    assert "Traceback" not in finished.stderr


def test_a_temporary_directory_too_long_for_sockets_is_named(
    job_command: Command, pictures: Path, tmp_path: Path
) -> None:
    long = f"/tmp/{'x' * 60}"
    finished = finish(job_command(pictures, tmp_path / "out"), {"RAY_TMPDIR": long})
    assert finished.exit_code == 1
    said = finished.stderr.splitlines()[-1]
    assert said.startswith(f"error: Ray's temporary directory {long}/ray (RAY_TMPDIR) is ")
    assert said.endswith("Set RAY_TMPDIR to a short directory with room, such as /tmp")
    assert "Traceback" not in finished.stderr
