"""Tasks that are done again: they make the rows that they made before, whatever failed then."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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
        notes: a folder for what has happened: ``block``, one has left a predictor; ``died``.
        waits: whether the process dies only when a block has left a predictor.
    """

    notes: Path
    waits: bool

    def fetch(self, row: Listed, limit: int | None = None) -> bytes:
        if not (self.notes / "died").exists():
            if row.uri.endswith("0001.jpg"):
                raise ImageError("fetch_failed", "not at first", retryable=True)
            if row.uri.endswith("0006.jpg"):
                while self.waits and not (self.notes / "block").exists():
                    time.sleep(0.01)
                (self.notes / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().fetch(row, limit)


@dataclass
class Disturbed:
    """A run of two tasks, each of two batches, in which :class:`FailsAtFirst` has its way.

    Attributes:
        config: the options.
        notes: see :class:`FailsAtFirst`.
        monkeypatch: undoes what is changed here.
        blocks: of each stage, the tasks that have ended and the blocks that they have made.
    """

    config: JobConfig
    notes: Path
    monkeypatch: pytest.MonkeyPatch
    blocks: dict[str, tuple[int, int]] = field(default_factory=dict)

    def run(self, block_size: int | None = None) -> None:
        """Run it.

        Args:
            block_size: bytes at which a task's rows are cut into blocks, as Ray does by default.
        """
        disturbed = self

        class Looking(ExecutionCallback):
            def on_execution_step(self, executor: Any) -> None:
                disturbed.look(executor)

            def after_execution_succeeds(self, executor: Any) -> None:
                disturbed.look(executor)

        @contextmanager
        def settings() -> Iterator[None]:
            cut = {} if block_size is None else {"target_max_block_size": block_size}
            looks = {"custom_execution_callback_classes": [Looking]}
            with quiet_data(), data_settings(**cut, **looks):
                yield

        def open_failing(config: JobConfig) -> tuple[FailsAtFirst, Location]:
            source = FailsAtFirst(config.input)
            source.notes, source.waits = disturbed.notes, block_size is not None
            return source, opened(config)[1]

        opened = pipeline.open_input_and_output
        with self.monkeypatch.context() as patch:
            patch.setattr(execution, "quiet_data", settings)
            patch.setattr(pipeline, "open_input_and_output", open_failing)
            pipeline.run(self.config)

    def look(self, executor: Any) -> None:
        """See what Ray Data executes; called by its own loop."""
        for stage in executor._topology:
            made = stage.metrics.num_task_outputs_generated
            self.blocks[stage.name] = stage.metrics.num_tasks_finished, made
            if "ScoringWorker" in stage.name and made:
                (self.notes / "block").touch()

    @property
    def receipt(self) -> dict[str, Any]:
        """Of the first run."""
        path = min(Path(self.config.output, "runs").iterdir())
        receipt: dict[str, Any] = json.loads(path.read_text())
        return receipt


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures."""
    return write_pictures(tmp_path_factory.mktemp("some"), IMAGES)


@pytest.fixture
def disturbed(
    ray_session: None,
    some: Path,
    model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Disturbed:
    (tmp_path / "notes").mkdir()
    config = JobConfig(
        input=str(some),
        output=str(tmp_path / "out"),
        model=str(model_dir),
        progress="none",
        **STEPS,
    )
    return Disturbed(config, tmp_path / "notes", monkeypatch)


@pytest.mark.parametrize("apart", [False, True], ids=["in one", "loaded apart"])
def test_a_task_makes_one_block_whose_rows_are_the_same_when_it_is_done_again(
    disturbed: Disturbed, model_dir: Path, monkeypatch: pytest.MonkeyPatch, apart: bool
) -> None:
    if apart:
        monkeypatch.setattr(execution, "plan_resources", execution.plan_resources)  # put back
        load_apart()
    disturbed.run()
    assert (disturbed.notes / "died").exists()
    assert [name for name in disturbed.blocks if "ImageLoader" in name] == (
        ["ReadManifestSource->ImageLoader"] if apart else []
    )
    tasks = {name: found for name, found in disturbed.blocks.items() if name != "Input"}
    assert len(tasks) == (4 if apart else 3)
    assert set(tasks.values()) == {(2, 2)}, "as many blocks as tasks"
    assert disturbed.receipt["status"] == "finished"
    assert disturbed.receipt["message"] == ""
    check_each_image_once(disturbed.config.output, IMAGES)
    check_equal_to_sequential(disturbed.config.output, model_dir)
    assert len(rows(disturbed.config.output, "maps")) == IMAGES, "it could be had in the end"
