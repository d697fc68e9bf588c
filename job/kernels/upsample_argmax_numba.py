"""The CPU kernel of `upsample_argmax`: class ids from coarse scores, a cell at a time."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from job.kernels.numba_floats import array_of, compiled, exp, fma, larger, smaller, widen
from job.kernels.rivals import rivals


def upsample_argmax_numba(
    logits: torch.Tensor, sizes: Sequence[tuple[int, int]], dtype: type, threads: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Do what `upsample_argmax` does, for finite logits on the CPU.

    Returns:
        B maps of `dtype`; (B,) float32 confidences, NaN for an image whose logits are not all
        finite: its map means nothing.
    """
    logits = rivals(logits)
    images, _, rows, columns = logits.shape
    if logits.dtype != torch.bfloat16:
        logits = logits.float()
    scores = array_of(logits.permute(0, 2, 3, 1))
    maps: list[np.ndarray] = [np.empty(size, dtype) for size in sizes]
    # The unit of work is a band of coarse rows: a few images fill all threads, too.
    bands = 1 if threads == 1 else min(rows, -(-4 * threads // images))
    edges = [rows * band // bands for band in range(bands + 1)]

    def fill(index: int, band: int) -> tuple[float, bool]:
        height, width = maps[index].shape
        span = edges[band], edges[band + 1]
        return _band(
            scores[index], *span, *_axis(rows, height), *_axis(columns, width), maps[index]
        )

    tasks = [index for index in range(images) for _ in range(bands)], [*range(bands)] * images
    if threads == 1:
        done = list(map(fill, *tasks))
    else:
        with ThreadPoolExecutor(min(threads, images * bands)) as pool:
            done = list(pool.map(fill, *tasks))
    totals = np.array([total for total, _ in done]).reshape(images, bands)
    finite = np.array([fine for _, fine in done]).reshape(images, bands)
    confidences = np.where(finite.all(axis=1), totals.sum(axis=1) / (rows * columns), np.nan)
    return maps, confidences.astype(np.float32)


@functools.lru_cache(maxsize=1024)
def _axis(coarse: int, fine: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where each cell's pixels start, and each pixel's weight of the cell's far corner.

    This is torch's `area_pixel_compute_source_index` in float32, its multiply and subtract fused;
    float64 holds that product exactly.
    """
    scale = np.float64(np.float32(coarse) / np.float32(fine))
    source = np.maximum(scale * (np.arange(fine) + 0.5) - 0.5, 0).astype(np.float32)
    cell = np.minimum(source.astype(np.int64), coarse - 1)
    weight = np.clip(source - cell.astype(np.float32), 0, 1).astype(np.float32)
    return np.searchsorted(cell, np.arange(coarse + 1)), weight


# Slices count references with atomic operations, which cost more than these loops and make
# threads wait for each other: the loops take whole arrays and indices instead.


@compiled(fastmath={"reassoc"})
def _sum_of_exp(row: np.ndarray, j: int, largest: np.float32) -> np.float32:
    total = np.float32(0)
    for k in range(row.shape[1]):
        total += exp(row[j, k] - largest)
    return total


@compiled()
def _largest(row: np.ndarray, j: int) -> np.float32:
    largest = row[j, 0]
    for k in range(row.shape[1]):
        largest = larger(row[j, k], largest)
    return largest


@compiled()
def _first(row: np.ndarray, j: int, size: int, wanted: np.float32) -> int:
    # Counted from the end: a largest number is found in vector registers, a smallest is not.
    from_end = 0
    for k in range(size):
        here = size - k if row[j, k] == wanted else 0
        from_end = here if here > from_end else from_end
    return size - from_end


@compiled()
def _count_from(row: np.ndarray, j: int, bar: np.float32) -> int:
    count = 0
    for k in range(row.shape[1]):
        count += row[j, k] >= bar
    return count


@compiled()
def _all_finite(row: np.ndarray) -> bool:
    finite = True
    for j in range(row.shape[0]):
        for k in range(row.shape[1]):
            finite &= abs(row[j, k]) < np.float32(np.inf)
    return finite


@compiled()
def _just_below(score: np.float32) -> np.float32:
    """A score that stays smaller than `score` through the rounding errors of interpolation."""
    return score - abs(score) * np.float32(2**-20) - np.float32(1e-37)


@compiled()
def _winners(row: np.ndarray, winner: np.ndarray, slot: int) -> tuple[float, bool]:
    """Write the best class of each coarse pixel, -1 where a second one is within rounding.

    Returns the sum of the largest softmax probabilities and whether all scores are finite.
    """
    confidence = 0.0
    for j in range(row.shape[0]):
        largest = _largest(row, j)
        confidence += 1.0 / _sum_of_exp(row, j, largest)
        alone = _count_from(row, j, _just_below(largest)) == 1
        winner[slot, j] = _first(row, j, row.shape[1], largest) if alone else -1
    return confidence, _all_finite(row)


@compiled()
def _load(image: np.ndarray, i: int, row: np.ndarray) -> None:
    """Copy coarse row i of a (h, w, C) image, whichever of its axes is the contiguous one."""
    columns, classes = row.shape
    if image.strides[2] == image.itemsize:
        for j in range(columns):
            for k in range(classes):
                row[j, k] = widen(image[i, j, k])
        return
    # Two classes at a time: more lines of a power-of-two stride evict each other from the cache.
    paired = classes - classes % 2
    for k in range(0, paired, 2):
        for j in range(columns):
            row[j, k] = widen(image[i, j, k])
            row[j, k + 1] = widen(image[i, j, k + 1])
    for k in range(paired, classes):
        for j in range(columns):
            row[j, k] = widen(image[i, j, k])


@compiled()
def _bar(top: np.ndarray, bottom: np.ndarray, j: int, right: int) -> np.float32:
    """Return the best smallest corner score: whatever stays below it cannot win in the cell."""
    bar = np.float32(-np.inf)
    for k in range(top.shape[1]):
        low = smaller(smaller(top[j, k], top[right, k]), smaller(bottom[j, k], bottom[right, k]))
        bar = larger(low, bar)
    return _just_below(bar)


@compiled()
def _interpolate(
    work: np.ndarray, near: int, into: int, size: int, weight: np.float32
) -> np.float32:
    """Mix rows near and near + 1 of work the way torch rounds it; return the largest."""
    rest = np.float32(1) - weight
    largest = np.float32(-np.inf)
    for m in range(size):
        score = fma(rest, work[near, m], weight * work[near + 1, m])
        work[into, m] = score
        largest = larger(score, largest)
    return largest


@compiled()
def _mixed_cell(
    top: np.ndarray,
    bottom: np.ndarray,
    j: int,
    right: int,
    x0: int,
    x1: int,
    y0: int,
    y1: int,
    lx: np.ndarray,
    ly: np.ndarray,
    out: np.ndarray,
    rival: np.ndarray,
    work: np.ndarray,
) -> None:
    """Fill the pixels of one cell from its corner scores; rival and work are scratch memory."""
    bar = _bar(top, bottom, j, right)
    n = 0
    for k in range(top.shape[1]):
        rival[n] = k
        n += (
            (top[j, k] >= bar)
            | (top[right, k] >= bar)
            | (bottom[j, k] >= bar)
            | (bottom[right, k] >= bar)
        )
    for m in range(n):
        k = rival[m]
        work[0, m], work[1, m] = top[j, k], top[right, k]
        work[2, m], work[3, m] = bottom[j, k], bottom[right, k]
    for x in range(x0, x1):
        _interpolate(work, 0, 4, n, lx[x])
        _interpolate(work, 2, 5, n, lx[x])
        for y in range(y0, y1):
            if n > 8:
                largest = _interpolate(work, 4, 6, n, ly[y])
                out[y, x] = rival[_first(work, 6, n, largest)]
            else:
                rest = np.float32(1) - ly[y]
                best = fma(rest, work[4, 0], ly[y] * work[5, 0])
                arg = 0
                for m in range(1, n):
                    score = fma(rest, work[4, m], ly[y] * work[5, m])
                    if score > best:
                        best = score
                        arg = m
                out[y, x] = rival[arg]


@compiled()
def _cell_row(
    top: np.ndarray,
    bottom: np.ndarray,
    winner: np.ndarray,
    above: int,
    below: int,
    y0: int,
    y1: int,
    x_start: np.ndarray,
    lx: np.ndarray,
    ly: np.ndarray,
    out: np.ndarray,
    rival: np.ndarray,
    work: np.ndarray,
) -> None:
    """Fill the pixel rows y0 to y1, which lie between two rows of coarse pixels."""
    columns = top.shape[0]
    for j in range(columns):
        x0, x1 = x_start[j], x_start[j + 1]
        if x0 == x1:
            continue
        right = min(j + 1, columns - 1)
        same = winner[above, j]
        if (
            same >= 0
            and same == winner[above, right]
            and same == winner[below, j]
            and same == winner[below, right]
        ):
            for y in range(y0, y1):
                for x in range(x0, x1):
                    out[y, x] = same
        else:
            _mixed_cell(top, bottom, j, right, x0, x1, y0, y1, lx, ly, out, rival, work)


@compiled()
def _band(
    image: np.ndarray,
    start: int,
    stop: int,
    y_start: np.ndarray,
    ly: np.ndarray,
    x_start: np.ndarray,
    lx: np.ndarray,
    out: np.ndarray,
) -> tuple[float, bool]:
    """Fill the pixels of the coarse rows start to stop of one (h, w, C) image.

    Returns the sum of the largest softmax probabilities and whether all scores are finite.
    """
    rows, columns, classes = image.shape
    row = np.empty((2, columns, classes), np.float32)
    winner = np.empty((2, columns), np.int32)
    rival = np.empty(classes + 1, np.int32)
    work = np.empty((7, classes), np.float32)
    confidence, finite = 0.0, True
    for i in range(start, stop + 1):
        if i < rows:
            _load(image, i, row[i % 2])
            total, fine = _winners(row[i % 2], winner, i % 2)
            if i < stop:  # the row at `stop` is the next band's, and only read here
                confidence += total
                finite &= fine
        if i > start and y_start[i - 1] < y_start[i]:
            above, below = (i - 1) % 2, min(i, rows - 1) % 2
            _cell_row(
                row[above],
                row[below],
                winner,
                above,
                below,
                y_start[i - 1],
                y_start[i],
                x_start,
                lx,
                ly,
                out,
                rival,
                work,
            )
    return confidence, finite
