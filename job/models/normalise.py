"""Normalise: uint8 images to what a model takes, equal to its image processor in every bit."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from job.kernels.lookup import look_up, look_up_reference
from job.models.processors import fixed_size


class Normaliser:
    """Rescales and normalises on the predictor's device, so that only bytes travel to it.

    A processor that does no more than resize, rescale and normalise is a table of 256 values per
    channel; any other is run as it is, one image at a time.

    Args:
        image_processor: the Hugging Face image processor (Pillow backend).
        device: where the model is.
        dtype: what it takes; the processor's float32 is rounded to it.
    """

    def __init__(
        self, image_processor: Any, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self.size = fixed_size(image_processor)
        self._image_processor = image_processor
        self._device, self._dtype = device, dtype
        table = levels(image_processor) if self.size else np.empty((3, 0), np.float32)
        self._levels = torch.from_numpy(table).to(device, dtype)

    def __call__(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """Pixels of a batch, (B, 3, height, width) on the device, channels last in memory unless
        the image processor makes them.

        Args:
            images: (height, width, 3) uint8 RGB; more than one only when :attr:`size` is known.
        """
        if self.size is None:
            # As Pillow images: an array of three rows would pass for three channels.
            pictures = [Image.fromarray(image) for image in images]
            values = self._image_processor(images=pictures, return_tensors="pt").pixel_values
            return values.to(self._device, self._dtype)
        resized = np.stack([self._resized(image) for image in images])
        if self._device.type == "cpu":
            return look_up(self._levels, resized)
        there = torch.from_numpy(resized).pin_memory().to(self._device, non_blocking=True)
        return look_up_reference(self._levels, there)

    def _resized(self, image: np.ndarray) -> np.ndarray:
        assert self.size is not None
        if image.shape[:2] == (self.size.height, self.size.width):
            return image
        return np.asarray(self.size.resize(Image.fromarray(image)))


def levels(image_processor: Any) -> np.ndarray:
    """What the processor's rescale and normalise make of each byte, (3, 256) float32."""
    bytes_ = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    values = image_processor(
        images=[Image.fromarray(bytes_)], do_resize=False, return_tensors="np"
    ).pixel_values
    return np.ascontiguousarray(values[0, :, 0, :], np.float32)
