"""Maps: the rows of an OUTPUT's ``maps/``, read back; exports begin here."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from job.errors import StorageError
from job.images.map_png import decode_map
from job.storage import parquet
from job.storage.location import Location

# What bytes raise that are no map; see decode_map, and Pillow for the last.
UNREADABLE = (OSError, ValueError, SyntaxError)


def read_maps(output: Location, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of all images that have a map, file by file, so that one file is in memory.

    Args:
        output: the OUTPUT, whose format was checked.
        columns: of :data:`job.schema.MAPS`; what is not named is not fetched.
            :func:`class_ids` needs ``id``, ``uri`` and ``map``.

    Raises:
        StorageError: a file is damaged, or no run has written it.
    """
    for table in parquet.tables(output / "maps", columns):
        yield from table.to_pylist()


def class_ids(row: Mapping[str, Any]) -> np.ndarray:
    """The map of a row, decoded: (height, width) uint8, or uint16 above 256 classes.

    Raises:
        StorageError: it does not decode; names the image.
    """
    try:
        return decode_map(row["map"]["bytes"])
    except UNREADABLE as error:
        raise StorageError(
            f"the map of {row['uri']} (id {row['id']}) cannot be read: {error}. See"
            " python -m job verify --deep"
        ) from error
