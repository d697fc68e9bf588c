"""The way of the data, from a listing to maps in storage, on one screen."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import Dataset, TaskPoolStrategy

from job import artifacts, progress, receipts
from job.address import find_place
from job.batch_predictor import BatchPredictor
from job.checkpoint import Checkpoint
from job.config import JobConfig
from job.errors import ConfigError
from job.fetching import Listed
from job.guard import TASK_RETRIES, Guard
from job.image_loader import ImageLoader
from job.labels import palette
from job.lease import Lease
from job.listing import refuse_overlap
from job.manifest import Manifest, ManifestSource, freeze
from job.map_predictor import MapPredictor
from job.maps import MapEncoder
from job.model import ModelCard
from job.node_check import check_nodes
from job.outage import ending_on_outage
from job.predictor import Predictor
from job.presentable import presentable
from job.receipts import Measures, Receipt
from job.resources import Allotment, Cluster, allot
from job.segmentation import SemanticSegmentationPredictor
from job.session import cluster_session
from job.sink import Commits, MapSink, committing
from job.stopping import StopSignal
from job.stopwatch import Stopwatch
from job.storage import Location, locate
from job.tuning import choose_precision, worth_compiling
from job.waiting import WorkersWatch

Say = Callable[[str], None]

# A task that dies with its process or its node is started again, more often than what is wrong
# with its images could need.
RETRIED: dict[str, Any] = {"max_retries": TASK_RETRIES}


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
    def remaining(self) -> int:
        """Images that a run would process."""
        return self.images.images - self.done


def plan(config: JobConfig) -> Plan:
    """Look at everything a run would look at, and change nothing.

    Raises:
        JobError: whatever would keep a run from starting.
    """
    place = find_place(config.address)
    output = _open_output(config)
    _, model = _open_model(config)
    receipts.check_same_maps(output, model.origin, receipts.settings_of(config, model))
    images = freeze(config.input, output, config.storage_options, config.patience, write=False)
    done = len(_done(config, output))
    with cluster_session(place):
        check_nodes(images.witnesses)
        cluster = Cluster.now()
        allotment = allot(config, cluster, images.images - done)
        return Plan(images, done, model, cluster, allotment)


def run(config: JobConfig, say: Say = lambda line: None, stop: StopSignal | None = None) -> Receipt:
    """Segment every image of the input that has neither a map nor an error row yet.

    Args:
        config: the options.
        say: is told in a line, now and then, what happens.
        stop: tells when to stop.

    Returns:
        The receipt, as it is left in storage; one with nothing done when nothing was left to do.

    Raises:
        JobError: the run could not be done; a receipt that was begun says why.
    """
    stop = stop or StopSignal()
    place = find_place(config.address)
    output = _open_output(config)
    checkpoint, model = _open_model(config)
    run_id = receipts.new_run_id()
    with Lease(output, run_id) as lease:
        stop.releasing(lease.release)
        settings = receipts.settings_of(config, model)
        settings = receipts.check_same_maps(output, model.origin, settings)
        images = freeze(config.input, output, config.storage_options, config.patience)
        Commits(output).recover()
        receipts.settle(output)
        done = _done(config, output)
        remaining = images.without(done)
        if config.retry_errors:  # what failed may have been mended since it was listed
            remaining = images.as_listed_now(remaining)
        counts = {"images": images.images, "done_before": len(done)}
        receipt = receipts.start(run_id, config.input, model, settings, **counts)
        if not len(remaining):
            return receipt.ending("finished")
        say(f"{place}")
        say(f"{len(remaining):,} of {images.images:,} images to do, with {checkpoint!r}")
        if images.other_files:
            say(f"{images.other_files:,} objects without an image's name are left out")
        with cluster_session(place):
            check_nodes(images.witnesses, output)
            cluster = Cluster.now()
            allotment = allot(config, cluster, len(remaining))
            say(f"{allotment}")
            watch = WorkersWatch(allotment, config.worker_timeout)
            if receipt.settings["precision"] == "auto":
                precision, reason = choose_precision(
                    checkpoint, allotment, lambda task: watch.result(task, say)
                )
                receipt = receipt.with_precision(precision)
                say(reason)
            tally = progress.start_tally()
            work = _Work(config, checkpoint, model, allotment, receipt, tally, images.witnesses)
            with (
                receipt.kept_in(output, Measures(tally, allotment), lease.release) as keeping,
                progress.watching(tally, len(remaining), config.progress, describe=watch.describe),
                watch.over_dataset(),
                stop.finishing(keeping.stopping, config.stop_grace),
                ending_on_outage(tally, lambda: stop.was_given),
                committing(output),
            ):
                work.write_maps(remaining, output)
        return keeping.receipt


@dataclass(frozen=True)
class _Work:
    """The steps from rows of the manifest to files under OUTPUT."""

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
        allotment = self.allotment
        source = ManifestSource(images, allotment.images_per_task)
        rows = ray.data.read_datasource(
            source,
            # The loader's own request, so that Ray runs it in the task that has the rows.
            num_cpus=allotment.load_cpus,
            override_num_blocks=source.tasks,
            ray_remote_args={**RETRIED, **(allotment.placement if not allotment.load_cpus else {})},
        )
        maps = self._predict_apart(rows) if allotment.loads_apart else self._predict(rows)
        maps.write_datasink(
            MapSink(output, self.receipt.run_id, allotment.images_per_file, self.tally),
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
            self.model.labels,
            palette(self.model.labels),
            model=presentable(self.model.origin.name),
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


def _open_model(config: JobConfig) -> tuple[Checkpoint, ModelCard]:
    if config.decode == "reduced" and config.reference:
        raise ConfigError("--decode reduced: --reference wants every bit. Leave one of them out")
    checkpoint = Checkpoint.from_model(config.model, config.revision, config.storage_options)
    model = ModelCard.of(checkpoint)
    if config.decode == "reduced" and model.size is None:
        raise ConfigError(
            f"--decode reduced: {config.model} does not resize every image to one size, so there is"
            " nothing to reduce to. Leave it out"
        )
    return checkpoint, model


def _open_output(config: JobConfig) -> Location:
    output = locate(config.output, config.storage_options, config.patience)
    refuse_overlap(locate(config.input, config.storage_options, config.patience), output)
    return output
