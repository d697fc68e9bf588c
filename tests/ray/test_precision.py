"""Tuning: precision is chosen by measurement on a worker, and said in one line."""

import re
from pathlib import Path

import pytest

from job.cluster.resources import plan_resources
from job.models.checkpoint import Checkpoint
from job.predict.precision import (
    choose_precision,
)
from tests.unit.test_precision import CONFIG, HERE


@pytest.mark.usefixtures("ray_session")
def test_precision_is_measured_where_predictors_run(model_dir: Path) -> None:
    checkpoint = Checkpoint.from_directory(model_dir)
    precision, reason = choose_precision(checkpoint, plan_resources(CONFIG, HERE, 100))
    found = re.search(r"([\d.]+) times as fast", reason)
    assert found
    assert reason.startswith(f"precision {precision}: ")
    assert (precision == "bfloat16") == (float(found[1]) >= 1.15)
