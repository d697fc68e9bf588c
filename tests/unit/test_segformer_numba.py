"""SegFormer's kernels for one core: each gives what torch gives, rounded once."""

import pytest
import torch
from torch import nn

from job.models import segformer_numba as one_core

Shape = tuple[int, ...]


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Random numbers, some of them large."""
    random = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=random) * 3).to(dtype)


def check_rounded(found: torch.Tensor, exact: torch.Tensor, slack: float = 4e-6) -> None:
    """Within half a unit in the last place of the numbers that float64 gives, and `slack`."""
    unit = 2.0**-8 if found.dtype == torch.bfloat16 else 2.0**-24
    assert found.shape == exact.shape
    allowed = exact.abs() * unit * 1.01 + slack * exact.abs().max()
    assert bool(((found.double() - exact).abs() <= allowed).all())


@pytest.mark.parametrize("shape", [(2, 3, 5, 32), (1, 1, 1, 7), (1, 4, 4, 160), (1, 2, 2, 1)])
def test_layer_norm(shape: Shape, dtype: torch.dtype) -> None:
    features = numbers(*shape, dtype=dtype)
    norm = nn.LayerNorm(shape[-1], eps=1e-6).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(numbers(shape[-1], seed=1))
        norm.bias.copy_(numbers(shape[-1], seed=2))
        found = one_core.layer_norm(features, norm)
        exact = one_core.layer_norm_reference(features, norm)
    assert found.dtype == dtype
    check_rounded(found, exact)


@pytest.mark.parametrize("shape", [(2, 3, 5, 256), (1, 1, 7, 33), (1, 2, 3, 1)])
@pytest.mark.parametrize("scale", [0.17, 1.0, 30.0])
def test_softmax_in_place(shape: Shape, scale: float, dtype: torch.dtype) -> None:
    scores = numbers(*shape, dtype=dtype)
    exact = one_core.softmax_reference(scores, scale)
    found = one_core.softmax_(scores, scale)
    assert found.data_ptr() == scores.data_ptr()
    check_rounded(found, exact)


@pytest.mark.parametrize(
    "shape", [(2, 5, 7, 32), (1, 1, 1, 8), (1, 1, 6, 8), (1, 6, 1, 8), (1, 2, 2, 40), (1, 3, 3, 9)]
)
def test_depthwise_gelu(shape: Shape, dtype: torch.dtype) -> None:
    channels = shape[-1]
    features, bias = numbers(*shape, dtype=dtype), numbers(channels, seed=1, dtype=dtype)
    convolution = nn.Conv2d(channels, channels, 3, padding=1, groups=channels).to(dtype)
    with torch.no_grad():
        found = one_core.depthwise_gelu(features, bias, convolution)
        exact = one_core.depthwise_gelu_reference(features, bias, convolution)
    check_rounded(found, exact)


@pytest.mark.parametrize(
    ("rows", "columns", "coarse"),
    [
        (16, 24, [(8, 12), (4, 6), (2, 3)]),
        (17, 13, [(9, 7), (5, 4), (3, 2)]),
        (1, 1, [(1, 1)]),
        (7, 1, [(4, 1), (1, 1)]),
    ],
)
def test_upsampling_adds_every_stage(
    rows: int, columns: int, coarse: list[tuple[int, int]], dtype: torch.dtype
) -> None:
    stages = [numbers(*size, 20, seed=place, dtype=dtype) for place, size in enumerate(coarse)]
    mixed = numbers(rows, columns, 20, seed=9, dtype=dtype)
    exact = one_core.add_upsampled_relu_reference(mixed, stages)
    upsampling = one_core.Upsampling(stages, rows, columns)
    for start in range(0, rows, 3):
        upsampling.add_relu_(mixed[start : start + 3], start)
    check_rounded(mixed, exact)


def test_one_core_kernels_are_for_inference_on_one_cpu_thread() -> None:
    before = torch.get_num_threads()
    features = numbers(2, 2)
    try:
        torch.set_num_threads(1)
        assert not one_core.fits(features), "somebody may want gradients"
        with torch.inference_mode():
            assert one_core.fits(features)
            assert one_core.fits(features.bfloat16())
            assert not one_core.fits(features.half())
            assert not one_core.fits(features.double())
            assert not one_core.fits(features.to("meta"))
            torch.set_num_threads(2)
            assert not one_core.fits(features)
    finally:
        torch.set_num_threads(before)
