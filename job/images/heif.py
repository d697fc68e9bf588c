"""HEIF: pictures of phones, by libheif."""

import importlib
import io
import sys
from typing import Any

from job.images.pillow import Image, loaded_again
from job.images.reasons import not_identified, refuse_oversized

# A copy, for pillow_heif keeps its settings in module variables as Pillow does.
_name = loaded_again("pillow_heif")
_library: Any = sys.modules[_name]
_options: Any = importlib.import_module(f"{_name}.options")
_options.THUMBNAILS = _options.DEPTH_IMAGES = _options.AUX_IMAGES = False
_options.DECODE_THREADS = 1


def load(data: bytes, pixel_limit: int) -> Image.Image:
    """The primary picture of a HEIC or another HEIF, upright, in 8 bits.

    Raises:
        ImageError: its header is damaged, or it is too large.
        OSError, ValueError, RuntimeError, EOFError: its pixels are damaged.
    """
    try:
        file = _library.HeifFile(
            io.BytesIO(data), convert_hdr_to_8bit=True, hdr_to_16bit=True, remove_stride=False
        )
        picture = file[file.primary_index]
    except (OSError, ValueError, SyntaxError, RuntimeError, EOFError, IndexError):
        raise not_identified(data) from None
    refuse_oversized(picture.size, pixel_limit)
    pixels = picture.data  # decoding may correct the size
    image = Image.frombytes(picture.mode, picture.size, pixels, "raw", picture.mode, picture.stride)
    # libheif has turned it already, as phones write the turn twice.
    _library.set_orientation(picture.info)
    image.info = picture.info
    return image
