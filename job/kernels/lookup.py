"""Look-up: bytes of images to the values that a table has for them."""

import numpy as np
import torch

from job.kernels.numba_floats import array_of, compiled


def look_up(table: torch.Tensor, images: np.ndarray) -> torch.Tensor:
    """Do what :func:`look_up_reference` does, on the CPU, in one pass over memory.

    Args:
        table: (3, 256), of any type: the value of each byte in each channel.
        images: (B, height, width, 3) uint8.

    Returns:
        (B, 3, height, width) of the table's type, channels last in memory.
    """
    values = torch.empty(images.shape, dtype=table.dtype)
    _look_up(array_of(table), images.reshape(-1, 3), array_of(values).reshape(-1, 3))
    return values.permute(0, 3, 1, 2)


def look_up_reference(table: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """The same, plainly, with torch alone: on whatever device the tensors are on."""
    channels = [table[channel][images[..., channel].int()] for channel in range(3)]
    return torch.stack(channels, 3).permute(0, 3, 1, 2)


@compiled()
def _look_up(table: np.ndarray, pixels: np.ndarray, values: np.ndarray) -> None:
    for pixel in range(len(pixels)):
        for channel in range(3):
            values[pixel, channel] = table[channel, pixels[pixel, channel]]
