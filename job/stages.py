"""Stages: what Ray does for a run, from rows of the manifest to files under OUTPUT.

Where predictors have GPUs, images are loaded in tasks ahead of them and maps encoded in tasks
behind them. On CPUs one worker does all three.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import ray
from ray.data import Dataset, TaskPoolStrategy

from job import schema
from job.cluster.guard import TASK_RETRIES, Guard
from job.cluster.metrics import Stopwatch
from job.cluster.resources import Allotment
from job.config import JobConfig
from job.images.loader import ImageLoader
from job.inputs.listed_files import Listed
from job.inputs.manifest_source import ManifestSource
from job.models.checkpoint import Checkpoint
from job.models.loading import ModelCard
from job.outputs.encoder import MapEncoder
from job.outputs.receipts import Receipt
from job.outputs.sink import MapSink
from job.predict.batch_predictor import BatchPredictor
from job.predict.map_predictor import MapPredictor
from job.predict.precision import worth_compiling
from job.predict.predictor import Predictor
from job.predict.segmentation import SemanticSegmentationPredictor
from job.redact import presentable
from job.storage.location import Location, locate

# A task that dies with its process or its node is started again, more often than what is wrong
# with its images could need.
RETRIED: dict[str, Any] = {"max_retries": TASK_RETRIES}


@dataclass(frozen=True)
class Stages:
    """The steps from rows of the manifest to files under OUTPUT.

    Attributes:
        config: the options.
        checkpoint: the model.
        model: what is known of it.
        allotment: what each step asks Ray for.
        receipt: of the run.
        tally: handle of the run's :class:`job.cluster.progress.Tally`.
        witnesses: objects that have just been listed, see :mod:`job.inputs.listed_files`.
    """

    config: JobConfig
    checkpoint: Checkpoint
    model: ModelCard
    allotment: Allotment
    receipt: Receipt
    tally: Any
    witnesses: tuple[Listed, ...] = ()

    @cached_property
    def stopwatch(self) -> Stopwatch:
        return Stopwatch(self.tally)

    def write_maps(self, images: pa.Table, output: Location) -> None:
        """Take images the whole way, and return when all that can be committed is.

        Args:
            images: rows of the manifest.
            output: the run's OUTPUT.
        """
        allotment = self.allotment
        source = ManifestSource(images, allotment.images_per_task)
        rows = ray.data.read_datasource(
            source,
            # The loader's own request, so that Ray runs it in the task that has the rows.
            num_cpus=allotment.load_cpus,
            override_num_blocks=source.tasks,
            # Rows that ask for no CPU would all be read at once.
            concurrency=None if allotment.loads_apart else 2 * allotment.workers,
            ray_remote_args={**RETRIED, **({} if allotment.loads_apart else allotment.placement)},
        )
        maps = self._predict_apart(rows) if allotment.loads_apart else self._predict(rows)
        maps.write_datasink(
            MapSink(
                output,
                self.receipt.run_id,
                allotment.images_per_file,
                self.tally,
                schema.maps(*self.model.classes),
            ),
            ray_remote_args={"num_cpus": 0, **RETRIED, **allotment.placement},
            concurrency=allotment.writers,
        )

    def _predict(self, rows: Dataset) -> Dataset:
        """Load, predict and encode in the predictors."""
        return self._predictor(MapPredictor, encoder=self._encoder()).predict(
            rows, separate_gpu_stage=False, **self._workers()
        )

    def _predict_apart(self, rows: Dataset) -> Dataset:
        """Load in tasks ahead of the predictors, and encode in tasks behind them."""
        predicted = self._predictor(SemanticSegmentationPredictor).predict(
            rows,
            separate_gpu_stage=True,
            feature_columns=["id", "uri", "image", "height", "width", "error"],
            keep_columns=["id", "uri", "height", "width"],
            **self._workers(),
        )
        return predicted.map_batches(
            self._encoder(),
            batch_format="numpy",
            batch_size=None,
            num_cpus=0,
            compute=TaskPoolStrategy(size=self.allotment.encoders),
            **RETRIED,
            **self.allotment.placement,
        )

    def _predictor(self, kind: type[Predictor], **more: Any) -> BatchPredictor:
        self.checkpoint.set_preprocessor(self._loader())
        return BatchPredictor(
            self.checkpoint,
            kind,
            threads=self.allotment.threads,
            precision=self.receipt.precision,
            compiled=self._compiled(),
            reference=self.config.reference,
            images_at_once=self.allotment.images_at_once,
            stopwatch=self.stopwatch,
            guard=Guard("predict", self.tally, self.config.image_timeout, asks=self._in_flight()),
            **more,
        )

    def _workers(self) -> dict[str, Any]:
        # All are asked for at once: those that find no place yet are what an autoscaler sees, and
        # the rest go on without them.
        return {
            "batch_size": self.allotment.batch_size,
            "min_scoring_workers": self.allotment.workers,
            "max_scoring_workers": self.allotment.workers,
            "num_cpus_per_worker": self.allotment.cpus_per_worker,
            "num_gpus_per_worker": self.allotment.gpus_per_worker,
        }

    def _in_flight(self) -> int:
        """More batches than wait for an actor whose process dies: what the next one begins with."""
        return 16 + 8 * -(-self.allotment.images_per_task // self.allotment.batch_size)

    def _compiled(self) -> bool:
        if self.config.compile == "auto":
            return worth_compiling(self.receipt.remaining, self.allotment)
        return self.config.compile == "on"

    def _loader(self) -> ImageLoader:
        size = self.model.size
        return ImageLoader(
            locate(self.config.input, self.config.storage_options, self.config.patience),
            size,
            reduced_side=size.reduced_side if size and self.config.decode == "reduced" else None,
            fetch_concurrency=self.config.fetch_concurrency,
            pixel_limit=self.config.pixel_limit,
            byte_limit=self.config.byte_limit,
            timeout=self.config.image_timeout,
            fetch_timeout=max(self.config.image_timeout, self.config.patience.longest),
            storage_options=self.config.storage_options,
            patience=self.config.patience,
            witnesses=self.witnesses,
            num_cpus=self.allotment.load_cpus,
            stopwatch=self.stopwatch,
            tally=self.tally,
        )

    def _encoder(self) -> MapEncoder:
        return MapEncoder(
            *self.model.classes,
            model=presentable(self.model.origin.name),
            run_id=self.receipt.run_id,
            grayscale=self.config.map_png == "grayscale",
            stopwatch=self.stopwatch,
        )
