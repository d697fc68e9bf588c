"""Stages: what Ray does for a run, from rows of the manifest to what is ready to be committed.

Where predictors have GPUs, images are loaded in tasks ahead of them and maps encoded in tasks
behind them. On CPUs one worker does all three.
"""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import ray
from ray.data import Dataset, TaskPoolStrategy

from job import schema
from job.cluster.guard import TASK_RETRIES, Guard
from job.cluster.metrics import StageTimer
from job.cluster.resources import ResourcePlan
from job.cluster.tracker import Tracker
from job.config import JobConfig
from job.images.loader import ImageLoader
from job.inputs.base import Input
from job.inputs.manifest_source import ManifestSource
from job.models.checkpoint import Checkpoint
from job.models.info import ModelInfo
from job.outputs.attempt_writer import AttemptWriter
from job.outputs.attempts import Attempt
from job.outputs.encoder import MapEncoder
from job.outputs.receipts import Receipt
from job.predict.batch_predictor import BatchPredictor
from job.predict.map_predictor import MapPredictor
from job.predict.precision import worth_compiling
from job.predict.predictor import Predictor
from job.predict.segmentation import SemanticSegmentationPredictor
from job.redact import redact
from job.rows import KEPT, LOADED, Listed
from job.storage.location import Location

if TYPE_CHECKING:
    from job.models.forward import Precision

# A task that dies with its process or its node is started again, more often than what is wrong
# with its images could need.
RETRIED: dict[str, Any] = {"max_retries": TASK_RETRIES}


@dataclass(frozen=True)
class Stages:
    """The steps from rows of the manifest to attempts under OUTPUT.

    Attributes:
        config: the options.
        source: what the images are fetched from.
        checkpoint: the model.
        model: what is known of it.
        colours: of its classes, (classes, 3) uint8.
        resources: what each step asks Ray for.
        receipt: of the run.
        tracker: handle of the run's :class:`job.cluster.tracker.RunTracker`.
        witnesses: images that have just been listed, see :mod:`job.inputs.fetching`.
    """

    config: JobConfig
    source: Input
    checkpoint: Checkpoint
    model: ModelInfo
    colours: np.ndarray
    resources: ResourcePlan
    receipt: Receipt
    tracker: Tracker
    witnesses: tuple[Listed, ...] = ()

    @cached_property
    def timer(self) -> StageTimer:
        return StageTimer(self.tracker)

    def write_attempts(self, rows: pa.Table, output: Location, claim: str) -> Generator[Attempt]:
        """Take images as far as storage; yields what is to be committed as it gets there.

        Closing it ends the work.

        Args:
            rows: of the manifest.
            output: the run's OUTPUT.
            claim: name of the run's claim to it.
        """
        resources = self.resources
        manifest = ManifestSource(rows, resources.images_per_task)
        listed = ray.data.read_datasource(
            manifest,
            # The loader's own request, so that Ray runs it in the task that has the rows.
            num_cpus=resources.load_cpus,
            override_num_blocks=manifest.tasks,
            # One task hands out rows faster than eight predictors take them, and each more that
            # runs beside it is a process to start.
            concurrency=None if resources.loads_apart else max(1, resources.workers // 8),
            ray_remote_args={**RETRIED, **({} if resources.loads_apart else resources.placement)},
        )
        maps = self._in_tasks(listed) if resources.loads_apart else self._in_predictors(listed)
        written = maps.map_batches(
            AttemptWriter(
                output,
                claim,
                self.receipt.run_id,
                schema.maps(self.model.labels, self.colours),
                self.timer,
            ),
            batch_format="pyarrow",
            batch_size=resources.images_per_file,
            num_cpus=0,
            compute=TaskPoolStrategy(size=resources.writers),
            **RETRIED,
            **resources.placement,
        )
        blocks = written.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        with closing(cast(Generator[pa.Table], iter(blocks))) as tables:
            for table in tables:
                yield from (Attempt.from_row(row) for row in table.to_pylist())

    def _in_predictors(self, listed: Dataset) -> Dataset:
        """Load, predict and encode in the predictors."""
        return self._predictor(MapPredictor, encoder=self._encoder()).predict(
            listed, separate_gpu_stage=False, **self._workers()
        )

    def _in_tasks(self, listed: Dataset) -> Dataset:
        """Load in tasks ahead of the predictors, and encode in tasks behind them."""
        predicted = self._predictor(SemanticSegmentationPredictor).predict(
            listed,
            separate_gpu_stage=True,
            feature_columns=LOADED,
            keep_columns=KEPT,
            **self._workers(),
        )
        return predicted.map_batches(
            self._encoder(),
            batch_format="numpy",
            batch_size=None,
            num_cpus=0,
            compute=TaskPoolStrategy(size=self.resources.encoders),
            **RETRIED,
            **self.resources.placement,
        )

    def _predictor(self, kind: type[Predictor], **more: Any) -> BatchPredictor:
        self.checkpoint.set_preprocessor(self._loader())
        return BatchPredictor(
            self.checkpoint,
            kind,
            threads=self.resources.threads,
            precision=self._precision,
            compiled=self._compiled(),
            reference=self.config.reference,
            images_at_once=self.resources.images_at_once,
            timer=self.timer,
            guard=Guard("predict", self.tracker, self.config.image_timeout, asks=self._in_flight()),
            **more,
        )

    def _workers(self) -> dict[str, Any]:
        # All are asked for at once: those that find no place yet are what an autoscaler sees, and
        # the rest go on without them.
        return {
            "batch_size": self.resources.batch_size,
            "min_scoring_workers": self.resources.workers,
            "max_scoring_workers": self.resources.workers,
            "num_cpus_per_worker": self.resources.cpus_per_worker,
            "num_gpus_per_worker": self.resources.gpus_per_worker,
        }

    def _in_flight(self) -> int:
        """More batches than wait for an actor whose process dies: what the next one begins with."""
        return 16 + 8 * -(-self.resources.images_per_task // self.resources.batch_size)

    @property
    def _precision(self) -> "Precision":
        settled: Precision = self.receipt.settings["precision"]
        return "float32" if self.config.reference else settled

    def _compiled(self) -> bool:
        if self.config.compile == "auto":
            return worth_compiling(self.receipt.remaining, self.resources)
        return self.config.compile == "on"

    def _loader(self) -> ImageLoader:
        size = self.model.size
        return ImageLoader(
            self.source,
            size,
            reduced_side=size.reduced_side if size and self.config.decode == "reduced" else None,
            fetch_concurrency=self.config.fetch_concurrency,
            pixel_limit=self.config.pixel_limit,
            byte_limit=self.config.byte_limit,
            timeout=self.config.image_timeout,
            fetch_timeout=max(self.config.image_timeout, self.config.retry_policy.longest),
            witnesses=self.witnesses,
            num_cpus=self.resources.load_cpus,
            timer=self.timer,
            tracker=self.tracker,
        )

    def _encoder(self) -> MapEncoder:
        return MapEncoder(
            self.model.labels,
            self.colours,
            model=redact(self.model.origin.name),
            run_id=self.receipt.run_id,
            grayscale=self.config.map_png == "grayscale",
            timer=self.timer,
        )
