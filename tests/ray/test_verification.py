"""Verification of what runs on a real Ray have left; tests/unit has the damages."""

from pathlib import Path
from typing import Any

import pytest

from job import pipeline
from job.config import JobConfig
from job.outputs.receipts import Receipt
from job.results.verification import verify
from job.storage.opening import locate
from tests.conftest import write_pictures

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def finished(ray_session: None, model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OUTPUT of twelve maps and one error row, and its input beside it."""
    place = tmp_path_factory.mktemp("verified")
    source = write_pictures(place / "in", 12)
    (source / "zero.jpg").write_bytes(b"")
    run(place, model_dir)
    return place


def run(place: Path, model: Path, **options: Any) -> Receipt:
    source, output = str(place / "in"), str(place / "out")
    config = JobConfig(
        input=source, output=output, model=str(model), progress="none", images_per_file=5, **options
    )
    return pipeline.run(config)


def test_the_output_of_a_run_is_complete(finished: Path) -> None:
    verdict = verify(locate(str(finished / "out")), deep=True)
    assert verdict.is_complete, verdict.problems
    assert not verdict.notes
    assert (verdict.images, verdict.maps, verdict.open_errors, verdict.not_done) == (13, 12, 1, 0)


def test_retried_image_that_succeeds_leaves_no_open_error(finished: Path, model_dir: Path) -> None:
    good = (finished / "in" / "picture-0000.jpg").read_bytes()
    (finished / "in" / "zero.jpg").write_bytes(good)
    assert run(finished, model_dir, retry_errors="retryable").remaining == 0, "it is not retryable"
    assert run(finished, model_dir, retry_errors="all").maps == 1
    verdict = verify(locate(str(finished / "out")), deep=True)
    assert verdict.is_complete, verdict.problems
    assert (verdict.maps, verdict.open_errors) == (13, 0)
