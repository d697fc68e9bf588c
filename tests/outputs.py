"""What tests ask of an OUTPUT: its rows, read with plain pyarrow, and the reference maps."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from job import predict_sequential
from job.checkpoint import Checkpoint
from job.images import decode
from job.model import load_model


def rows(output: object, folder: str) -> list[dict[str, Any]]:
    """Every row under OUTPUT/maps or OUTPUT/errors."""
    fs, path = fsspec.url_to_fs(str(output))
    fs.invalidate_cache()
    files = sorted(fs.glob(f"{path}/{folder}/*.parquet"))
    return [
        row for file in files for row in pq.read_table(io.BytesIO(fs.cat_file(file))).to_pylist()
    ]


def ids(row: dict[str, Any]) -> np.ndarray:
    """The class ids of a row of maps/."""
    return np.asarray(Image.open(io.BytesIO(row["map"]["bytes"])))


def manifest(output: object) -> list[dict[str, Any]]:
    """The rows of the frozen manifest."""
    return rows(output, "manifest")


def check_each_image_once(output: object, images: int) -> None:
    """Every id of the manifest has exactly one row, in maps/ or in errors/."""
    listed = [row["id"] for row in manifest(output)]
    assert sorted(listed) == list(range(images))
    found = [row["id"] for folder in ("maps", "errors") for row in rows(output, folder)]
    assert sorted(found) == list(range(images))


def check_equal_to_sequential(
    output: object, model_dir: Path, read: Callable[[str], bytes] | None = None
) -> None:
    """Every map equals, in every pixel, what sequential inference gives for its image alone."""
    model, processor = load_model(Checkpoint.from_directory(model_dir))
    for row in rows(output, "maps"):
        data = read(row["uri"]) if read else Path(row["uri"]).read_bytes()
        (expected,) = predict_sequential([decode(data)], model, processor)
        found = ids(row)
        assert found.shape == (row["height"], row["width"]) == expected.shape
        assert np.array_equal(found, expected), row["uri"]
