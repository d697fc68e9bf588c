"""Manifest source: the rows of a manifest as the first step of a Dataset."""

from typing import Any

import pyarrow as pa
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata


class ManifestSource(Datasource):
    """Rows of a manifest as the first step of a Dataset, a few images to each task.

    Ray Data would read the Parquet files in one block, and drop finished ids from it with actors
    and a repartition that ask for three CPUs by themselves: more than a small machine has.

    Args:
        rows: of the manifest, for the images to do.
        images_per_task: rows to each block.
    """

    def __init__(self, rows: pa.Table, images_per_task: int) -> None:
        super().__init__()
        self._rows = rows
        self._images_per_task = images_per_task

    @property
    def tasks(self) -> int:
        """How many blocks there are."""
        return -(-len(self._rows) // self._images_per_task)

    def estimate_inmemory_data_size(self) -> int:
        return int(self._rows.nbytes)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        return [
            _read_task(self._rows.slice(number * self._images_per_task, self._images_per_task))
            for number in range(self.tasks)
        ]


def _read_task(rows: pa.Table) -> ReadTask:
    # A slice would travel with the buffers of the whole table.
    columns, fields = rows.to_pydict(), rows.schema
    metadata = BlockMetadata(
        num_rows=len(rows), size_bytes=rows.nbytes, input_files=None, exec_stats=None
    )
    return ReadTask(lambda: [pa.table(columns, schema=fields)], metadata, fields)
