"""Sequential inference: the stock processor, model and post-processing, one image at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image

from job import Checkpoint, predict_sequential
from job.models.loading import load_model
from tests.conftest import picture


@pytest.fixture(scope="module")
def loaded(model_dir: Path) -> tuple[Any, Any]:
    return load_model(Checkpoint.from_directory(model_dir))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (96, 96), (57, 83)])
def test_a_map_is_the_argmax_of_upsampled_logits_at_the_size_of_the_image(
    loaded: tuple[Any, Any], size: tuple[int, int]
) -> None:
    model, processor = loaded
    image = Image.fromarray(picture(1, *size))
    (found,) = predict_sequential([image], model, processor)
    pixels = np.asarray(image.resize((96, 96), Image.Resampling.BILINEAR), np.float32) / 255
    pixels = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.no_grad():
        values = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
        logits = model(pixel_values=values).logits
        scores = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[0]
    assert found.shape == size
    assert found.dtype == np.int64
    # The processor divides and normalises in another order, which rounds differently.
    assert (found == scores.argmax(0).numpy()).mean() > 0.999


def test_images_and_arrays_give_the_same_maps(loaded: tuple[Any, Any]) -> None:
    arrays = [picture(seed, 40, 60 + seed) for seed in range(3)]
    first = predict_sequential([Image.fromarray(array) for array in arrays], *loaded)
    second = predict_sequential(arrays, *loaded)
    assert [array.shape for array in first] == [(40, 60), (40, 61), (40, 62)]
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
    assert len({label for found in first for label in np.unique(found)}) > 1


@pytest.mark.parametrize("size", [(1, 40), (3, 40), (40, 1), (40, 3), (3, 3), (1, 1)])
def test_an_array_of_a_few_rows_is_taken_as_the_picture_it_is(
    loaded: tuple[Any, Any], size: tuple[int, int]
) -> None:
    array = picture(4, *size)
    (expected,) = predict_sequential([Image.fromarray(array)], *loaded)
    (found,) = predict_sequential([array], *loaded)
    assert np.array_equal(found, expected)


def test_a_map_does_not_depend_on_the_images_around_it(loaded: tuple[Any, Any]) -> None:
    arrays = [picture(seed, 50, 70) for seed in range(4)]
    together = predict_sequential(arrays, *loaded)
    for array, expected in zip(arrays, together, strict=True):
        (alone,) = predict_sequential([array], *loaded)
        assert np.array_equal(alone, expected)


def test_images_may_come_one_by_one(loaded: tuple[Any, Any]) -> None:
    def arrays() -> Iterator[np.ndarray]:
        yield picture(0, 10, 12)
        yield picture(1, 12, 10)

    assert [found.shape for found in predict_sequential(arrays(), *loaded)] == [(10, 12), (12, 10)]
    assert predict_sequential([], *loaded) == []


def test_dropout_is_off_and_the_images_are_left_as_they_are(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    image = picture(2, 30, 40)
    before = image.copy()
    model.train()
    first, second = (predict_sequential([image], model, processor)[0] for _ in range(2))
    assert np.array_equal(first, second)
    assert np.array_equal(image, before)
