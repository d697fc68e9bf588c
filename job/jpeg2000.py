"""JPEG 2000: what its codestream says, and pictures of more than 8 bits, which Pillow wraps."""

import struct

import numpy as np
from PIL import Image

from job.errors import ImageError
from job.image_reasons import too_large

# Every tile costs the decoder kilobytes before its first byte is read.
_MOST_TILES = 16_384
_START = b"\xff\x4f\xff\x51"


def refuse_lying_codestream(data: bytes, pixel_limit: int) -> None:
    """What the decoder goes by, not what the file around it says (ISO/IEC 15444-1, A.5.1)."""
    place = data.find(_START)
    while place >= 0:
        fields = data[place + 8 : place + 42]
        if len(fields) < 34:
            raise ImageError("truncated", "the file is cut short in its header")
        right, bottom, left, top, width, height, first_x, first_y, components = struct.unpack(
            ">8IH", fields
        )
        if (right - left) * (bottom - top) > pixel_limit:
            pixels = (right - left) * (bottom - top)
            raise too_large(f"{right - left}×{bottom - top} is {pixels:,} pixels", pixel_limit)
        across = -(-(right - first_x) // max(width, 1))
        down = -(-(bottom - first_y) // max(height, 1))
        if across * down > _MOST_TILES or components > 4:
            raise ImageError(
                "unsupported", f"a JPEG 2000 of {across * down:,} tiles, {components} components"
            )
        place = data.find(_START, place + 4)


def deep_picture(data: bytes) -> Image.Image | None:
    """The picture of a file of more than 8 bits; None of another, which Pillow does right.

    Call :func:`refuse_lying_codestream` before.

    Raises:
        ImageError: the file is damaged, or its components are of a sort that cannot be decoded.
    """
    place = data.find(_START)
    if place < 0:
        return None
    components = int.from_bytes(data[place + 40 : place + 42])
    sizes = data[place + 42 : place + 42 + 3 * components]
    depths = [(size & 0x7F) + 1 for size in sizes[::3]]
    if max(depths, default=0) <= 8:
        return None
    if len(set(sizes[::3])) > 1 or set(sizes[1::3]) | set(sizes[2::3]) != {1} or depths[0] > 16:
        raise ImageError(
            "unsupported", f"a JPEG 2000 of components unlike each other, or of {depths[0]} bits"
        )
    if any(box in data[:place] for box in (b"pclr", b"cmap")):
        raise ImageError("unsupported", f"a JPEG 2000 with a palette of {depths[0]} bits")
    levels = _samples(data, place)
    if sizes[0] & 0x80:
        levels = levels.astype(np.int32) + (1 << (depths[0] - 1))
    pixels = (levels >> (depths[0] - 8)).clip(0, 255).astype(np.uint8)
    if pixels.ndim == 3:
        pixels = pixels[:, :, 0] if pixels.shape[2] == 2 else pixels[:, :, :3]
    return Image.fromarray(np.ascontiguousarray(pixels), _mode(data[:place], pixels))


def _mode(boxes: bytes, pixels: np.ndarray) -> str:
    """How to take three bands: the colour box of method 1 says sRGB (16) or sYCC (18)."""
    if pixels.ndim == 2:
        return "L"
    colour = boxes.find(b"colr")
    is_ycc = (
        colour >= 0
        and boxes[colour + 4 : colour + 5] == b"\1"
        and boxes[colour + 7 : colour + 11] == b"\0\0\0\x12"
    )
    return "YCbCr" if is_ycc else "RGB"


def _samples(data: bytes, place: int) -> np.ndarray:
    import imagecodecs

    # The decoder warns of a codestream that is cut, and fills it up; the end marker tells.
    if b"\xff\xd9" not in data[place:]:
        raise ImageError("truncated", "the file is cut short")
    try:
        levels = np.asarray(imagecodecs.jpeg2k_decode(data, numthreads=1))
    except (imagecodecs.Jpeg2kError, ValueError):
        raise ImageError("corrupt", "the file is damaged (a JPEG 2000)") from None
    if levels.ndim not in (2, 3):
        raise ImageError("unsupported", "a JPEG 2000 of several pictures")
    return levels
