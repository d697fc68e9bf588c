"""The published model gives the published numbers."""

import urllib.request

import pytest
import torch

from job import predict_sequential
from job.config import DEFAULT_MODEL
from job.images.decode import decode
from job.models.checkpoint import Checkpoint
from job.models.loading import load_model

CATS = "http://images.cocodataset.org/val2017/000000039769.jpg"
# transformers, tests/models/segformer/test_modeling_segformer.py: logits[0, :3, :3, :3].
LOGITS = torch.tensor(
    [
        [[-4.6310, -5.5232, -6.2356], [-5.1921, -6.1444, -6.5996], [-5.4424, -6.2790, -6.7574]],
        [
            [-12.1391, -13.3122, -13.9554],
            [-12.8732, -13.9352, -14.3563],
            [-12.9438, -13.8226, -14.2513],
        ],
        [
            [-12.5134, -13.4686, -14.4915],
            [-12.8669, -14.4343, -14.7758],
            [-13.2523, -14.5819, -15.0694],
        ],
    ]
)


@pytest.mark.network
def test_default_model_gives_the_logits_that_transformers_publishes() -> None:
    with urllib.request.urlopen(CATS, timeout=60) as response:
        image = decode(response.read())
    model, processor = load_model(Checkpoint.from_model(DEFAULT_MODEL))
    pixel_values = processor(images=[image], return_tensors="pt").pixel_values
    with torch.inference_mode():
        logits = model(pixel_values=pixel_values).logits
    assert logits.shape == (1, 150, 128, 128)
    torch.testing.assert_close(logits[0, :3, :3, :3], LOGITS, rtol=1e-4, atol=1e-4)
    (found,) = predict_sequential([image], model, processor)
    assert found.shape == (480, 640)
