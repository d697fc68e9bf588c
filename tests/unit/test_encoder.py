"""Encoder: rows of maps/ with what can be queried."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from job import schema
from job.errors import ImageError
from job.outputs.encoder import MapEncoder
from job.outputs.palette import palette
from job.rows import failure

NAMES = ("sky", "ground", "building", "tree", "vehicle")
COLOURS = palette(NAMES)


def encoder() -> MapEncoder:
    return MapEncoder(NAMES, COLOURS, model="a/model", run_id="run-1")


def batch(maps: list[np.ndarray], errors: list[Any]) -> dict[str, np.ndarray]:
    column = np.empty(len(maps), object)
    for row, ids in enumerate(maps):
        column[row] = ids
    return {
        "id": np.arange(len(maps)),
        "uri": np.array([f"in/{row}.jpg" for row in range(len(maps))], object),
        "height": np.array([ids.shape[0] for ids in maps], np.int32),
        "width": np.array([ids.shape[1] for ids in maps], np.int32),
        "map": column,
        "confidence": np.full(len(maps), 0.5, np.float32),
        "error": np.array(errors, object),
    }


def random_map(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 5, (height, width)).astype(np.uint8)


def test_rows_have_the_columns_of_the_contract_and_the_error_beside_them() -> None:
    table = encoder()(batch([random_map(0, 4, 6), random_map(1, 1, 1)], [None, None]))
    assert table.schema.names == [*schema.MAPS.names, "error"]
    assert table.drop_columns(["error"]).schema.types == schema.MAPS.types
    rows = table.to_pylist()
    assert [row["id"] for row in rows] == [0, 1]
    assert rows[0]["model"] == "a/model"
    assert {row["run_id"] for row in rows} == {"run-1"}


def test_the_png_of_a_row_holds_the_class_ids_and_shows_their_colours() -> None:
    ids = random_map(0, 40, 60)
    (row,) = encoder()(batch([ids], [None])).to_pylist()
    with Image.open(io.BytesIO(row["map"]["bytes"])) as png:
        assert png.format == "PNG"
        assert np.array_equal(np.asarray(png), ids)
        assert np.array_equal(np.asarray(png.convert("RGB")), COLOURS[ids])
    assert row["map"]["path"] is None


def test_classes_are_sorted_by_pixels_and_by_id_where_they_are_equal() -> None:
    ids = np.array([[4, 4, 4, 1], [2, 2, 0, 0]], np.uint8)
    assert encoder().classes(ids) == [
        {"label": 4, "name": "vehicle", "pixels": 3},
        {"label": 0, "name": "sky", "pixels": 2},
        {"label": 2, "name": "building", "pixels": 2},
        {"label": 1, "name": "ground", "pixels": 1},
    ]


def test_a_row_that_failed_passes_through_without_a_map() -> None:
    reason = failure("decode", ImageError("empty", "0 bytes"))
    maps = [random_map(0, 4, 6), np.zeros((1, 1), np.uint8)]
    good, bad = encoder()(batch(maps, [None, reason])).to_pylist()
    assert (good["error"], bad["error"]) == (None, reason)
    assert good["map"] is not None
    assert (bad["map"], bad["classes"]) == (None, None)
    assert bad["uri"] == "in/1.jpg"


def test_the_png_of_a_row_may_be_grey() -> None:
    ids = random_map(0, 40, 60)
    grey = MapEncoder(NAMES, COLOURS, model="a/model", run_id="run-1", grayscale=True)
    (row,), (usual,) = (one(batch([ids], [None])).to_pylist() for one in (grey, encoder()))
    with Image.open(io.BytesIO(row["map"]["bytes"])) as png:
        assert png.mode == "L"
        assert np.array_equal(np.asarray(png), ids)
    assert {**row, "map": None} == {**usual, "map": None}


@pytest.mark.parametrize("count", [0, 1, 2])
def test_batches_without_any_map_keep_the_schema(count: int) -> None:
    maps = [np.zeros((1, 1), np.uint8)] * count
    errors = [failure("decode", ImageError("empty", "0 bytes"))] * count
    table = encoder()(batch(maps, errors))
    assert len(table) == count
    whole = encoder()(batch([random_map(0, 2, 2)], [None]))
    assert pa.concat_tables([table, whole]).schema.equals(whole.schema)


def test_maps_of_equal_size_may_arrive_as_one_array() -> None:
    rows = batch([random_map(0, 4, 6), random_map(1, 4, 6)], [None, None])
    rows["map"] = np.stack(list(rows["map"]))
    for row, ids in zip(encoder()(rows).to_pylist(), rows["map"], strict=True):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(row["map"]["bytes"]))), ids)


def test_more_than_256_classes_are_16_bit_and_counted() -> None:
    names = [f"class {label}" for label in range(300)]
    wide = MapEncoder(names, palette(names), model="m", run_id="r")
    ids = np.array([[299, 299, 256, 0]], np.uint16)
    (row,) = wide(batch([ids], [None])).to_pylist()
    with Image.open(io.BytesIO(row["map"]["bytes"])) as png:
        assert np.array_equal(np.asarray(png), ids)
    assert [(c["label"], c["pixels"]) for c in row["classes"]] == [(299, 2), (0, 1), (256, 1)]
