"""Prepare: INPUT, OUTPUT and the model, opened before anything is started; and what is done."""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from job.config import JobConfig
from job.errors import ConfigError, StorageError
from job.inputs.base import Input
from job.inputs.manifest import Manifest
from job.inputs.opening import open_input
from job.models.checkpoint import Checkpoint, Origin
from job.models.reading import start_reading
from job.outputs import error_rows
from job.outputs.commits import Commits
from job.outputs.receipts import check_format
from job.storage.location import Location
from job.storage.opening import locate
from job.storage.refusals import STORAGE_ERRORS, explain, kind_of
from job.storage.uris import only_read
from job.wording import counted

if TYPE_CHECKING:
    from job.cluster.address import Place
    from job.models.info import ModelInfo


def open_input_and_output(config: JobConfig) -> tuple[Input, Location]:
    """INPUT and OUTPUT, once it is known that there is an INPUT and that OUTPUT takes files.

    Raises:
        ConfigError: OUTPUT is inside INPUT, or is none that can be written.
        StorageError: nothing is there, or it may not be used.
        OutputConflictError: OUTPUT has a format that this version does not know.
    """
    refuse_read_only(config.output)
    source = open_input(config.input, config.storage_options, config.retry_policy)
    output = locate(config.output, config.storage_options, config.retry_policy)
    refuse_overlap(source, output)
    check_output(output, config.output)
    source.check()
    check_format(output)
    return source, output


def refuse_read_only(output: str) -> None:
    """Refuse an OUTPUT that is no place for files, before it is opened.

    Raises:
        ConfigError: says what it is.
    """
    what = only_read(output)
    if what:
        raise ConfigError(
            f"OUTPUT {output}: {what} cannot be written. Give a folder, or a prefix of a bucket"
        )


def refuse_overlap(source: Input, output: Location) -> None:
    """Refuse an OUTPUT inside INPUT, where a later run would list its own results.

    Raises:
        ConfigError: naming both.
    """
    if any(source.would_list(output / name) for name in ("labels.json", "maps/x.parquet")):
        raise ConfigError(
            f"OUTPUT {output.uri} is inside INPUT {source.uri}: the next run would find results"
            " among its images. Put OUTPUT beside INPUT"
        )


def check_output(place: Location, name: str) -> None:
    """Look whether an OUTPUT could be written; writes nothing.

    Args:
        place: the OUTPUT.
        name: what messages call it.

    Raises:
        StorageError: it cannot be asked, may not be written, or is a file.
    """
    try:
        obstacle = place.obstacle()
    except Exception as error:  # filesystems of other clouds have errors of their own
        if not isinstance(error, STORAGE_ERRORS) and kind_of(error) == "unknown":
            raise
        raise StorageError(f"OUTPUT {name} cannot be written: {explain(error)}") from error
    if obstacle:
        raise StorageError(f"OUTPUT {name} cannot be written: {obstacle}")


def done_ids(config: JobConfig, manifest: Manifest, commits: Commits) -> np.ndarray:
    """Ids that need no more work, sorted int64.

    Raises:
        StorageError: they are no images of the manifest, which has lost a part.
    """
    done = commits.done()
    unlisted = np.setdiff1d(done, manifest.rows["id"].to_numpy())
    if len(unlisted):
        raise StorageError(
            f"OUTPUT {commits.output.uri}: {counted(len(unlisted), 'image')} that its manifest does"
            f" not list {'is' if len(unlisted) == 1 else 'are'} committed (number"
            f" {unlisted[0]:,}): a file of manifest/ is missing or damaged. Put it back, or use"
            " another OUTPUT"
        )
    if config.retry_errors is None:
        return done
    only_retryable = config.retry_errors == "retryable"
    return np.setdiff1d(done, error_rows.open_errors(commits, only_retryable=only_retryable))


def rows_to_do(config: JobConfig, manifest: Manifest, done: np.ndarray) -> pa.Table:
    """Rows of the manifest, for the images to do."""
    rows = manifest.without(done)
    # What failed may have been mended since it was listed.
    return manifest.as_listed_now(rows) if config.retry_errors else rows


def open_checkpoint(config: JobConfig) -> tuple[Checkpoint, Origin]:
    """The model's files, and where they came from.

    Raises:
        ModelError: it cannot be found, reached or read.
    """
    checkpoint = Checkpoint.from_model(config.model, config.revision, config.storage_options)
    assert checkpoint.origin is not None  # as every one of from_model's
    return checkpoint, checkpoint.origin


def find_ray_and_model(config: JobConfig, checkpoint: Checkpoint) -> "tuple[Place, ModelInfo]":
    """Where the work will be done and with what: needed as soon as there is any.

    Raises:
        JobError: the cluster cannot be joined, or the model is none for semantic segmentation.
    """
    read_model = start_reading(checkpoint)
    from job.cluster import waiting  # noqa: F401  # meanwhile: loading Ray Data takes as long
    from job.cluster.address import find_place

    ray_place = find_place(config.address)
    model = read_model()
    if config.decode == "reduced" and model.size is None:
        raise ConfigError(
            f"--decode reduced: {config.model} does not resize every image to one size, so there is"
            " nothing to reduce to. Leave it out"
        )
    return ray_place, model
