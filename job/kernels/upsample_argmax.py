"""Upsample and argmax: coarse class scores to a full-size map, without full-size scores."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from job.kernels.rivals import rivals

MAX_CLASSES = 1 << 16
_REFERENCE_FLOATS = 1 << 25  # the reference upsamples as many classes at a time as fit in here


def upsample_argmax(
    logits: torch.Tensor, sizes: Sequence[tuple[int, int]], *, threads: int | None = None
) -> tuple[list[np.ndarray], np.ndarray]:
    """Upsample each image's scores bilinearly to its own size and take the best class per pixel.

    The maps equal ``F.interpolate(logits[i:i+1].float(), size, mode="bilinear",
    align_corners=False)[0].argmax(0)``; a pixel may differ only where its two best classes are
    equal within float32 rounding. The CPU kernel rounds exactly as torch's vector code does.

    One class is decided by the sigmoid: 1 where that of the upsampled score is above one half, 0
    elsewhere. That is the better of two classes of which the first always scores one half.

    Args:
        logits: (B, C, h, w) float32, bfloat16 or float16, on the CPU or a CUDA device, in any
            memory format; on the CPU ``torch.channels_last`` saves a transposition.
        sizes: (height, width) of each of the B images, in pixels, larger or smaller than (h, w).
        threads: CPU threads to use; ``torch.get_num_threads()`` by default. Ignored on CUDA.

    Returns:
        A list of B maps, (height, width) uint8, or uint16 above 256 classes; and (B,) float32
        confidences: the mean over the *coarse* h × w grid of the largest softmax probability (of
        one class, the larger of the sigmoid and the rest).

    Raises:
        ValueError: logits are not (B, C, h, w) floats, or sizes do not fit them.

    Method: bilinear weights are a convex combination, so a cell whose four corners share one
    winner is that class throughout; elsewhere only classes whose largest corner score reaches the
    best smallest corner score can win.
    """
    sizes = _checked(logits, sizes)
    dtype = map_dtype(logits.shape[1])
    if logits.device.type == "cpu":
        from job.kernels.upsample_argmax_numba import upsample_argmax_numba

        threads = threads or torch.get_num_threads()
        maps, confidences = upsample_argmax_numba(logits, sizes, dtype, threads)
    elif logits.is_cuda and find_spec("triton") is not None:
        from job.kernels.upsample_argmax_triton import upsample_argmax_triton

        maps, confidences = upsample_argmax_triton(logits, sizes, dtype)
    else:
        return upsample_argmax_reference(logits, sizes)
    for index in np.flatnonzero(np.isnan(confidences)).tolist():
        # Pruning compares scores, which infinities and not-a-numbers do not survive.
        plain, confidence = upsample_argmax_reference(logits[index, None], [sizes[index]])
        maps[index], confidences[index] = plain[0], confidence[0]
    return maps, confidences


def upsample_argmax_reference(
    logits: torch.Tensor, sizes: Sequence[tuple[int, int]]
) -> tuple[list[np.ndarray], np.ndarray]:
    """Do what `upsample_argmax` does, plainly, with torch alone and on any device.

    Classes are upsampled a group at a time, which bounds memory and changes no value.
    """
    sizes = _checked(logits, sizes)
    maps, confidences = [], []
    for image, (height, width) in zip(logits, sizes, strict=True):
        scores = image.float().contiguous()[None]
        best = arg = None
        # One of several classes, alone, would take another code path of torch's, which rounds
        # differently.
        group = max(2, _REFERENCE_FLOATS // (height * width))
        for start in range(0, scores.shape[1], group):
            part = F.interpolate(
                scores[:, start : start + group],
                size=(height, width),
                mode="bilinear",
                align_corners=False,
            )[0]
            part_best, part_arg = part.max(dim=0)
            part_arg += start
            if best is None or arg is None:
                best, arg = part_best, part_arg
            else:
                # Not-a-number is torch's largest value.
                better = (part_best > best) | (part_best.isnan() & ~best.isnan())
                best = torch.where(better, part_best, best)
                arg = torch.where(better, part_arg, arg)
        assert best is not None
        assert arg is not None
        if scores.shape[1] == 1:
            arg = best.sigmoid() > 0.5
        maps.append(arg.cpu().numpy().astype(map_dtype(scores.shape[1])))
        confidences.append(rivals(scores).softmax(dim=1).amax(dim=1).double().mean())
    return maps, torch.stack(confidences).cpu().numpy().astype(np.float32)


def map_dtype(classes: int) -> type[np.uint8] | type[np.uint16]:
    """Return the dtype of a map: uint8 holds 256 classes, uint16 the rest."""
    return np.uint8 if classes <= 256 else np.uint16


def _checked(logits: torch.Tensor, sizes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    if logits.ndim != 4 or not logits.is_floating_point() or 0 in logits.shape:
        raise ValueError(
            f"logits have shape {tuple(logits.shape)} and dtype {logits.dtype}; "
            "pass floats of shape (images, classes, height, width), none of them 0"
        )
    if logits.shape[1] > MAX_CLASSES:
        raise ValueError(f"{logits.shape[1]} classes; a uint16 map holds at most {MAX_CLASSES}")
    if len(sizes) != logits.shape[0]:
        raise ValueError(f"{len(sizes)} sizes for {logits.shape[0]} images; pass one per image")
    for height, width in sizes:
        if height < 1 or width < 1:
            raise ValueError(f"size {(height, width)}: height and width must be 1 or more")
    return [(int(height), int(width)) for height, width in sizes]
