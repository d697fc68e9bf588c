"""JPEG 2000: what its codestream says, palettes, and samples of more or fewer than 8 bits.

Pillow wraps samples of more bits. Those of fewer it shifts up: white becomes grey, and the index of
a colour another; and a colour that a palette has twice it counts once.
"""

import struct

import numpy as np

from job.errors import ImageError
from job.images.pillow import Image
from job.images.reasons import refuse_oversized

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
        refuse_oversized((right - left, bottom - top), pixel_limit)
        across = -(-(right - first_x) // max(width, 1))
        down = -(-(bottom - first_y) // max(height, 1))
        if across * down > _MOST_TILES or components > 4:
            raise ImageError(
                "unsupported", f"a JPEG 2000 of {across * down:,} tiles, {components} components"
            )
        place = data.find(_START, place + 4)


def load(image: Image.Image, data: bytes) -> Image.Image:
    """The picture in 8 bits: of more bits the highest, of fewer the same share of white.

    Call :func:`refuse_lying_codestream` before.

    Args:
        image: as Pillow has opened it.
        data: the whole file.

    Raises:
        ImageError: the file is damaged, or its components are of a sort that cannot be decoded.
    """
    place = data.find(_START)
    components = int.from_bytes(data[place + 40 : place + 42])
    sizes = data[place + 42 : place + 42 + 3 * components]
    depths = [(size & 0x7F) + 1 for size in sizes[::3]]
    if place >= 0 and max(depths, default=0) > 8:
        return _deep_picture(data, place, sizes, depths)
    if place >= 0 and b"pclr" in data[:place]:
        return _looked_up(data, place)
    image.load()
    if set(depths) == {8} or len(depths) != len(image.getbands()):
        return image
    return image.point([level for depth in depths for level in _brightened(depth)])


def _brightened(depth: int) -> list[int]:
    """What becomes of each level of a band that was shifted up to 8 bits."""
    white = ((1 << depth) - 1) << (8 - depth)
    return [min(level * 255 // white, 255) for level in range(256)]


def _looked_up(data: bytes, place: int) -> Image.Image:
    """A picture with a palette (ISO/IEC 15444-1, I.5.3.4), in its colours."""
    box = data.index(b"pclr")
    columns = data[box + 6]
    depths = (np.frombuffer(data[box + 7 : box + 7 + columns], np.uint8) & 0x7F) + 1
    # Here are no more columns than the colours have, and alpha: each is a picture in memory.
    colours = _samples(data, place) if columns in (3, 4) and max(depths) <= 16 else None
    if colours is None or colours.ndim != 3 or colours.shape[2] < 3:
        raise ImageError("unsupported", "a JPEG 2000 with a palette of other than three colours")
    white = (1 << depths[:3].astype(np.uint32)) - 1
    return Image.fromarray((colours[:, :, :3] * np.uint32(255) // white).astype(np.uint8))


def _deep_picture(data: bytes, place: int, sizes: bytes, depths: list[int]) -> Image.Image:
    if len(set(sizes[::3])) > 1 or set(sizes[1::3]) | set(sizes[2::3]) != {1} or depths[0] > 16:
        raise ImageError(
            "unsupported", f"a JPEG 2000 of components unlike each other, or of {depths[0]} bits"
        )
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
