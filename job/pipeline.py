"""What a run does, on one screen: what there is to do is read first, and Ray started for the rest.

Nothing up here loads Ray, torch or transformers: an OUTPUT that is finished says so at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from job.cluster.stopping import StopSignal
from job.config import JobConfig
from job.errors import ConfigError
from job.inputs.manifest import Manifest, freeze
from job.models.checkpoint import Checkpoint, Origin
from job.models.reading import start_reading
from job.outputs import receipts
from job.outputs.commits import Commits
from job.outputs.dataset_card import is_described, write_card, write_maps_schema
from job.outputs.lock import OutputLock
from job.outputs.receipts import Receipt
from job.prepare import open_places
from job.storage import parquet
from job.storage.location import Location
from job.wording import counted

if TYPE_CHECKING:
    from job.cluster.address import Place
    from job.cluster.resources import Cluster, ResourcePlan
    from job.models.loading import ModelInfo

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        images: the images, as listed now.
        done: how many of them have a map or an error row already.
        model: what would predict on them.
        cluster: what Ray has.
        resources: what each stage would ask for.
    """

    images: Manifest
    done: int
    model: "ModelInfo"
    cluster: "Cluster"
    resources: "ResourcePlan"

    @property
    def remaining(self) -> int:
        """Images that a run would process."""
        return self.images.images - self.done


def plan(config: JobConfig) -> Plan:
    """Look at everything a run would look at, and change nothing.

    Raises:
        JobError: whatever would keep a run from starting.
    """
    checkpoint, origin = _open_checkpoint(config)
    output = _open_output(config)
    place, model = _look_ahead(config, checkpoint)
    receipts.check_same_maps(output, origin, receipts.settings_of(config, model))
    images = freeze(config.input, output, config.storage_options, config.retry_policy, write=False)
    done = len(_done(config, output))
    from job.execution import survey

    cluster, resources = survey(config, place, images, images.images - done)
    return Plan(images, done, model, cluster, resources)


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
    checkpoint, origin = _open_checkpoint(config)
    output = _open_output(config)
    look_ahead = cache(lambda: _look_ahead(config, checkpoint))
    if not Commits(output).committed():
        look_ahead()  # a first run has work: what keeps it from that is told before it writes
    run_id = receipts.new_run_id()
    with OutputLock(output, run_id) as lock:
        stop.releasing(lock.release)
        settings = receipts.check_same_maps(output, origin, receipts.settings_of(config))
        images = freeze(config.input, output, config.storage_options, config.retry_policy)
        Commits(output).recover()
        receipts.settle(output)
        done = _done(config, output)
        remaining = _remaining(config, images, done)
        counts = {"images": images.images, "done_before": len(done)}
        receipt = receipts.start(run_id, config.input, origin, settings, **counts)
        if not len(remaining):
            if not is_described(output):  # by a release that did not do it
                _, model = look_ahead()
                write_card(output, *model.classes)
                write_maps_schema(output, *model.classes)
            return receipt.ending("finished")
        place, model = look_ahead()
        settings = receipts.check_same_maps(output, origin, receipts.settings_of(config, model))
        say(f"{place}")
        say(f"{len(remaining):,} of {counted(images.images, 'image')} to do, with {checkpoint!r}")
        if images.left_out.total:
            say(f"left out: {images.left_out}")
        from job.execution import Execution

        execution = Execution(config, checkpoint, model, output, say, stop, lock.release)
        return execution.execute(place, receipt.with_settings(settings), images, remaining)


def _done(config: JobConfig, output: Location) -> np.ndarray:
    """Ids that need no more work, sorted int64."""
    done = Commits(output).done()
    if config.retry_errors is None:
        return done
    only_retryable = config.retry_errors == "retryable"
    return np.setdiff1d(done, parquet.open_errors(output, only_retryable=only_retryable))


def _remaining(config: JobConfig, images: Manifest, done: np.ndarray) -> pa.Table:
    """Rows of the manifest, for the images to do."""
    remaining = images.without(done)
    # What failed may have been mended since it was listed.
    return images.as_listed_now(remaining) if config.retry_errors else remaining


def _open_output(config: JobConfig) -> Location:
    _, output = open_places(
        config.input, config.output, config.storage_options, config.retry_policy
    )
    return output


def _open_checkpoint(config: JobConfig) -> tuple[Checkpoint, Origin]:
    if config.decode == "reduced" and config.reference:
        raise ConfigError("--decode reduced: --reference wants every bit. Leave one of them out")
    checkpoint = Checkpoint.from_model(config.model, config.revision, config.storage_options)
    assert checkpoint.origin is not None  # as every one of from_model's
    return checkpoint, checkpoint.origin


def _look_ahead(config: JobConfig, checkpoint: Checkpoint) -> "tuple[Place, ModelInfo]":
    """Where the work will be done and with what: needed as soon as there is any."""
    read_model = start_reading(checkpoint)
    import job.execution  # noqa: F401  # meanwhile: loading Ray Data takes as long
    from job.cluster.address import find_place

    place = find_place(config.address)
    model = read_model()
    if config.decode == "reduced" and model.size is None:
        raise ConfigError(
            f"--decode reduced: {config.model} does not resize every image to one size, so there is"
            " nothing to reduce to. Leave it out"
        )
    return place, model
