"""Processes, nodes and images that die in the middle of a run: the run goes on and ends well."""

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from job.results import verification
from job.storage.opening import locate
from tests.conftest import write_pictures
from tests.end_to_end.poisoned import CRASH, HANG
from tests.end_to_end.processes import finish, members, outcome, started, wait_for, worker_nodes
from tests.outputs import check_each_image_once, check_equal_to_sequential, rows

Command = Callable[..., list[str]]
IMAGES = 72
SMALL_STEPS = ("--images-per-file=8", "--images-per-task=4", "--batch-size=4")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures."""
    return write_pictures(tmp_path_factory.mktemp("many"), IMAGES, seed=500)


def workers(session: int, kind: str) -> list[int]:
    """Ray's workers that do a kind of work now, by how Ray names their processes."""
    found = []
    for process in members(session):
        try:
            command = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if re.match(kind, command):
            found.append(process)
    return found


def kill_one(session: int, kind: str) -> None:
    """Kill -9 one worker, as soon as there is one."""
    victims: list[int] = []

    def found() -> list[int]:
        victims.extend(workers(session, kind))
        return victims

    wait_for(found, 120, kind, every=0.01)
    os.kill(victims[0], signal.SIGKILL)


def check_nothing_lost(
    words: list[str], output: Path, model_dir: Path, kill: Callable[[int], None]
) -> None:
    """A run in whose midst something is killed has the maps that it would have had."""
    with started(words) as process:
        kill(process.pid)
        finished = outcome(process)
    assert finished.exit_code == 0, finished.stderr
    assert f"{IMAGES} maps of {IMAGES} images" in finished.stdout
    assert "Traceback" not in finished.stderr
    check_each_image_once(output, IMAGES)
    check_equal_to_sequential(output, model_dir)


def test_killed_predictors_cost_nothing(
    job_command: Command, many: Path, model_dir: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"

    def kill(session: int) -> None:
        kill_one(session, r"ray::MapWorker")
        wait_for(lambda: any(output.glob("maps/*.parquet")), 120, "the first maps", every=0.01)
        kill_one(session, r"ray::MapWorker")

    check_nothing_lost(job_command(many, output, *SMALL_STEPS), output, model_dir, kill)


def test_killed_predictor_and_killed_decoder_of_their_own_cost_nothing(
    job_command: Command, many: Path, model_dir: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    words = [
        "tests.end_to_end.apart" if word == "job" else word
        for word in job_command(many, output, *SMALL_STEPS)
    ]

    def kill(session: int) -> None:
        kill_one(session, r"ray::ReadManifest")
        wait_for(lambda: any(output.glob("maps/*.parquet")), 120, "the first maps", every=0.01)
        kill_one(session, r"ray::MapWorker")

    check_nothing_lost(words, output, model_dir, kill)


def test_killed_node_costs_nothing(
    job_command: Command, many: Path, model_dir: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    words = job_command(many, output, *SMALL_STEPS, "--workers=1")
    with (
        worker_nodes(1, 1) as cluster,
        started(words, {"RAY_ADDRESS": cluster["address"]}) as process,
    ):
        wait_for(lambda: any(output.glob("maps/*.parquet")), 120, "the first maps", every=0.01)
        os.kill(int(cluster["raylet"]), signal.SIGKILL)
        finished = outcome(process, timeout=240)
    assert finished.exit_code == 0, finished.stderr
    assert f"{IMAGES} maps of {IMAGES} images" in finished.stdout
    check_each_image_once(output, IMAGES)
    check_equal_to_sequential(output, model_dir)
    assert verification.verify(locate(str(output)), deep=True).is_complete


@pytest.mark.parametrize("apart", [False, True], ids=["in one", "loaded apart"])
def test_image_that_crashes_or_hangs_its_process_becomes_a_row(
    apart: bool, many: Path, model_dir: Path, tmp_path: Path
) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for path in sorted(many.iterdir())[:12]:
        shutil.copy(path, source)
    bad = {
        "a-crash.jpg": ("decode", "crashed"),
        "b-crash.jpg": ("decode", "crashed"),
        "c-hang.jpg": ("decode", "timed_out"),
        "zzz-black.png": ("predict", "crashed"),
    }
    for name in ("a-crash.jpg", "b-crash.jpg"):
        (source / name).write_bytes(CRASH)
    (source / "c-hang.jpg").write_bytes(HANG)
    Image.new("RGB", (64, 48)).save(source / "zzz-black.png")

    options = ("--image-timeout=4", "--max-error-rate=0.5", *SMALL_STEPS)
    words = ["run", str(source), str(output), "--model", str(model_dir), *options]
    poisoned = [sys.executable, "-m", "tests.end_to_end.poisoned", *words]
    finished = finish(poisoned, {"LOADS_APART": "1"} if apart else None, timeout=300)

    assert finished.exit_code == 0, finished.stderr
    assert "12 maps of 16 images" in finished.stdout
    assert "errors  4: 3 crashed, 1 timed out" in finished.stdout
    assert re.search(r"decode of \S+/c-hang\.jpg took longer than 4 s: given up", finished.stderr)
    errors = rows(output, "errors")
    assert {Path(row["uri"]).name: (row["stage"], row["error_type"]) for row in errors} == bad
    check_each_image_once(output, 16)
    check_equal_to_sequential(output, model_dir)
