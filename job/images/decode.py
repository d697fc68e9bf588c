"""Bytes of an image file → an upright RGB array, or the reason why not."""

import io
import re
import zlib
from contextlib import suppress

import numpy as np
import PIL.Image

from job.errors import ImageError
from job.images import floats, icon, jpeg, jpeg2000, libtiff, pillow, png_chunks, tiff, webp
from job.images.pillow import FORMATS, Image, ImageOps, UnidentifiedImageError
from job.images.reasons import (
    is_heif,
    may_be_an_image,
    not_identified,
    reason,
    refuse_oversized,
)
from job.images.tiff_page import first_page
from job.limits import DEFAULT_PIXEL_LIMIT
from job.storage.packing import inflated, is_gzip

# What gzip may unpack to, for every pixel allowed, and how often it may be around a file.
_GZIP_BYTES_PER_PIXEL = 4
_GZIP_LAYERS = 2


def decode(data: bytes, *, pixel_limit: int = DEFAULT_PIXEL_LIMIT) -> PIL.Image.Image:
    """Decode the first frame of an image file to RGB, turned upright by its EXIF orientation.

    Alpha is dropped (colours stay as stored), palettes are looked up, CMYK is converted, samples of
    more than 8 bits keep their high byte, floats are scaled as :func:`job.images.floats.to_bytes`
    says; the file's content decides its format, its name does not. gzip around a file is unpacked.

    Args:
        data: the whole file.
        pixel_limit: the most pixels (width × height, as the header states them) to decode.

    Raises:
        ImageError: with ``kind`` one of ``empty``, ``not_an_image``, ``too_large``, ``truncated``,
            ``corrupt`` or ``unsupported``.
    """
    return decode_reduced(data, None, pixel_limit=pixel_limit)[0]


def decode_reduced(
    data: bytes, side: int | None, *, pixel_limit: int = DEFAULT_PIXEL_LIMIT
) -> tuple[PIL.Image.Image, int]:
    """As :func:`decode`, but a large JPEG at a half, a quarter or an eighth of its size.

    libjpeg then leaves out what resizing would average away: faster, and other pixels. Only what
    divides both sides is taken, so that nothing is shifted; other formats are decoded in full.

    Args:
        data: the whole file.
        side: pixels that both sides of a reduced image have at least; None to reduce nothing.
        pixel_limit: the most pixels to decode, as the header states them.

    Returns:
        The image, and how many times smaller than in full each of its sides is: 1, 2, 4 or 8.

    Raises:
        ImageError: as :func:`decode`.
    """
    for _ in range(_GZIP_LAYERS):
        data = _unpacked(data, pixel_limit) if is_gzip(data) else data
    if not data:
        raise ImageError("empty", "the object is empty (0 bytes)")
    try:
        image, divisor = _loaded(data, pixel_limit, side)
        return pillow.shared(_to_rgb(_upright(image))), divisor
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise not_identified(data) from None
    except Exception as error:  # Pillow's plugins raise whatever their parsing ran into
        raise reason(error, data) from error


def to_array(image: PIL.Image.Image) -> np.ndarray:
    """The pixels of an RGB image, (height, width, 3) uint8."""
    return np.asarray(image, np.uint8)


def _loaded(data: bytes, pixel_limit: int, side: int | None) -> tuple[Image.Image, int]:
    """The image as the file has it, perhaps reduced, and by how much."""
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data, pixel_limit, side)
    if data.startswith(b"\x89PNG"):
        return png_chunks.load(data, pixel_limit), 1
    if data.startswith(icon.SIGNATURE) and (png := icon.png_within(data, pixel_limit)):
        return png_chunks.load(png, pixel_limit), 1
    if data.startswith((b"II", b"MM")):
        with libtiff.quiet():
            return _tiff(data, pixel_limit), 1
    if data.startswith(b"RIFF") and (size := webp.size(data)):
        refuse_oversized(size, pixel_limit)
    if data.startswith((b"P1", b"P2", b"P3")):
        # Pillow copies a megabyte for every comment.
        data = re.sub(rb"#[^\r\n]*", b"", data)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        if not is_heif(data):
            raise
        from job.images import heif  # with libheif, when the first of them comes

        return heif.load(data, pixel_limit), 1
    refuse_oversized(image.size, pixel_limit)
    if image.format == "JPEG2000":
        jpeg2000.refuse_lying_codestream(data, pixel_limit)
        return jpeg2000.load(image, data), 1
    image.load()
    return image, 1


def _jpeg(data: bytes, pixel_limit: int, side: int | None) -> tuple[Image.Image, int]:
    head = jpeg.header(data)
    jpeg.refuse_other_sorts(head)
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    refuse_oversized(image.size, pixel_limit)
    divisor = _divisor(image, data, side)
    return jpeg.load(image, head, data, divisor), divisor


def _tiff(data: bytes, pixel_limit: int) -> Image.Image:
    page = first_page(data)
    if page is not None and not tiff.suits_pillow(page):
        return tiff.decode(data, page, pixel_limit)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        refuse_oversized(image.size, pixel_limit)
        if image.format == "TIFF":
            tile = (image.tag_v2.get(322, 1), image.tag_v2.get(323, 1))  # type: ignore[attr-defined]
            refuse_oversized(tile, pixel_limit, "a tile of ")
            if page is not None:
                tiff.refuse_lost_parts(data, page, pixel_limit)
        image.load()
        return image
    except ImageError:
        raise
    except Exception:
        unsupported = tiff.unsupported(page) if page is not None else None
        if unsupported is None:
            raise
        raise unsupported from None


def _unpacked(data: bytes, pixel_limit: int) -> bytes:
    """What gzip has packed, as objects with ``Content-Encoding: gzip`` are.

    Raises:
        ImageError: it is no image, or damaged, or unpacks to more than an image within the limit.
    """
    with suppress(zlib.error):  # of damage the unpacking tells
        stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
        start = stream.decompress(data, 512)
        is_told = len(start) == 512 or (start and stream.eof)
        if is_told and not (may_be_an_image(start) or is_gzip(start)):
            error = not_identified(start)
            if error.kind == "unsupported":
                raise error
            raise ImageError("not_an_image", "a gzip archive, not an image")
    limit = _GZIP_BYTES_PER_PIXEL * pixel_limit + (1 << 20)
    return inflated(data, "gzip", limit, option="--pixel-limit")


def _divisor(image: Image.Image, data: bytes, side: int | None) -> int:
    if side is None or image.format not in ("JPEG", "MPO"):
        return 1
    if b"\xff\xc3" in data:  # libjpeg does not scale lossless ones; in pixels this cannot stand
        return 1
    fitting = (
        divisor
        for divisor in (8, 4, 2)
        if min(image.size) >= divisor * side and not any(full % divisor for full in image.size)
    )
    return next(fitting, 1)


# Any mode, upright, to RGB


def _upright(image: Image.Image) -> Image.Image:
    try:
        # In place: the pixels are turned before EXIF is written anew, which may go wrong.
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # a broken EXIF block is no reason to lose the picture
        pass
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow would clip these to 255; keep the picture by keeping the high byte.
        levels = np.array(image)
        np.clip(levels, 0, 65535, out=levels)
        return Image.fromarray((levels >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(floats.to_bytes(np.array(image))).convert("RGB")
    return image.convert("RGB")
