"""Ray's commits: Ray Data set up to record the ids of what the sink has written.

:mod:`job.outputs.commits` reads the records.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import ray
from ray.data.checkpoint import CheckpointConfig

from job.cluster.data_settings import data_settings
from job.cluster.ray_internals import CheckpointManager
from job.errors import JobError, StorageError, causes
from job.outputs.commits import FOLDER
from job.storage.location import Location
from job.storage.refusals import REFUSALS, explain


class _AlreadyDropped(CheckpointManager):
    """Tells Ray that nothing is left to drop: the manifest was read without what is done."""

    def load_checkpoint(
        self, data_file_dir: str | None = None, data_file_filesystem: Any = None
    ) -> tuple[None, int]:
        return None, 0


@contextlib.contextmanager
def committing(output: Location) -> Iterator[None]:
    """Within the context, Ray Data records the ids of what the sink has written.

    Raises:
        StorageError: OUTPUT could not be written. Images that cannot be read are rows and raise
            nothing, so what storage raises in here is about OUTPUT.
    """
    records = CheckpointConfig(
        id_column="id",
        checkpoint_path=(output / FOLDER).path,
        override_filesystem=output.arrow,
        delete_checkpoint_on_success=False,
        checkpoint_manager_cls=_AlreadyDropped,
    )
    try:
        with data_settings(checkpoint_config=records):
            yield
    except ray.exceptions.RayError as error:
        refused = [behind for behind in causes(error) if isinstance(behind, REFUSALS)]
        if not refused or any(isinstance(e, JobError) for e in causes(error)):
            raise
        raise StorageError(
            f"OUTPUT {output.uri} cannot be written: {explain(refused[-1])}. What is committed"
            " stays; the same command goes on once it can be written again"
        ) from error
