"""SegFormer on one core: the steps between its matrix products, a pass over memory for each.

torch takes several passes, and converts bfloat16 back and forth in each. All of these compute in
float32; features are contiguous (..., C) float32 or bfloat16 tensors. Each stands beside its plain
reference, which is torch's own and computes in float64.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from job.kernels.numba_floats import array_of, compiled, exp, larger, narrow, smaller, widen


def fits(features: torch.Tensor) -> bool:
    """Whether these kernels can stand in for torch: one CPU thread, nothing to differentiate."""
    return (
        features.device.type == "cpu"
        and features.dtype in (torch.float32, torch.bfloat16)
        and torch.get_num_threads() == 1
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


def layer_norm(features: torch.Tensor, norm: nn.LayerNorm) -> torch.Tensor:
    """Do what :func:`layer_norm_reference` does: ``norm(features)``, for one over the channels."""
    rows = features.reshape(-1, features.shape[-1])
    out = torch.empty_like(rows)
    _layer_norm(array_of(rows), _floats(norm.weight), _floats(norm.bias), norm.eps, array_of(out))
    return out.reshape(features.shape)


def layer_norm_reference(features: torch.Tensor, norm: nn.LayerNorm) -> torch.Tensor:
    """The same, plainly."""
    weight, bias = norm.weight.double(), norm.bias.double()
    return F.layer_norm(features.double(), norm.normalized_shape, weight, bias, norm.eps)


def softmax_(scores: torch.Tensor, scale: float) -> torch.Tensor:
    """Do what :func:`softmax_reference` does, in the same memory; ``scale`` is positive."""
    _softmax(array_of(scores.view(-1, scores.shape[-1])), np.float32(scale))
    return scores


def softmax_reference(scores: torch.Tensor, scale: float) -> torch.Tensor:
    """The same, plainly, in memory of its own."""
    return (scores.double() * scale).softmax(-1)


def depthwise_gelu(
    features: torch.Tensor, bias: torch.Tensor, convolution: nn.Conv2d
) -> torch.Tensor:
    """Do what :func:`depthwise_gelu_reference` does, in one pass.

    Args:
        features: (B, H, W, C).
        bias: (C,), of the linear layer that has made the features without it.
        convolution: C groups of one channel.
    """
    out = torch.empty_like(features)
    kernel = _floats(convolution.weight).reshape(len(bias), 9).T.copy()
    _depthwise_gelu(
        array_of(features), _floats(bias), kernel, _floats(convolution.bias), array_of(out)
    )
    return out


def depthwise_gelu_reference(
    features: torch.Tensor, bias: torch.Tensor, convolution: nn.Conv2d
) -> torch.Tensor:
    """GELU of a depthwise 3 x 3 convolution, padded with zeros, of features + bias, plainly."""
    assert convolution.bias is not None
    planes = (features.double() + bias.double()).permute(0, 3, 1, 2)
    weight, own = convolution.weight.double(), convolution.bias.double()
    mixed = F.conv2d(planes, weight, own, padding=1, groups=len(bias))
    return F.gelu(mixed).permute(0, 2, 3, 1)


class Upsampling:
    """Coarser stages of an image, to be upsampled bilinearly to its finest.

    A band of rows at a time, as :func:`add_upsampled_relu_reference` does it to all of them.

    Args:
        coarse: each (H_i, W_i, C).
        rows: H to upsample to.
        columns: W, likewise.
    """

    def __init__(self, coarse: Sequence[torch.Tensor], rows: int, columns: int) -> None:
        flat = torch.cat([stage.reshape(-1, stage.shape[-1]) for stage in coarse])
        self._coarse = array_of(flat)
        self._heights = np.array([stage.shape[0] for stage in coarse])
        self._widths = np.array([stage.shape[1] for stage in coarse])
        self._near_rows, self._row_weights = _taps(tuple(self._heights.tolist()), rows)
        self._near_columns, self._column_weights = _taps(tuple(self._widths.tolist()), columns)

    def add_relu_(self, mixed: torch.Tensor, start: int) -> None:
        """Add the stages' sum to rows from ``start`` on, (some rows, W, C) in place; then ReLU."""
        band = slice(start, start + mixed.shape[0])
        _add_upsampled_relu(
            array_of(mixed),
            self._coarse,
            self._heights,
            self._widths,
            self._near_rows[:, band],
            self._row_weights[:, band],
            self._near_columns,
            self._column_weights,
        )


def add_upsampled_relu_reference(
    mixed: torch.Tensor, coarse: Sequence[torch.Tensor]
) -> torch.Tensor:
    """ReLU of (H, W, C) features and every coarser stage, upsampled bilinearly, plainly."""
    total = mixed.double().permute(2, 0, 1)[None]
    for stage in coarse:
        planes = stage.double().permute(2, 0, 1)[None]
        total = total + F.interpolate(planes, size=mixed.shape[:2], mode="bilinear")
    return total[0].permute(1, 2, 0).relu()


def _floats(parameter: torch.Tensor | None) -> np.ndarray:
    assert parameter is not None
    return parameter.detach().float().numpy()


@functools.lru_cache(maxsize=1024)
def _taps(coarse: tuple[int, ...], fine: int) -> tuple[np.ndarray, np.ndarray]:
    """For each stage where each fine pixel's first coarse one is, and the second one's weight.

    As torch has it without aligned corners; (stages, fine) int64 and float32.
    """
    sizes = np.array(coarse)[:, None]
    source = np.maximum((np.arange(fine) + 0.5) * (sizes / fine) - 0.5, 0)
    near = np.minimum(source.astype(np.int64), sizes - 1)
    return near, (source - near).astype(np.float32)


@compiled(fastmath={"reassoc", "contract"})
def _layer_norm(
    features: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float, out: np.ndarray
) -> None:
    rows, channels = features.shape
    row = np.empty(channels, np.float32)
    share = np.float32(1) / np.float32(channels)
    for i in range(rows):
        total = np.float32(0)
        for k in range(channels):
            row[k] = widen(features[i, k])
            total += row[k]
        mean = total * share
        spread = np.float32(0)
        for k in range(channels):
            row[k] -= mean
            spread += row[k] * row[k]
        scale = np.float32(1) / np.sqrt(spread * share + np.float32(eps))
        for k in range(channels):
            out[i, k] = narrow(row[k] * scale * weight[k] + bias[k], out[i, k])


@compiled(fastmath={"reassoc", "contract"})
def _softmax(scores: np.ndarray, scale: np.float32) -> None:
    rows, columns = scores.shape
    row = np.empty(columns, np.float32)
    for i in range(rows):
        largest = widen(scores[i, 0])
        for k in range(columns):
            row[k] = widen(scores[i, k])
            largest = larger(row[k], largest)
        total = np.float32(0)
        for k in range(columns):
            row[k] = exp(scale * (row[k] - largest))
            total += row[k]
        share = np.float32(1) / total
        for k in range(columns):
            scores[i, k] = narrow(row[k] * share, scores[i, k])


@compiled(fastmath={"contract"})
def _gelu(x: np.float32) -> np.float32:
    """x * (1 + erf(x / sqrt 2)) / 2; the rational approximation of erf is that of Eigen."""
    z = smaller(larger(x * np.float32(0.7071067811865476), np.float32(-4)), np.float32(4))
    s = z * z
    p = np.float32(-2.72614225801306e-10)
    p = p * s + np.float32(2.77068142495902e-08)
    p = p * s + np.float32(-2.10102402082508e-06)
    p = p * s + np.float32(-5.69250639462346e-05)
    p = p * s + np.float32(-7.34990630326855e-04)
    p = p * s + np.float32(-2.95459980854025e-03)
    p = p * s + np.float32(-1.60960333262415e-02)
    q = np.float32(-1.45660718464996e-05)
    q = q * s + np.float32(-2.13374055278905e-04)
    q = q * s + np.float32(-1.68282697438203e-03)
    q = q * s + np.float32(-7.37332916720468e-03)
    q = q * s + np.float32(-1.42647390514189e-02)
    half = np.float32(0.5) * x
    return half + half * (z * p / q)


@compiled(fastmath={"contract"})
def _depthwise_gelu(
    features: np.ndarray, bias: np.ndarray, kernel: np.ndarray, own: np.ndarray, out: np.ndarray
) -> None:
    images, rows, columns, channels = features.shape
    inside = own.copy()  # the bias of all nine taps
    for k in range(channels):
        for tap in range(9):
            inside[k] += bias[k] * kernel[tap, k]
    row = np.empty(channels, np.float32)
    for b in range(images):
        for y in range(rows):
            for x in range(columns):
                if 0 < y < rows - 1 and 0 < x < columns - 1:
                    for k in range(channels):
                        total = (
                            inside[k]
                            + kernel[0, k] * widen(features[b, y - 1, x - 1, k])
                            + kernel[1, k] * widen(features[b, y - 1, x, k])
                            + kernel[2, k] * widen(features[b, y - 1, x + 1, k])
                            + kernel[3, k] * widen(features[b, y, x - 1, k])
                            + kernel[4, k] * widen(features[b, y, x, k])
                            + kernel[5, k] * widen(features[b, y, x + 1, k])
                            + kernel[6, k] * widen(features[b, y + 1, x - 1, k])
                            + kernel[7, k] * widen(features[b, y + 1, x, k])
                            + kernel[8, k] * widen(features[b, y + 1, x + 1, k])
                        )
                        out[b, y, x, k] = narrow(_gelu(total), out[b, y, x, k])
                    continue
                for k in range(channels):
                    row[k] = own[k]
                for tap in range(9):
                    i, j = y + tap // 3 - 1, x + tap % 3 - 1
                    if 0 <= i < rows and 0 <= j < columns:
                        for k in range(channels):
                            row[k] += kernel[tap, k] * (widen(features[b, i, j, k]) + bias[k])
                for k in range(channels):
                    out[b, y, x, k] = narrow(_gelu(row[k]), out[b, y, x, k])


@compiled(fastmath={"contract"})
def _add_upsampled_relu(
    mixed: np.ndarray,
    coarse: np.ndarray,
    heights: np.ndarray,
    widths: np.ndarray,
    near_rows: np.ndarray,
    row_weights: np.ndarray,
    near_columns: np.ndarray,
    column_weights: np.ndarray,
) -> None:
    rows, columns, channels = mixed.shape
    stages = len(heights)
    between = np.empty((widths.sum(), channels), np.float32)  # coarse rows, mixed for a fine one
    pixel = np.empty(channels, np.float32)
    for y in range(rows):
        place, before = 0, 0
        for s in range(stages):
            near, weight = near_rows[s, y], row_weights[s, y]
            far = min(near + 1, heights[s] - 1)
            for j in range(widths[s]):
                a, b = before + near * widths[s] + j, before + far * widths[s] + j
                for k in range(channels):
                    first = widen(coarse[a, k])
                    between[place + j, k] = first + weight * (widen(coarse[b, k]) - first)
            place += widths[s]
            before += heights[s] * widths[s]
        for x in range(columns):
            for k in range(channels):
                pixel[k] = widen(mixed[y, x, k])
            place = 0
            for s in range(stages):
                a = place + near_columns[s, x]
                b = place + min(near_columns[s, x] + 1, widths[s] - 1)
                weight = column_weights[s, x]
                for k in range(channels):
                    pixel[k] += between[a, k] + weight * (between[b, k] - between[a, k])
                place += widths[s]
            for k in range(channels):
                mixed[y, x, k] = narrow(larger(pixel[k], np.float32(0)), mixed[y, x, k])
