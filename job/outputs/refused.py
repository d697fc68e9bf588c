"""Refused: what a run says when OUTPUT takes nothing more."""

import contextlib
from collections.abc import Iterator

from ray.exceptions import RayError

from job.errors import JobError, StorageError, causes
from job.storage.location import Location
from job.storage.refusals import REFUSALS, STORAGE_ERRORS, explain


@contextlib.contextmanager
def explaining_refusals(output: Location) -> Iterator[None]:
    """Around the work on OUTPUT, in this process and in workers.

    Raises:
        StorageError: OUTPUT could not be written. Images that cannot be read are rows and raise
            nothing, so what storage raises in here is about OUTPUT.
    """
    try:
        yield
    except (RayError, *STORAGE_ERRORS) as error:
        if any(isinstance(behind, JobError) for behind in causes(error)):
            raise
        kinds = REFUSALS if isinstance(error, RayError) else STORAGE_ERRORS
        refused = [behind for behind in causes(error) if isinstance(behind, kinds)]
        if not refused:
            raise
        raise StorageError(
            f"OUTPUT {output.uri} cannot be written: {explain(refused[-1])}. What is committed"
            " stays; the same command goes on once it can be written again"
        ) from error
