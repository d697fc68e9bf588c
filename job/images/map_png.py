"""Map PNG: the class ids of a PNG, one of ours or an annotation."""

import numpy as np

from job.errors import ImageError
from job.images import png_chunks
from job.images.pillow import Image

# As many as Pillow, left alone, takes for a picture and not for a bomb.
_MOST_PIXELS = 178_956_970


def decode_map(png: bytes) -> np.ndarray:
    """Return the class ids of a PNG map: (H, W) uint8, or uint16 from 16 bits a pixel.

    Raises:
        ValueError: the PNG holds colours, not one id per pixel; it lacks rows, or is damaged.
        OSError: the bytes are not an image, or are cut short.
    """
    image = _loaded(png)
    if image.mode not in ("1", "P", "L", "I;16"):
        raise ValueError(
            f"a PNG of mode {image.mode} is not a map of class ids; "
            "pass one that is paletted, or greyscale with 1, 2, 4, 8 or 16 bits"
        )
    return np.array(image, dtype=np.uint16 if image.mode == "I;16" else np.uint8)


def _loaded(png: bytes) -> Image.Image:
    # Nothing but PNG: for other formats Pillow may start other programs.
    try:
        return png_chunks.load(png, _MOST_PIXELS)
    except ImageError as error:
        if error.kind == "too_large":
            raise ValueError(f"the PNG is too large to be a map: {error.message}") from error
        raise ValueError(error.message) from error
