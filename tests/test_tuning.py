"""Tuning: precision is chosen by measurement on a worker, and said in one line."""

import re
from pathlib import Path

import pytest

from job.checkpoint import Checkpoint
from job.config import JobConfig
from job.resources import Cluster, Node, allot
from job.tuning import COMPILE_FROM, choose_precision, worth_compiling

HERE = Cluster((Node(2),))
CONFIG = JobConfig(input="in", output="out")


@pytest.mark.usefixtures("ray_session")
def test_precision_is_measured_where_predictors_run(model_dir: Path) -> None:
    checkpoint = Checkpoint.from_directory(model_dir)
    precision, reason = choose_precision(checkpoint, allot(CONFIG, HERE, 100))
    found = re.search(r"([\d.]+) times as fast", reason)
    assert found
    assert reason.startswith(f"precision {precision}: ")
    assert (precision == "bfloat16") == (float(found[1]) >= 1.15)


def test_compiling_is_for_long_runs_on_gpus() -> None:
    on_cpus = allot(CONFIG, HERE, 10**9)
    on_gpus = allot(CONFIG, Cluster((Node(16, 1),) * 4), 10**9)
    assert not worth_compiling(10**9, on_cpus)
    assert worth_compiling(4 * COMPILE_FROM, on_gpus)
    assert not worth_compiling(4 * COMPILE_FROM - 1, on_gpus)
