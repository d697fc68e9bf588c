"""Maps: an OUTPUT's rows with the columns that were asked for, and their class ids."""

import numpy as np
import pyarrow as pa
import pytest

from job.errors import StorageError
from job.kernels.png import encode_map
from job.results.maps import class_ids, read_maps
from job.storage import parquet
from job.storage.location import Location

IDS: list[np.ndarray] = [
    np.arange(6, dtype=np.uint8).reshape(2, 3),
    np.full((3, 2), 700, np.uint16),
]


@pytest.fixture
def maps(output: Location) -> Location:
    """Two maps, a file for each; the later one was written first."""
    for number in (1, 0):
        row = {
            "id": number,
            "uri": f"in/{number}.jpg",
            "map": {"bytes": encode_map(IDS[number], grayscale=True)},
        }
        file = output / "maps" / f"run-{number}.parquet"
        file.write_bytes(parquet.to_bytes(pa.Table.from_pylist([row])))
    return output


def test_rows_come_in_the_order_of_the_files_with_the_named_columns_only(maps: Location) -> None:
    assert list(read_maps(maps, ["id", "uri"])) == [
        {"id": 0, "uri": "in/0.jpg"},
        {"id": 1, "uri": "in/1.jpg"},
    ]


def test_class_ids_are_those_that_were_written(maps: Location) -> None:
    found = [class_ids(row) for row in read_maps(maps, ["id", "uri", "map"])]
    for one, other in zip(found, IDS, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_an_output_without_maps_has_no_rows(output: Location) -> None:
    assert list(read_maps(output, ["id"])) == []


@pytest.mark.parametrize("data", [b"", b"no png", encode_map(IDS[0], grayscale=True)[:40]])
def test_a_damaged_map_is_named_with_what_to_do(data: bytes) -> None:
    with pytest.raises(StorageError) as refused:
        class_ids({"id": 3, "uri": "in/3.jpg", "map": {"bytes": data}})
    said = str(refused.value)
    assert said.startswith("the map of in/3.jpg (id 3) cannot be read: ")
    assert said.endswith(". See python -m job verify --deep")
