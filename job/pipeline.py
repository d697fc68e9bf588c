"""The way of the data, from a listing to maps in storage, on one screen."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from job import artifacts, progress, receipts
from job.address import find_place
from job.checkpoint import Checkpoint
from job.config import JobConfig
from job.dataset_card import write_card
from job.errors import ConfigError
from job.labels import palette
from job.lease import Lease
from job.listing import refuse_overlap
from job.manifest import Manifest, freeze
from job.measures import Measures
from job.model import ModelCard
from job.node_check import check_nodes
from job.outage import ending_on_outage
from job.receipts import Receipt
from job.resources import Allotment, Cluster, allot
from job.session import cluster_session
from job.sink import Commits, committing
from job.stages import Stages
from job.stopping import StopSignal
from job.storage import Location, locate
from job.tuning import choose_precision
from job.waiting import WorkersWatch
from job.wording import counted

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
        write_card(output, model.labels, palette(model.labels))
        Commits(output).recover()
        receipts.settle(output)
        done = _done(config, output)
        remaining = _remaining(config, images, done)
        counts = {"images": images.images, "done_before": len(done)}
        receipt = receipts.start(run_id, config.input, model, settings, **counts)
        if not len(remaining):
            return receipt.ending("finished")
        say(f"{place}")
        say(f"{len(remaining):,} of {counted(images.images, 'image')} to do, with {checkpoint!r}")
        if images.other_files:
            say(f"left out: {counted(images.other_files, 'object')} without an image's name")
        with cluster_session(place):
            check_nodes(images.witnesses, output)
            cluster = Cluster.now()
            allotment = allot(config, cluster, len(remaining))
            say(f"{allotment}")
            tally = progress.start_tally()
            watch = WorkersWatch(allotment, config.worker_timeout, partial(progress.ask, tally))
            receipt = _with_precision(receipt, checkpoint, allotment, watch, say)
            stages = Stages(config, checkpoint, model, allotment, receipt, tally, images.witnesses)
            with (
                receipt.kept_in(output, Measures(tally, allotment), lease.release) as keeping,
                progress.watching(tally, len(remaining), config.progress, describe=watch.describe),
                watch.over_dataset(),
                stop.finishing(keeping.stopping, config.stop_grace),
                ending_on_outage(tally, lambda: stop.was_given),
                committing(output),
            ):
                stages.write_maps(remaining, output)
        return keeping.receipt


def _done(config: JobConfig, output: Location) -> np.ndarray:
    """Ids that need no more work, sorted int64."""
    done = Commits(output).done()
    if config.retry_errors is None:
        return done
    only_retryable = config.retry_errors == "retryable"
    return np.setdiff1d(done, artifacts.open_errors(output, only_retryable=only_retryable))


def _remaining(config: JobConfig, images: Manifest, done: np.ndarray) -> pa.Table:
    """Rows of the manifest, for the images to do."""
    remaining = images.without(done)
    # What failed may have been mended since it was listed.
    return images.as_listed_now(remaining) if config.retry_errors else remaining


def _with_precision(
    receipt: Receipt,
    checkpoint: Checkpoint,
    allotment: Allotment,
    watch: WorkersWatch,
    say: Say,
) -> Receipt:
    """The receipt with what ``--precision auto`` comes to on this cluster."""
    if receipt.settings["precision"] != "auto":
        return receipt
    precision, reason = choose_precision(checkpoint, allotment, lambda: watch.wait_for_place(say))
    say(reason)
    return receipt.with_precision(precision)


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
