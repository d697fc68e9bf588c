"""Tuning: precision is chosen by measurement on a worker, and said in one line."""

import platform
from pathlib import Path

import pytest
import torch

from job.cluster.resources import Cluster, Node, plan_resources
from job.config import JobConfig
from job.errors import ModelError
from job.models.checkpoint import Checkpoint
from job.models.loading import on_device
from job.predict.precision import (
    COMPILE_FROM,
    _seconds_by_precision,
    worth_compiling,
)

HERE = Cluster((Node(2),))


CONFIG = JobConfig(input="in", output="out")


def test_compiling_is_for_long_runs_on_gpus() -> None:
    on_cpus = plan_resources(CONFIG, HERE, 10**9)
    on_gpus = plan_resources(CONFIG, Cluster((Node(16, 1),) * 4), 10**9)
    assert not worth_compiling(10**9, on_cpus)
    assert worth_compiling(4 * COMPILE_FROM, on_gpus)
    assert not worth_compiling(4 * COMPILE_FROM - 1, on_gpus)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a torch that sees no GPU")
def test_a_gpu_that_torch_does_not_see_is_named_with_its_machine(model_dir: Path) -> None:
    with pytest.raises(ModelError, match=rf"sees none on {platform.node()}\. Give the workers"):
        _seconds_by_precision(Checkpoint.from_directory(model_dir), True, 1)


def test_a_gpu_that_does_not_take_the_model_is_named_likewise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Model:
        def to(self, device: str) -> None:
            raise RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ModelError) as refused:
        on_device(Model(), True)
    assert str(refused.value).startswith(
        f"the model cannot be put on the GPU of {platform.node()}: CUDA error: out of memory. Free"
    )
