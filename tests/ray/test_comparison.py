"""Comparisons: rates that mean something, a table and a chart of them."""

import json
import shutil
from pathlib import Path

import pytest

from job.cli import text
from job.compare.comparison import (
    BASELINE,
    CAREFUL,
    Comparison,
    compare,
)


@pytest.fixture(scope="module")
def compared(
    ray_session: None, pictures: Path, model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Comparison:
    folder = tmp_path_factory.mktemp("few")
    for path in sorted(pictures.glob("*.jpg"))[:5]:
        shutil.copy(path, folder)
    return compare(str(folder), str(model_dir), images=12)


def test_every_architecture_gives_sequential_maps_before_it_is_rated(compared: Comparison) -> None:
    names = [timing.name for timing in compared.timings]
    assert names[0] == "sequential"
    assert {BASELINE, CAREFUL, "this job, float32", "this job, bfloat16"} < set(names)
    ours = [timing.name for timing in compared.timings if timing.is_whole_job]
    assert ours == ["this job, float32", "this job, bfloat16"]
    for timing in compared.timings:
        assert timing.agreement >= (1 - 1e-5 if timing.precision == "float32" else 0.95), (
            timing.name
        )
        assert 0 < timing.first_map <= timing.seconds
        assert timing.steady > 0
        assert timing.peak_memory > 100 << 20
    assert compared.environment["cluster"]["CPU"] == 2
    kept = json.loads(json.dumps(compared.as_dict()))
    assert kept["images"] == 12
    assert "12 images are too few for a steady state" in text.of_comparison(compared)
    assert kept["speedups"][BASELINE] == 1
