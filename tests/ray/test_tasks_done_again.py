"""Tasks that are done again: they make the rows that they made before, whatever failed then."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from job import execution, pipeline
from job.cluster.data_settings import data_settings, quiet_data
from job.cluster.ray_internals import ExecutionCallback
from job.config import JobConfig
from job.errors import ImageError
from job.inputs.listed_files import ListedFiles
from job.rows import Listed
from job.storage.location import Location
from tests.conftest import write_pictures
from tests.end_to_end.apart import load_apart
from tests.outputs import check_each_image_once, check_equal_to_sequential, rows

IMAGES = 16
STEPS = {"images_per_task": 8, "images_per_file": 8, "batch_size": 4, "workers": 1}


class FailsAtFirst(ListedFiles):
    """Files of which one cannot be had at first; one in the batch behind it kills its process.

    Attributes:
        died: a file that is there when that has happened.
    """

    died: Path

    def fetch(self, row: Listed, limit: int | None = None) -> bytes:
        if not self.died.exists():
            if row.uri.endswith("0001.jpg"):
                raise ImageError("fetch_failed", "not at first", retryable=True)
            if row.uri.endswith("0006.jpg"):
                self.died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().fetch(row, limit)


def run(
    config: JobConfig, died: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, tuple[int, int]]:
    """Run on :class:`FailsAtFirst`; returns how many tasks of each stage have ended, and how many
    blocks they have made."""
    made = {}

    class Counting(ExecutionCallback):
        def after_execution_succeeds(self, executor: Any) -> None:
            for stage in executor._topology:
                counts = stage.metrics
                made[stage.name] = counts.num_tasks_finished, counts.num_task_outputs_generated

    @contextmanager
    def counting() -> Iterator[None]:
        with quiet_data(), data_settings(custom_execution_callback_classes=[Counting]):
            yield

    def open_failing(config: JobConfig) -> tuple[FailsAtFirst, Location]:
        source = FailsAtFirst(config.input)
        source.died = died
        return source, opened(config)[1]

    opened = pipeline.open_input_and_output
    monkeypatch.setattr(execution, "quiet_data", counting)
    monkeypatch.setattr(pipeline, "open_input_and_output", open_failing)
    assert pipeline.run(config).message == ""
    del made["Input"]
    return made


@pytest.mark.parametrize("apart", [False, True], ids=["in one", "loaded apart"])
def test_a_task_makes_one_block_whose_rows_are_the_same_when_it_is_done_again(
    ray_session: None,
    model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    apart: bool,
) -> None:
    """Blocks that are cut by their bytes would be cut elsewhere the second time."""
    if apart:
        monkeypatch.setattr(execution, "plan_resources", execution.plan_resources)  # to be put back
        load_apart()
    source, output, died = write_pictures(tmp_path / "in", IMAGES), tmp_path / "out", tmp_path / "x"
    names = {"input": str(source), "output": str(output), "model": str(model_dir)}
    made = run(JobConfig(**names, progress="none", **STEPS), died, monkeypatch)
    assert died.exists()
    stages = ["MapBatches(ScoringWorker)", "MapBatches(AttemptWriter)"]
    if apart:
        stages = ["ReadManifestSource->ImageLoader", *stages, "MapBatches(MapEncoder)"]
    else:
        stages = ["ReadManifestSource", *stages]
    assert made == dict.fromkeys(stages, (2, 2)), "as many blocks as tasks"
    check_each_image_once(output, IMAGES)
    check_equal_to_sequential(output, model_dir)
    assert len(rows(output, "maps")) == IMAGES, "it could be had in the end"
