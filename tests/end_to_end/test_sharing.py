"""Clusters that others use too, or that have to grow: a run goes on, or says what it lacks."""

import json
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import write_pictures
from tests.end_to_end.autoscaling_cluster import autoscaling_head
from tests.end_to_end.processes import (
    Finished,
    finish,
    outcome,
    started,
    wait_for,
    worker_nodes,
)
from tests.outputs import check_each_image_once, check_equal_to_sequential, live_claims

Command = Callable[..., list[str]]
IMAGES = 36


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures."""
    return write_pictures(tmp_path_factory.mktemp("some"), IMAGES, seed=900)


@pytest.fixture(scope="module")
def two_cpus(warm: dict[str, str]) -> str:
    """The address of a cluster with two CPUs on one node, which each test leaves free."""
    return warm["RAY_ADDRESS"]


# An application that holds CPUs, and says when it does
HOLDER = """
import sys, signal, ray
ray.init(address="auto", log_to_driver=False)
@ray.remote(num_cpus=float(sys.argv[1]))
class Holder:
    def here(self): pass
holder = Holder.remote()
ray.get(holder.here.remote())
print("here", flush=True)
signal.pause()
"""


@contextmanager
def another_application(address: str, cpus: float) -> Iterator[None]:
    """Within the context, an application on the same cluster holds some of its CPUs."""
    words = [sys.executable, "-c", HOLDER, str(cpus)]
    with started(words, {"RAY_ADDRESS": address}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        yield


def test_three_jobs_at_once_on_two_cpus_all_finish(
    job_command: Command, some: Path, model_dir: Path, tmp_path: Path, two_cpus: str
) -> None:
    with ExitStack() as stack:
        env = {"RAY_ADDRESS": two_cpus}
        outputs = [tmp_path / f"out-{number}" for number in range(3)]
        jobs = [stack.enter_context(started(job_command(some, o), env)) for o in outputs]
        ended = [outcome(job, timeout=400) for job in jobs]
    for finished, output in zip(ended, outputs, strict=True):
        assert finished.exit_code == 0, finished.stderr
        assert f"{IMAGES} maps of {IMAGES} images" in finished.stdout
        check_each_image_once(output, IMAGES)
    said = "".join(finished.stderr for finished in ended)
    assert re.search(
        r"waiting for workers: 0 of 2 here \(1 CPU each\); free now: 0 of 2 CPUs", said
    )
    check_equal_to_sequential(outputs[-1], model_dir)


@dataclass(frozen=True)
class Crowded:
    """Two runs at once on a cluster whose CPUs another application holds.

    Attributes:
        output: of the run that waits for a worker no longer than it was told.
        refused: how that run ended.
        took: the seconds until then.
        stopped_output: of the run that is told to stop while it waits.
        stopped: how that run ended.
    """

    output: Path
    refused: Finished
    took: float
    stopped_output: Path
    stopped: Finished


@pytest.fixture(scope="module")
def crowded(
    two_cpus: str, some: Path, model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Crowded:
    """Both runs, to their ends."""
    place = tmp_path_factory.mktemp("crowded")
    output, stopped_output = place / "none", place / "stopped"
    env = {"RAY_ADDRESS": two_cpus}

    def run(output: Path, option: str) -> list[str]:
        words = [sys.executable, "-m", "job", "run", str(some), str(output)]
        return [*words, "--model", str(model_dir), option]

    with another_application(two_cpus, 2):
        begun = time.monotonic()
        with (
            started(run(output, "--worker-timeout=8"), env) as waits,
            started(run(stopped_output, "--stop-grace=1"), env) as job,
        ):
            receipts = stopped_output / "runs"
            wait_for(lambda: receipts.exists() and any(receipts.iterdir()), 120, "the receipt")
            job.send_signal(signal.SIGTERM)
            stopped = outcome(job, timeout=60)
            refused = outcome(waits, timeout=120)
            took = time.monotonic() - begun
    return Crowded(output, refused, took, stopped_output, stopped)


def test_a_job_goes_on_with_what_another_application_has_left(
    job_command: Command, some: Path, tmp_path: Path, two_cpus: str
) -> None:
    with another_application(two_cpus, 1):
        small = ("--images-per-task=2", "--images-per-file=4")
        words = job_command(some, tmp_path / "half", *small)
        finished = finish(words, {"RAY_ADDRESS": two_cpus}, timeout=300)
    assert finished.exit_code == 0, finished.stderr
    assert f"{IMAGES} maps of {IMAGES} images" in finished.stdout


def test_a_job_says_when_another_application_leaves_nothing_and_goes_on_later(
    job_command: Command, some: Path, two_cpus: str, crowded: Crowded
) -> None:
    resumed = finish(job_command(some, crowded.output), {"RAY_ADDRESS": two_cpus}, timeout=300)
    refused = crowded.refused
    assert refused.exit_code == 1
    last = refused.stderr.splitlines()[-1]
    assert last.startswith("error: no worker came within 8 s (--worker-timeout): 0 of 2 here")
    assert "(1 CPU each); free now: 0 of 2 CPUs" in last
    assert "Traceback" not in refused.stderr
    assert crowded.took < 60
    (receipt,) = [json.loads(path.read_text()) for path in (crowded.output / "runs").iterdir()][:1]
    assert receipt["status"] in ("failed", "finished")
    assert resumed.exit_code == 0, resumed.stderr
    check_each_image_once(crowded.output, IMAGES)


def test_a_wait_can_be_stopped(crowded: Crowded) -> None:
    assert crowded.stopped.exit_code == 130
    assert "stopped: " in crowded.stopped.stderr
    assert live_claims(crowded.stopped_output) == []


def test_what_no_single_node_has_is_refused_also_by_plan(
    job_command: Command, some: Path, tmp_path: Path
) -> None:
    with worker_nodes(1, 1, gpus=1) as cluster:
        env = {"RAY_ADDRESS": cluster["address"]}
        run = job_command(some, tmp_path / "out")
        plan = [*run[:3], "plan", *run[4:]]
        for words in (run, plan):
            refused = finish([*words, "--gpus-per-worker=2"], env)
            assert refused.exit_code == 2
            assert "--gpus-per-worker 2: a predictor has to fit on one node" in refused.stderr
            assert "the largest node has 1 GPU, 1 CPU, and it adds none by itself" in refused.stderr
            assert "Traceback" not in refused.stderr
        # The likeliest first failure on a real cluster: a GPU that torch does not see.
        blind = finish(run, env)
    assert blind.exit_code == 4, blind.stderr
    last = blind.stderr.splitlines()[-1]
    assert re.fullmatch(
        r"error: a GPU was asked for, but torch \S+ sees none on \S+\. Give the workers a GPU, a"
        r" driver that is new enough and a CUDA build of torch, or use --gpus-per-worker 0",
        last,
    )
    assert "Traceback" not in blind.stderr
    assert "UDF" not in blind.stderr


@pytest.mark.parametrize("version", [1, 2])
def test_a_sleeping_cluster_wakes_up_makes_maps_and_goes_back_to_sleep(
    version: int, job_command: Command, some: Path, model_dir: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with autoscaling_head({"worker": ({"CPU": 1}, 2)}, version=version) as head:
        env = {"RAY_ADDRESS": head.address, "RAY_AUTH_MODE": "disabled"}
        run = job_command(some, output)
        planned = finish([*run[:3], "plan", *run[4:]], env)
        assert planned.exit_code == 0, planned.stderr
        assert "no node that takes tasks is up; may grow to 2 nodes: at most 2" in planned.stdout
        assert "up to 2 predictors with 1 thread each" in planned.stdout

        finished = finish(run, env, timeout=300)
        assert finished.exit_code == 0, finished.stderr
        assert f"{IMAGES} maps of {IMAGES} images" in finished.stdout
        assert "waiting for workers: 0 of 2 here (1 CPU each)" in finished.stderr
        check_each_image_once(output, IMAGES)
        check_equal_to_sequential(output, model_dir)

        monitor = head.logs / "monitor.log"
        log = monitor.read_text()
        wait_for(
            lambda: len(re.findall(r"[Tt]erminat\w+ node", monitor.read_text())) >= 2,
            120,
            f"the nodes to go: {log[-2000:]}",
            every=1,
        )


def test_gpus_that_a_cluster_may_add_are_asked_for_and_waited_for(
    job_command: Command, some: Path, tmp_path: Path
) -> None:
    types = {"cpu": ({"CPU": 1}, 1), "gpu": ({"CPU": 1, "GPU": 1}, 2)}
    with autoscaling_head(types) as head:
        env = {"RAY_ADDRESS": head.address, "RAY_AUTH_MODE": "disabled"}
        run = job_command(some, tmp_path / "out", "--workers=2")
        refused = finish([*run, "--gpus-per-worker=2"], env)
        assert refused.exit_code == 2
        assert "the largest node has 1 GPU, 1 CPU, no node that it may add has more" in (
            refused.stderr
        )
        blind = finish(run, env, timeout=240)
    assert "up to 2 predictors with 1 GPU each" in blind.stderr
    assert blind.exit_code == 4, "the node came, and torch saw no GPU there"
    assert "a GPU was asked for, but torch" in blind.stderr.splitlines()[-1]
