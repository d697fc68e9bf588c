"""The way of the data, from a listing to maps in storage, on one screen."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import ray
from ray.data import Dataset

from job import artifacts, progress, receipts
from job.batch_predictor import BatchPredictor
from job.checkpoint import Checkpoint
from job.config import JobConfig
from job.image_loader import ImageLoader
from job.labels import palette
from job.lease import Lease
from job.manifest import Manifest, ManifestSource, freeze
from job.maps import MapEncoder
from job.model import ModelCard
from job.receipts import Receipt
from job.resources import Allotment, Cluster, allot
from job.segmentation import SemanticSegmentationPredictor
from job.session import cluster_session
from job.sink import Commits, MapSink, committing
from job.stopwatch import Stopwatch
from job.storage import Location, locate, refuse_overlap
from job.tuning import choose_precision, worth_compiling

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        images: the images, as listed now.
        done: how many of them have a map or an error row already.
        model: what would predict on them.
        cluster: what Ray has.
        allotment: what each stage would ask for.
    """

    images: Manifest
    done: int
    model: ModelCard
    cluster: Cluster
    allotment: Allotment

    @property
    def todo(self) -> int:
        """Images that a run would process."""
        return self.images.images - self.done


def plan(config: JobConfig) -> Plan:
    """Look at everything a run would look at, and change nothing.

    Raises:
        JobError: whatever would keep a run from starting.
    """
    output = _open_output(config)
    checkpoint = Checkpoint.from_model(config.model, config.revision, config.storage_options)
    model = ModelCard.of(checkpoint)
    receipts.check_same_maps(output, model.origin, receipts.settings_of(config, model))
    images = freeze(config.input, output, config.storage_options, write=False)
    done = len(_done(config, output))
    with cluster_session():
        cluster = Cluster.now()
        todo = images.images - done
        allotment = allot(config, cluster, todo)
        return Plan(images, done, model, cluster, allotment)


def run(config: JobConfig, say: Say = lambda line: None) -> Receipt:
    """Segment every image of the input that has neither a map nor an error row yet.

    Args:
        config: the options.
        say: is told in a line, now and then, what happens.

    Returns:
        The receipt, as it is left in storage; one with nothing done when nothing was left to do.

    Raises:
        JobError: the run could not be done; a receipt that was begun says why.
    """
    output = _open_output(config)
    checkpoint = Checkpoint.from_model(config.model, config.revision, config.storage_options)
    model = ModelCard.of(checkpoint)
    run_id = receipts.new_run_id()
    with Lease(output, run_id):
        settings = receipts.settings_of(config, model)
        settings = receipts.check_same_maps(output, model.origin, settings)
        images = freeze(config.input, output, config.storage_options)
        Commits(output).recover()
        done = _done(config, output)
        todo = images.without(done)
        counts = {"images": images.images, "done_before": len(done)}
        if not len(todo):
            return receipts.start(run_id, config.input, model, settings, **counts).ending(
                "finished"
            )
        say(f"{len(todo):,} of {images.images:,} images to do, with {checkpoint!r}")
        with cluster_session():
            allotment = allot(config, Cluster.now(), len(todo))
            say(f"{allotment}")
            if settings["precision"] == "auto":
                settings["precision"], reason = choose_precision(checkpoint, allotment)
                say(reason)
            receipt = receipts.start(run_id, config.input, model, settings, **counts)
            with receipt.kept_in(output) as keeping:
                tally = progress.start_tally()
                source = ManifestSource(todo, allotment.images_per_task)
                work = _Work(config, checkpoint, model, allotment, receipt, Stopwatch(tally))
                with progress.watching(tally, len(todo), config.progress), committing(output):
                    work.maps_of(source).write_datasink(
                        MapSink(output, run_id, allotment.images_per_file, tally),
                        ray_remote_args={"num_cpus": allotment.write_cpus},
                    )
                return keeping.finished(allotment, ray.get(tally.snapshot.remote()))


@dataclass(frozen=True)
class _Work:
    """The steps between reading the manifest and writing rows, as a lazy Dataset."""

    config: JobConfig
    checkpoint: Checkpoint
    model: ModelCard
    allotment: Allotment
    receipt: Receipt
    stopwatch: Stopwatch

    def maps_of(self, images: ManifestSource) -> Dataset:
        # The loader's own request, so that Ray runs it in the task that has the rows.
        rows = ray.data.read_datasource(
            images, num_cpus=self.allotment.load_cpus, override_num_blocks=images.tasks
        )
        return self._predict(rows).map_batches(
            self._encoder(),
            batch_format="numpy",
            batch_size=None,
            num_cpus=self.allotment.encode_cpus,
        )

    def _predict(self, rows: Dataset) -> Dataset:
        self.checkpoint.set_preprocessor(self._loader())
        predictor = BatchPredictor(
            self.checkpoint,
            SemanticSegmentationPredictor,
            threads=self.allotment.threads,
            precision=self.receipt.precision,
            compiled=self._compiled(),
            reference=self.config.reference,
            images_at_once=self.allotment.images_at_once,
            stopwatch=self.stopwatch,
        )
        return predictor.predict(
            rows,
            feature_columns=["image", "height", "width", "error"],
            keep_columns=["id", "uri", "height", "width"],
            batch_size=self.allotment.batch_size,
            min_scoring_workers=self.allotment.workers,
            max_scoring_workers=self.allotment.workers,
            num_cpus_per_worker=self.allotment.cpus_per_worker,
            num_gpus_per_worker=self.allotment.gpus_per_worker,
            separate_gpu_stage=True,
        )

    def _compiled(self) -> bool:
        if self.config.compile == "auto":
            return worth_compiling(self.receipt.todo, self.allotment)
        return self.config.compile == "on"

    def _loader(self) -> ImageLoader:
        return ImageLoader(
            locate(self.config.input, self.config.storage_options),
            self.model.size,
            fetch_concurrency=self.config.fetch_concurrency,
            pixel_limit=self.config.pixel_limit,
            num_cpus=self.allotment.load_cpus,
            stopwatch=self.stopwatch,
        )

    def _encoder(self) -> MapEncoder:
        return MapEncoder(
            self.model.labels,
            palette(self.model.labels),
            model=self.model.origin.name,
            run_id=self.receipt.run_id,
            stopwatch=self.stopwatch,
        )


def _done(config: JobConfig, output: Location) -> np.ndarray:
    """Ids that need no more work, sorted int64."""
    done = Commits(output).done()
    if config.retry_errors is None:
        return done
    only_retryable = config.retry_errors == "retryable"
    return np.setdiff1d(done, artifacts.open_errors(output, only_retryable=only_retryable))


def _open_output(config: JobConfig) -> Location:
    output = locate(config.output, config.storage_options)
    refuse_overlap(locate(config.input, config.storage_options), output)
    return output
