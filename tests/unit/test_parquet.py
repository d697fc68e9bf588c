"""Parquet: files are compressed where that pays, and say their columns without any row."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from job import schema
from job.errors import StorageError
from job.storage import parquet
from job.storage.location import Location


@pytest.mark.parametrize("of", [schema.MAPS, schema.ERRORS, schema.MANIFEST])
def test_all_columns_are_compressed_but_those_that_are_named(of: pa.Schema) -> None:
    data = parquet.to_bytes(of.empty_table(), uncompressed=["map.bytes"])
    group = parquet_metadata(data).row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    found = {column.path_in_schema: column.compression for column in columns}
    assert found.pop("map.bytes", "UNCOMPRESSED") == "UNCOMPRESSED"
    assert set(found.values()) == {"ZSTD"}


def parquet_metadata(data: bytes) -> pq.FileMetaData:
    return pq.ParquetFile(io.BytesIO(data)).metadata


def test_a_table_is_read_back_as_it_was_written(output: Location) -> None:
    table = pa.table({"id": [3, 1], "uri": ["a", None]}).replace_schema_metadata({"labels": "[]"})
    (output / "a.parquet").write_bytes(parquet.to_bytes(table))
    found = parquet.read(output / "a.parquet")
    assert found.equals(table, check_metadata=True)
    assert parquet.read(output / "a.parquet", ["id"]).to_pydict() == {"id": [3, 1]}


def test_a_schema_alone_has_no_row_group() -> None:
    data = parquet.schema_to_bytes(schema.MAPS)
    assert parquet_metadata(data).num_row_groups == 0
    found = pq.read_schema(io.BytesIO(data))
    assert found.equals(schema.MAPS)
    assert found.metadata == schema.MAPS.metadata


def test_the_files_of_a_folder_come_by_their_names_and_nothing_else_does(output: Location) -> None:
    for name, number in (("b.parquet", 2), ("a.parquet", 1)):
        (output / "maps" / name).write_bytes(parquet.to_bytes(pa.table({"id": [number]})))
    (output / "maps" / "notes.txt").write_bytes(b"no Parquet")
    assert [table["id"].to_pylist() for table in parquet.tables(output / "maps")] == [[1], [2]]
    assert list(parquet.tables(output / "nowhere")) == []


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no Parquet at all"])
def test_a_damaged_file_is_named(output: Location, data: bytes) -> None:
    (output / "a.parquet").write_bytes(data)
    with pytest.raises(StorageError, match=r"a\.parquet is damaged, or no Parquet file"):
        parquet.read(output / "a.parquet")


def test_a_column_that_is_not_there_is_named(output: Location) -> None:
    (output / "a.parquet").write_bytes(parquet.to_bytes(pa.table({"id": [1]})))
    with pytest.raises(StorageError, match=r"a\.parquet: there is no column 'uri'"):
        parquet.read(output / "a.parquet", ["id", "uri"])


def test_what_arrow_takes_for_an_error_of_storage_is_damage_all_the_same(output: Location) -> None:
    data = parquet.to_bytes(pa.table({"id": [1, 2, 3]}))
    place = data.index(b"ARROW:schema") + 20
    (output / "a.parquet").write_bytes(data[:place] + b"AAAA" + data[place + 4 :])
    with pytest.raises(StorageError, match=r"a\.parquet is damaged"):
        parquet.read(output / "a.parquet")


def test_text_that_is_no_text_is_damage(output: Location) -> None:
    odd = pa.array([b"\xff\xfe"]).cast(pa.string(), safe=False)
    (output / "a.parquet").write_bytes(parquet.to_bytes(pa.table({"uri": odd})))
    with pytest.raises(StorageError, match=r"a\.parquet is damaged"):
        parquet.read(output / "a.parquet")


def test_a_file_that_is_gone_is_not_damaged(output: Location) -> None:
    with pytest.raises(FileNotFoundError):
        parquet.read(output / "a.parquet")
