"""Look-up: the fast kernel against the plain reference, in every type that models take."""

import numpy as np
import pytest
import torch

from job.kernels.lookup import look_up, look_up_reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (1, 1, 1, 3), (3, 1, 300, 3)])
def test_both_ways_to_look_bytes_up_are_equal(
    dtype: torch.dtype, shape: tuple[int, int, int, int]
) -> None:
    table = torch.randn(3, 256).to(dtype)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    found = look_up(table, images)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, look_up_reference(table, torch.from_numpy(images)))


def test_values_that_are_not_finite_and_the_ends_of_the_table_are_found() -> None:
    table = torch.randn(3, 256)
    table[0, 0], table[1, 255], table[2, 255] = float("inf"), float("-inf"), -0.0
    images = np.array([[[[0, 255, 255], [255, 0, 0]]]], np.uint8)
    found = look_up(table, images)
    assert torch.equal(found, look_up_reference(table, torch.from_numpy(images)))
    assert found[0, :, 0, 0].tolist() == [float("inf"), float("-inf"), 0.0]
