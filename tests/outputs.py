"""What tests ask of an OUTPUT: its rows, read with plain pyarrow, and the reference maps."""

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image

from job import predict_sequential
from job.images.decode import decode
from job.models.checkpoint import Checkpoint
from job.models.loading import load_model


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


def live_claims(output: Path) -> list[str]:
    """Names of the claims of runs that go on, or were killed, under a local OUTPUT."""
    claims = output.glob("claims/*.json")
    return sorted(path.name for path in claims if "ended" not in json.loads(path.read_text()))


def check_each_image_once(output: object, images: int) -> None:
    """Every id of the manifest has exactly one row, in maps/ or in errors/."""
    listed = [row["id"] for row in manifest(output)]
    assert sorted(listed) == list(range(images))
    found = [row["id"] for folder in ("maps", "errors") for row in rows(output, folder)]
    assert sorted(found) == list(range(images))


def check_equal_to_sequential(
    output: object, model_dir: Path, read: Callable[[str], bytes] | None = None
) -> None:
    """Every map equals what sequential inference gives for its image alone, up to float rounding.

    Of 100,000 pixels one may differ, and only where the two best classes are a hair apart.
    """
    model, processor = load_model(Checkpoint.from_directory(model_dir))
    pixels = differ = 0
    for row in rows(output, "maps"):
        data = read(row["uri"]) if read else Path(row["uri"]).read_bytes()
        image = decode(data)
        (expected,) = predict_sequential([image], model, processor)
        found = ids(row)
        assert found.shape == (row["height"], row["width"]) == expected.shape
        elsewhere = found != expected
        pixels, differ = pixels + found.size, differ + int(elsewhere.sum())
        if elsewhere.any():
            scores = full_size_scores(image, model, processor)[:, elsewhere]
            chosen = np.stack([expected[elsewhere], found[elsewhere]])
            best, other = np.take_along_axis(scores, chosen, axis=0)
            assert (best - other).max() <= 1e-4, row["uri"]
    assert differ <= math.ceil(pixels * 1e-5)


def agreement_with_sequential(output: object, model_dir: Path) -> float:
    """Share of all maps' pixels that equal sequential inference."""
    model, processor = load_model(Checkpoint.from_directory(model_dir))
    pixels = same = 0
    for row in rows(output, "maps"):
        (expected,) = predict_sequential([decode(Path(row["uri"]).read_bytes())], model, processor)
        pixels, same = pixels + expected.size, same + int((ids(row) == expected).sum())
    return same / pixels


def full_size_scores(image: Image.Image, model: Any, processor: Any) -> np.ndarray:
    """Class scores as the stock model and post-processing have them, (classes, height, width)."""
    inputs = processor(images=[image], return_tensors="pt")
    with torch.no_grad():
        logits = model(pixel_values=inputs.pixel_values).logits
    size = (image.height, image.width)
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[0].numpy()
