"""Schemas: what they promise other tools is what those tools make of them."""

import json
from collections.abc import Iterator
from pathlib import Path

import datasets
import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Features, Image, List, Value

from job import schema


def test_the_metadata_is_in_the_form_that_every_release_of_datasets_reads() -> None:
    """2.21 and 3.6 have no `List`, 5.2 reads the older form as one."""
    features = json.loads(schema.MAPS.metadata[b"huggingface"])["info"]["features"]
    assert features["classes"] == [
        {
            "label": {"dtype": "int32", "_type": "Value"},
            "name": {"dtype": "string", "_type": "Value"},
            "pixels": {"dtype": "int64", "_type": "Value"},
        }
    ]
    assert features["map"] == {"_type": "Image"}
    assert features["confidence"] == {"dtype": "float32", "_type": "Value"}
    kinds = {kind for name, kind in _types(features)}
    assert kinds == {"Value", "Image"}
    assert Features.from_arrow_schema(schema.MAPS) == Features(
        {
            "id": Value("int64"),
            "uri": Value("string"),
            "height": Value("int32"),
            "width": Value("int32"),
            "map": Image(),
            "classes": List(
                {"label": Value("int32"), "name": Value("string"), "pixels": Value("int64")}
            ),
            "confidence": Value("float32"),
            "model": Value("string"),
            "run_id": Value("string"),
        }
    )


def _types(features: object) -> Iterator[tuple[str, str]]:
    if isinstance(features, list):
        for one in features:
            yield from _types(one)
    elif isinstance(features, dict):
        for name, value in features.items():
            if name == "_type":
                yield name, value
            else:
                yield from _types(value)


def test_datasets_loads_a_file_of_this_schema_with_its_features(tmp_path: Path) -> None:
    row = dict.fromkeys(schema.MAPS.names)
    row.update(id=1, uri="a.jpg", height=1, width=1, model="m", run_id="r", confidence=0.5)
    row.update(classes=[{"label": 0, "name": "wall", "pixels": 1}])
    pq.write_table(pa.Table.from_pylist([row], schema=schema.MAPS), tmp_path / "x.parquet")
    loaded = datasets.load_dataset(
        "parquet",
        data_files=str(tmp_path / "x.parquet"),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert len(loaded) == 1
    assert isinstance(loaded.features["map"], Image)
    assert loaded.features == Features.from_arrow_schema(schema.MAPS)


def test_the_columns_are_those_of_the_output_contract() -> None:
    assert schema.MANIFEST.names == ["id", "uri", "size", "etag", "part"]
    assert schema.MAPS.names == [
        *("id", "uri", "height", "width", "map"),
        *("classes", "confidence", "model", "run_id"),
    ]
    assert schema.ERRORS.names == [
        *("id", "uri", "stage", "error_type", "message", "retryable", "run_id"),
    ]
    assert schema.MAPS.field("map").type == pa.struct([("bytes", pa.binary()), ("path", pa.utf8())])


@pytest.mark.parametrize("of", [schema.MANIFEST, schema.MAPS, schema.ERRORS])
def test_other_tools_read_the_columns_as_they_are(tmp_path: Path, of: pa.Schema) -> None:
    file = str(tmp_path / "x.parquet")
    pq.write_table(of.empty_table(), file)
    assert duckdb.read_parquet(str(file)).columns == of.names
    assert polars.read_parquet(file).columns == of.names
    assert pq.read_schema(file).equals(of)
    assert pq.read_schema(file).metadata == of.metadata


def test_classes_are_described_by_id_name_and_color() -> None:
    names = ("sky", "sky")
    colours = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    assert schema.described(names, colours) == [
        {"id": 0, "name": "sky", "color": colours[0].tolist()},
        {"id": 1, "name": "sky", "color": colours[1].tolist()},
    ]
