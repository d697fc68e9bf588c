"""upsample_argmax: the fast kernels against torch's interpolate and argmax, on hostile inputs."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from job.kernels.upsample_argmax import (
    map_dtype,
    upsample_argmax,
    upsample_argmax_reference,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# Below AVX2 torch itself does not fuse multiply and add, and rounds differently.
FUSED = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def count_ties(
    maps: Sequence[np.ndarray], logits: torch.Tensor, sizes: Sequence[tuple[int, int]]
) -> int:
    """Count the pixels that differ from torch's; fail where the two classes are no float tie.

    One class is decided by its sigmoid: it is the second of two, and the first scores 0.
    """
    differing = 0
    for ids, image, size in zip(maps, logits.float().contiguous(), sizes, strict=True):
        scores = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]
        assert ids.shape == tuple(size)
        assert ids.dtype == (np.uint8 if len(image) <= 256 else np.uint16)
        chosen = torch.from_numpy(ids.astype(np.int64))
        if len(image) == 1:
            scores = torch.cat([torch.full_like(scores, 1.5 * 2.0**-24), scores])
        wrong = chosen != scores.argmax(0)
        differing += int(wrong.sum())
        best = scores.amax(0)
        gap = best - scores.gather(0, chosen[None])[0]
        scale = image.abs().max()
        assert bool((gap[wrong] <= 1e-5 * scale).all()), "a class won that is no tie"
    return differing


def smooth_logits(shape: tuple[int, int, int, int], seed: int) -> torch.Tensor:
    """Scores like a trained model's: large regions, a little noise, a few mixed cells."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randn(*shape[:2], 6, 7, generator=random) * 4
    blobs = F.interpolate(coarse, size=shape[2:], mode="bicubic")
    return blobs + 0.2 * torch.randn(shape, generator=random)


SHAPES = [
    # classes, (h, w), (H, W)
    (150, (32, 32), (128, 171)),
    (150, (128, 128), (512, 683)),
    (2, (16, 24), (64, 96)),
    (1, (4, 4), (9, 9)),
    (3, (1, 1), (7, 5)),
    (5, (1, 40), (33, 17)),
    (5, (40, 1), (17, 33)),
    (19, (64, 48), (64, 48)),
    (19, (64, 48), (32, 24)),
    (19, (64, 48), (31, 47)),
    (19, (33, 47), (1, 1)),
    (19, (33, 47), (1, 400)),
    (19, (33, 47), (400, 1)),
    (256, (9, 9), (100, 30)),
    (257, (9, 9), (100, 30)),
    (1000, (8, 8), (37, 61)),
    (7, (13, 11), (900, 1100)),
]


@pytest.mark.parametrize("channels_last", [False, True], ids=["planes", "channels last"])
@pytest.mark.parametrize(("classes", "coarse", "fine"), SHAPES)
def test_maps_equal_torchs_bit_for_bit(
    classes: int, coarse: tuple[int, int], fine: tuple[int, int], channels_last: bool
) -> None:
    noise = torch.randn(1, classes, *coarse, generator=torch.Generator().manual_seed(classes))
    logits = torch.cat([noise, smooth_logits((1, classes, *coarse), seed=classes)])
    if channels_last:
        logits = logits.contiguous(memory_format=torch.channels_last)
    sizes = [fine, fine]
    maps, confidences = upsample_argmax(logits, sizes)
    ties = count_ties(maps, logits, sizes)
    if FUSED and coarse != (1, 1):  # torch takes another path for a single pixel
        assert ties == 0
    _, plain = upsample_argmax_reference(logits, sizes)
    np.testing.assert_allclose(confidences, plain, rtol=1e-5)


HOSTILE = {
    "all zero": torch.zeros(2, 150, 12, 12),
    "constant, equal classes": torch.full((2, 9, 12, 12), -3.7),
    "huge": torch.randn(2, 21, 12, 12, generator=torch.Generator().manual_seed(1)) * 1e30,
    "tiny": torch.randn(2, 21, 12, 12, generator=torch.Generator().manual_seed(2)) * 1e-30,
    "far below zero": torch.randn(2, 21, 12, 12, generator=torch.Generator().manual_seed(3)) - 500,
    "few distinct values": torch.randint(
        -2, 3, (2, 30, 12, 12), generator=torch.Generator().manual_seed(4)
    ).float(),
    "ties within rounding": 1
    + torch.randint(0, 3, (2, 8, 12, 12), generator=torch.Generator().manual_seed(5)) * 2.0**-23,
    "huge and close": 1e30
    + torch.randint(0, 3, (2, 8, 12, 12), generator=torch.Generator().manual_seed(6)) * 1e23,
    "checkerboard": ((torch.arange(12)[:, None] + torch.arange(12)) % 2).float()
    * torch.tensor([1.0, -1.0])[:, None, None].expand(2, 2, 1, 1),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("fine", [(50, 61), (12, 12), (5, 7), (24, 36)])
def test_hostile_scores_change_nothing(name: str, fine: tuple[int, int]) -> None:
    logits, sizes = HOSTILE[name], [fine, fine]
    maps, confidences = upsample_argmax(logits, sizes)
    # Where classes tie, torch itself picks one or the other by its place in a vector register.
    count_ties(maps, logits, sizes)
    _, plain = upsample_argmax_reference(logits, sizes)
    np.testing.assert_allclose(confidences, plain, rtol=1e-5)


def test_random_shapes_and_thread_counts_agree_with_torch() -> None:
    random = np.random.default_rng(11)
    for round_ in range(40):
        images, classes = random.integers(1, 4), random.integers(1, 40)
        coarse = random.integers(1, 20, 2).tolist()
        sizes = [tuple(random.integers(1, 90, 2).tolist()) for _ in range(images)]
        seed = torch.Generator().manual_seed(round_)
        logits = torch.randn(int(images), int(classes), *coarse, generator=seed)
        expected = [ids.tolist() for ids in upsample_argmax(logits, sizes, threads=1)[0]]
        count_ties(upsample_argmax(logits, sizes, threads=1)[0], logits, sizes)
        for threads in (2, 3, 16):
            maps, _ = upsample_argmax(logits, sizes, threads=threads)
            assert [ids.tolist() for ids in maps] == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_scores_are_interpolated_in_float32(dtype: torch.dtype) -> None:
    logits = smooth_logits((2, 40, 20, 30), seed=8).to(dtype)
    sizes = [(77, 131), (140, 99)]
    maps, confidences = upsample_argmax(logits, sizes)
    for one, other in zip(maps, upsample_argmax(logits.float(), sizes)[0], strict=True):
        np.testing.assert_array_equal(one, other)
    assert count_ties(maps, logits, sizes) == 0 or not FUSED
    expected = logits.float().softmax(1).amax(1).mean((1, 2)).numpy()
    np.testing.assert_allclose(confidences, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels_last", [False, True], ids=["planes", "channels last"])
def test_one_class_is_where_its_sigmoid_is_above_one_half(
    dtype: torch.dtype, channels_last: bool
) -> None:
    logits = smooth_logits((3, 1, 16, 24), seed=14).to(dtype)
    logits[1], logits[2] = -2, 2.0**-24  # one half, in float32
    if channels_last:
        logits = logits.contiguous(memory_format=torch.channels_last)
    sizes = [(64, 96), (5, 7), (9, 9)]
    for upsample in (upsample_argmax, upsample_argmax_reference):
        (mixed, *alike), confidences = upsample(logits, sizes)
        scores = F.interpolate(logits[:1].float(), sizes[0], mode="bilinear", align_corners=False)
        sure = (scores[0, 0].abs() > 1e-6).numpy()
        assert ((mixed == (scores.sigmoid() > 0.5)[0, 0].numpy()) | ~sure).all()
        assert set(np.unique(mixed)) == {0, 1}
        assert not any(ids.any() for ids in alike), "one half is not above one half"
        assert mixed.dtype == np.uint8
        sigmoid = logits[:, 0].double().sigmoid()
        expected = torch.maximum(sigmoid, 1 - sigmoid).mean((1, 2))
        np.testing.assert_allclose(confidences, expected, rtol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_not_finite_are_left_to_the_reference(bad: float) -> None:
    logits = smooth_logits((2, 6, 9, 9), seed=9)
    logits[1, 2, 4, 4] = bad
    sizes = [(40, 50), (30, 20)]
    maps, confidences = upsample_argmax(logits, sizes)
    plain, plain_confidences = upsample_argmax_reference(logits, sizes)
    for one, other in zip(maps, plain, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(confidences, plain_confidences, rtol=1e-5)


def test_the_reference_is_the_plain_formula_however_classes_are_grouped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits = smooth_logits((1, 23, 10, 10), seed=10)
    plain = F.interpolate(logits, size=(45, 31), mode="bilinear", align_corners=False)[0].argmax(0)
    for floats in (1, 45 * 31 * 4, 1 << 30):
        module = sys.modules["job.kernels.upsample_argmax"]
        monkeypatch.setattr(module, "_REFERENCE_FLOATS", floats)
        maps, _ = upsample_argmax_reference(logits, [(45, 31)])
        np.testing.assert_array_equal(maps[0], plain.numpy())


def test_a_large_map_needs_memory_for_the_map_not_for_its_scores() -> None:
    logits = smooth_logits((1, 150, 64, 64), seed=12)
    upsample_argmax(logits, [(64, 64)])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    maps, _ = upsample_argmax(logits, [(3000, 4000)])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert maps[0].shape == (3000, 4000)
    assert grown < 100, f"{grown:.0f} MiB; the scores would be 6,900"


def test_sizes_may_be_numpy_numbers() -> None:
    logits = smooth_logits((1, 5, 8, 8), seed=13)
    for upsample in (upsample_argmax, upsample_argmax_reference):
        size: Any = np.array([20, 30])
        assert upsample(logits, [size])[0][0].shape == (20, 30)


def test_logits_and_sizes_that_do_not_fit_are_refused() -> None:
    logits = torch.zeros(2, 3, 4, 4)
    for bad in (logits[0], logits.long(), logits[:, :0]):
        with pytest.raises(ValueError, match="logits have shape"):
            upsample_argmax(bad, [(4, 4)] * 2)
    with pytest.raises(ValueError, match="1 sizes for 2 images"):
        upsample_argmax(logits, [(4, 4)])
    with pytest.raises(ValueError, match="must be 1 or more"):
        upsample_argmax(logits, [(4, 4), (0, 4)])
    with pytest.raises(ValueError, match="at most 65536"):
        upsample_argmax(torch.zeros(1, 65537, 1, 1), [(1, 1)])


def test_the_kernel_compiles_where_nothing_can_be_cached() -> None:
    # A locator-less numba is what a read-only installation without a home directory looks like.
    program = (
        "import numba.core.caching as caching; caching.CacheImpl._locator_classes = [];"
        "import torch; from job.kernels.upsample_argmax import upsample_argmax;"
        "maps, _ = upsample_argmax(torch.eye(2)[None, :, :, None], [(2, 1)], threads=1);"
        "print(maps[0].tolist())"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=dict(os.environ)
    )
    assert result.stdout.strip() == "[[0], [1]]", result.stderr


@pytest.fixture
def upsample_on_gpu() -> Callable[..., Any]:
    """The CUDA kernels: on a GPU where there is one, else through triton's interpreter."""
    pytest.importorskip("triton", reason="needs triton: pip install triton")
    from job.kernels.upsample_argmax_triton import upsample_argmax_triton

    return upsample_argmax_triton


@pytest.mark.parametrize(
    ("classes", "coarse", "fine"),
    [
        (5, (16, 20), [(70, 90), (33, 21), (1, 1)]),
        (2, (1, 1), [(9, 40), (1, 1)]),
        (1, (6, 7), [(20, 30)]),
        (21, (12, 9), [(5, 4), (12, 9), (24, 18), (50, 8)]),
        (300, (5, 6), [(17, 13)]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_gpu_kernels_give_torchs_maps(
    upsample_on_gpu: Callable[..., Any],
    classes: int,
    coarse: tuple[int, int],
    fine: list[tuple[int, int]],
    dtype: torch.dtype,
) -> None:
    logits = smooth_logits((len(fine), classes, *coarse), seed=classes)
    logits[0] = torch.randn(logits[0].shape, generator=torch.Generator().manual_seed(1))
    logits = logits.to(DEVICE, dtype)
    maps, confidences = upsample_on_gpu(logits, fine, map_dtype(classes))
    count_ties(maps, logits.cpu(), fine)
    _, plain = upsample_argmax_reference(logits, fine)
    np.testing.assert_allclose(confidences, plain, rtol=1e-4)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_scores_change_nothing_on_the_gpu(
    upsample_on_gpu: Callable[..., Any], name: str
) -> None:
    logits, sizes = HOSTILE[name], [(25, 31), (12, 12)]
    maps, confidences = upsample_on_gpu(logits.to(DEVICE), sizes, np.uint8)
    count_ties(maps, logits, sizes)
    _, plain = upsample_argmax_reference(logits, sizes)
    np.testing.assert_allclose(confidences, plain, rtol=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_the_gpu_kernels_mark_images_that_are_not_finite(
    upsample_on_gpu: Callable[..., Any], bad: float
) -> None:
    logits = smooth_logits((3, 4, 5, 5), seed=2)
    logits[1, 2, 4, 4] = bad
    logits[2, 0, 0, 0] = bad
    _, confidences = upsample_on_gpu(logits.to(DEVICE), [(8, 8)] * 3, np.uint8)
    assert np.isnan(confidences).tolist() == [False, True, True]
