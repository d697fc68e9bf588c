"""Prepare: INPUT, OUTPUT and the model, opened before anything is started; and what is done."""

import os
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from job.config import JobConfig
from job.errors import ConfigError, StorageError
from job.inputs.listing import list_objects, refuse_overlap
from job.inputs.manifest import Manifest
from job.limits import DEFAULT_RETRY_POLICY, RetryPolicy
from job.models.checkpoint import Checkpoint, Origin
from job.models.reading import start_reading
from job.outputs import error_rows
from job.outputs.commits import Commits
from job.outputs.receipts import check_format
from job.storage.archives import archive_of, without_copies
from job.storage.location import STORAGE_ERRORS, Location, StorageOptions, explain, locate
from job.storage.refusals import kind_of
from job.storage.s3 import S3

if TYPE_CHECKING:
    from job.cluster.address import Place
    from job.models.info import ModelInfo

# Filesystems of fsspec that cannot be written, by their schemes; archives cannot either.
_READ_ONLY = {"data", "github", "http", "https"}


def open_places(
    source: str,
    output: str,
    options: StorageOptions | None = None,
    retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY,
) -> tuple[Location, Location]:
    """INPUT and OUTPUT, once it is known that there is an INPUT and that OUTPUT takes files.

    Raises:
        ConfigError: OUTPUT is inside INPUT, or is none that can be written.
        StorageError: nothing is there, or it may not be used.
    """
    _refuse_read_only(output)
    places = locate(source, options, retry_policy), locate(output, options, retry_policy)
    refuse_overlap(*places)
    check_output(output, options, retry_policy)
    check_input(source, options, retry_policy)
    return places


def check_input(
    source: str,
    options: StorageOptions | None = None,
    retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY,
) -> None:
    """Look whether anything is there: on a disk at one folder or a few, on S3 at one page.

    Raises:
        StorageError: nothing is there, or it may not be listed.
    """
    for _ in islice(list_objects(source, options, retry_policy), 1):
        pass


def check_output(
    output: str,
    options: StorageOptions | None = None,
    retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY,
) -> None:
    """Look whether an OUTPUT could be written; writes nothing.

    Raises:
        ConfigError: its storage is one that is only read.
        StorageError: it cannot be asked, may not be written, or is a file.
    """
    _refuse_read_only(output)
    place = locate(output, options, retry_policy)
    if place.is_local:
        check_folder(f"OUTPUT {output}", place.path)
        return
    try:
        if isinstance(place.fs, S3):
            bucket, key, _ = place.fs.split_path(place.path)
            found = place.fs.listing(bucket, key)
            is_file = next(found, {}).get("Key") == key != ""
        else:
            is_file = place.exists() and place.fs.isfile(place.path)
    except Exception as error:  # filesystems of other clouds have errors of their own
        if not isinstance(error, STORAGE_ERRORS) and kind_of(error) == "unknown":
            raise
        raise StorageError(f"OUTPUT {output} cannot be written: {explain(error)}") from error
    if is_file:
        raise _no_folder(f"OUTPUT {output}", place.path)


def _refuse_read_only(output: str) -> None:
    scheme, mark, _ = without_copies(output).partition("://")
    is_archive = bool(archive_of(output)) and scheme != "dir"
    if is_archive or (mark and scheme in _READ_ONLY):
        what = "an archive" if is_archive else f"{scheme}://"
        raise ConfigError(
            f"OUTPUT {output}: {what} cannot be written. Give a folder, or a prefix of a bucket"
        )


def check_folder(named: str, path: str) -> None:
    """Look at a local folder, or at the one in which it would be made; makes nothing.

    Args:
        named: what to call it in a message.
        path: of the folder.

    Raises:
        StorageError: it may not be written, or a file is in the way.
    """
    there = os.path.abspath(path)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        if os.path.islink(there) and not os.path.exists(there):
            raise StorageError(
                f"{named} cannot be written: {there} is a link that leads nowhere. Remove it, or"
                " make the folder that it names"
            )
        raise _no_folder(named, there)
    if not os.access(there, os.W_OK | os.X_OK):
        raise StorageError(
            f"{named} cannot be written: permission denied ({there}). Give a folder that this user"
            " may write"
        )
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        raise StorageError(
            f"{named} cannot be written: {there} is on a file system that is only read"
        )


def _no_folder(named: str, file: str) -> StorageError:
    return StorageError(
        f"{named} cannot be written: a file is in the way ({file}). Give a folder for the results"
    )


def done_ids(config: JobConfig, output: Location) -> np.ndarray:
    """Ids that need no more work, sorted int64."""
    done = Commits(output).done()
    if config.retry_errors is None:
        return done
    only_retryable = config.retry_errors == "retryable"
    return np.setdiff1d(done, error_rows.open_errors(output, only_retryable=only_retryable))


def rows_to_do(config: JobConfig, images: Manifest, done: np.ndarray) -> pa.Table:
    """Rows of the manifest, for the images to do."""
    remaining = images.without(done)
    # What failed may have been mended since it was listed.
    return images.as_listed_now(remaining) if config.retry_errors else remaining


def open_output(config: JobConfig) -> Location:
    """OUTPUT, once it is known that it and INPUT can be used; see :func:`open_places`.

    Raises:
        OutputConflictError: OUTPUT has a format that this version does not know.
    """
    _, output = open_places(
        config.input, config.output, config.storage_options, config.retry_policy
    )
    check_format(output)
    return output


def open_checkpoint(config: JobConfig) -> tuple[Checkpoint, Origin]:
    """The model's files, and where they came from.

    Raises:
        ModelError: it cannot be found, reached or read.
    """
    checkpoint = Checkpoint.from_model(config.model, config.revision, config.storage_options)
    assert checkpoint.origin is not None  # as every one of from_model's
    return checkpoint, checkpoint.origin


def look_ahead(config: JobConfig, checkpoint: Checkpoint) -> "tuple[Place, ModelInfo]":
    """Where the work will be done and with what: needed as soon as there is any.

    Raises:
        JobError: the cluster cannot be joined, or the model is none for semantic segmentation.
    """
    read_model = start_reading(checkpoint)
    from job.cluster import waiting  # noqa: F401  # meanwhile: loading Ray Data takes as long
    from job.cluster.address import find_place

    place = find_place(config.address)
    model = read_model()
    if config.decode == "reduced" and model.size is None:
        raise ConfigError(
            f"--decode reduced: {config.model} does not resize every image to one size, so there is"
            " nothing to reduce to. Leave it out"
        )
    return place, model
