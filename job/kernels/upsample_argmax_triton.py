"""The CUDA kernels of `upsample_argmax`: a whole batch of differently sized maps in two launches.

Importing this module needs triton; its interpreter (``TRITON_INTERPRET=1``) runs it on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import triton
import triton.language as tl

from job.kernels.rivals import rivals

_PEAK_BLOCK = 128  # coarse pixels of a program: one warp-wide load per 32 of them
_TILE = (8, 32)  # pixels of a program; a smaller tile is more often of one class


def upsample_argmax_triton(
    logits: torch.Tensor, sizes: Sequence[tuple[int, int]], dtype: type
) -> tuple[list[np.ndarray], np.ndarray]:
    """Do what `upsample_argmax` does, for finite logits on one CUDA device.

    Returns:
        B maps of `dtype`, views of one buffer; (B,) float32 confidences, NaN for an image whose
        logits are not all finite: its map means nothing.
    """
    scores = rivals(logits.detach()).contiguous()
    images, classes, rows, columns = scores.shape
    winner = torch.empty((images, rows, columns), dtype=torch.int32, device=scores.device)
    peak = torch.empty((images, rows, columns), dtype=torch.float32, device=scores.device)
    coarse = rows * columns
    _peaks[(triton.cdiv(coarse, _PEAK_BLOCK), images)](
        scores, winner, peak, coarse, classes, BLOCK=_PEAK_BLOCK
    )

    shapes = np.array(sizes, np.int64)
    ends = np.cumsum(shapes.prod(axis=1))
    starts = ends - shapes.prod(axis=1)
    # Divided here in float32, for a GPU's quick division is not rounded as torch's is.
    scales = np.array([rows, columns], np.float32) / shapes.astype(np.float32)
    kind = torch.uint8 if dtype == np.uint8 else torch.uint16
    buffer = torch.empty(int(ends[-1]), dtype=kind, device=scores.device)
    tiles = -(-shapes // np.array(_TILE))
    _fill[(int(tiles.prod(axis=1).max()), images)](
        scores,
        winner,
        buffer,
        torch.from_numpy(shapes).to(scores.device),
        torch.from_numpy(scales).to(scores.device),
        torch.from_numpy(starts).to(scores.device),
        rows,
        columns,
        classes,
        HEIGHT=_TILE[0],
        WIDTH=_TILE[1],
    )
    ids = buffer.cpu().numpy()
    maps = [
        ids[start:end].reshape(size) for start, end, size in zip(starts, ends, sizes, strict=True)
    ]
    confidences = peak.mean(dim=(1, 2), dtype=torch.float64)
    return maps, confidences.cpu().numpy().astype(np.float32)


@triton.jit
def _peaks(  # type: ignore[no-untyped-def]
    scores,
    winner,
    peak,
    coarse,
    classes,
    BLOCK: tl.constexpr,  # noqa: N803
):
    """Write each coarse pixel's best class and its probability, a block of pixels at a time.

    The class is -1 where a second one is within rounding; the probability of scores that are not
    finite is NaN.
    """
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < coarse
    plane = scores + image * classes * coarse
    best = tl.load(plane + pixel, mask=inside, other=0.0).to(tl.float32)
    second = tl.full((BLOCK,), float("-inf"), tl.float32)
    lowest = best
    total = tl.full((BLOCK,), 1.0, tl.float32)
    first = tl.zeros((BLOCK,), tl.int32)
    for k in range(1, classes):
        plane += coarse
        score = tl.load(plane + pixel, mask=inside, other=0.0).to(tl.float32)
        better = score > best
        second = tl.maximum(second, tl.minimum(score, best))
        lowest = tl.minimum(lowest, score)
        # Softmax's sum, kept relative to the best so far: one pass over the scores.
        gap = tl.exp(-tl.abs(score - best))
        total = tl.where(better, total * gap + 1.0, total + gap)
        best = tl.where(better, score, best)
        first = tl.where(better, k, first)
    alone = second < best - tl.abs(best) * (2.0**-20) - 1e-37
    finite = (lowest > float("-inf")) & (best < float("inf")) & (total == total)
    tl.store(winner + image * coarse + pixel, tl.where(alone, first, -1), mask=inside)
    tl.store(
        peak + image * coarse + pixel, tl.where(finite, 1.0 / total, float("nan")), mask=inside
    )


@triton.jit
def _source(pixel, scale, coarse):  # type: ignore[no-untyped-def]
    """Return torch's source cell, the next one, and the weight of the next one."""
    source = tl.maximum(tl.fma(pixel.to(tl.float32) + 0.5, scale, -0.5), 0.0)
    cell = tl.minimum(source.to(tl.int32), coarse - 1)
    weight = tl.minimum(tl.maximum(source - cell.to(tl.float32), 0.0), 1.0)
    return cell, tl.minimum(cell + 1, coarse - 1), weight


@triton.jit
def _fill(  # type: ignore[no-untyped-def]
    scores,
    winner,
    buffer,
    shapes,
    scales,
    starts,
    rows,
    columns,
    classes,
    HEIGHT: tl.constexpr,  # noqa: N803
    WIDTH: tl.constexpr,  # noqa: N803
):
    """Write one tile of one image's map."""
    image = tl.program_id(1).to(tl.int64)
    height = tl.load(shapes + 2 * image).to(tl.int32)
    width = tl.load(shapes + 2 * image + 1).to(tl.int32)
    across = (width + WIDTH - 1) // WIDTH
    first_row = tl.program_id(0) // across * HEIGHT
    y = first_row + tl.arange(0, HEIGHT)
    x = tl.program_id(0) % across * WIDTH + tl.arange(0, WIDTH)
    inside = (y < height)[:, None] & (x < width)[None, :]
    # Beyond the edge the last pixel is repeated, which adds no class to the tile.
    edge_y, edge_x = tl.minimum(y, height - 1), tl.minimum(x, width - 1)
    top, bottom, ly = _source(edge_y, tl.load(scales + 2 * image), rows)
    left, right, lx = _source(edge_x, tl.load(scales + 2 * image + 1), columns)
    near_above = (top * columns)[:, None] + left[None, :]
    far_above = (top * columns)[:, None] + right[None, :]
    near_below = (bottom * columns)[:, None] + left[None, :]
    far_below = (bottom * columns)[:, None] + right[None, :]
    coarse = rows * columns
    corner = winner + image * coarse
    a, b = tl.load(corner + near_above), tl.load(corner + far_above)
    c, d = tl.load(corner + near_below), tl.load(corner + far_below)
    smallest = tl.min(tl.minimum(tl.minimum(a, b), tl.minimum(c, d)))
    largest = tl.max(tl.maximum(tl.maximum(a, b), tl.maximum(c, d)))
    ids = tl.zeros((HEIGHT, WIDTH), tl.int32) + largest
    # There are as many programs as the largest image has tiles: others have some to spare.
    if (first_row < height) & ((smallest < 0) | (smallest != largest)):
        plane = scores + image * classes * coarse
        best = tl.full((HEIGHT, WIDTH), float("-inf"), tl.float32)
        far_y, far_x = ly[:, None], lx[None, :]
        near_y, near_x = 1.0 - far_y, 1.0 - far_x
        for k in range(classes):
            above = near_x * tl.load(plane + near_above).to(tl.float32)
            above += far_x * tl.load(plane + far_above).to(tl.float32)
            below = near_x * tl.load(plane + near_below).to(tl.float32)
            below += far_x * tl.load(plane + far_below).to(tl.float32)
            score = near_y * above + far_y * below
            better = score > best
            best = tl.where(better, score, best)
            ids = tl.where(better, k, ids)
            plane += coarse
    out = buffer + tl.load(starts + image) + y.to(tl.int64)[:, None] * width + x[None, :]
    tl.store(out, ids.to(buffer.dtype.element_ty), mask=inside)
