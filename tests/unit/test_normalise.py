"""Normalisation: what a model takes of bytes is what its own processor makes of them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from job.models.checkpoint import Checkpoint
from job.models.loading import load_model
from job.models.normalise import Normaliser
from tests.conftest import picture


@pytest.fixture(scope="module")
def image_processor(model_dir: Path) -> Any:
    return load_model(Checkpoint.from_model(str(model_dir)))[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_values_are_the_processors_rounded_to_what_the_model_takes(
    image_processor: Any, dtype: torch.dtype
) -> None:
    images = [picture(seed, 96, 96) for seed in range(3)] + [picture(3, 70, 131)]
    values = Normaliser(image_processor, torch.device("cpu"), dtype)(images)
    exact = image_processor(
        images=[Image.fromarray(image) for image in images], return_tensors="pt"
    ).pixel_values
    assert values.dtype == dtype
    assert values.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(values, exact.to(dtype))


def test_a_processor_that_does_something_else_is_run_as_it_is(image_processor: Any) -> None:
    image_processor = type(image_processor)(do_resize=False)
    normaliser = Normaliser(image_processor, torch.device("cpu"), torch.bfloat16)
    assert normaliser.size is None
    image = picture(5, 40, 3)
    exact = image_processor(images=[Image.fromarray(image)], return_tensors="pt").pixel_values
    assert torch.equal(normaliser([image]), exact.to(torch.bfloat16))
