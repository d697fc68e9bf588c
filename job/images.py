"""Bytes of an image file → an upright RGB array, or the reason why not."""

import ctypes
import ctypes.util
import io
import logging
import re
import struct
import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import PIL
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from job.errors import ImageError
from job.image_reasons import not_identified, reason, too_large

# Formats that Pillow decodes by itself, without starting another program (EPS would).
_SAFE_FORMATS = (
    *("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "PPM", "AVIF", "ICO", "TGA"),
)
EXTENSIONS = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff", ".bmp"),
        *(".dib", ".gif", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".avif"),
        *(".ico", ".tga"),
    )
)

DEFAULT_PIXEL_LIMIT = 100_000_000

# Far above what cameras and programs write, far below what takes minutes: Pillow joins the EXIF of
# all segments again for each, parses every chunk in Python, and libjpeg goes over all pixels in
# every scan.
_MOST_SEGMENTS = 1000
_MOST_CHUNKS = 100_000
_MOST_SCANS = 100
# Every tile of a JPEG 2000 file costs the decoder kilobytes before its first byte is read.
_MOST_TILES = 16_384

# What an EXIF orientation asks for.
_TURNS: Mapping[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow logs remarks on files, and the ImageError says it already.
logging.getLogger("PIL").setLevel(logging.CRITICAL)


def decode(data: bytes, *, pixel_limit: int = DEFAULT_PIXEL_LIMIT) -> Image.Image:
    """Decode the first frame of an image file to RGB, turned upright by its EXIF orientation.

    Alpha is dropped (colours stay as stored), palettes are looked up, 16-bit greys are scaled to
    8 bits, CMYK is converted; the file's content decides its format, its name does not.

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
) -> tuple[Image.Image, int]:
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
    if not data:
        raise ImageError("empty", "the object is empty (0 bytes)")
    # A truncated file must not be padded with grey, whatever another library has set.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    # Our own limit stands in for Pillow's, which only warns at first; but an icon is decoded, and
    # room is made for a WebP, when they are opened.
    opened_at_once = data.startswith((b"\0\0\1\0", b"RIFF"))
    Image.MAX_IMAGE_PIXELS = pixel_limit if opened_at_once else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image, divisor = _loaded(data, pixel_limit, side)
            return _to_rgb(_upright(image)), divisor
        except ImageError:
            raise
        except UnidentifiedImageError:
            raise not_identified(data) from None
        except Exception as error:  # Pillow's plugins raise whatever their parsing ran into
            if "MAX_TEXT_" in str(error) and data.startswith(b"\x89PNG"):
                return decode_reduced(_without_text(data), side, pixel_limit=pixel_limit)
            raise reason(error, data, pixel_limit) from error
        finally:
            Image.MAX_IMAGE_PIXELS = None


def to_array(image: Image.Image) -> np.ndarray:
    """The pixels of an RGB image, (height, width, 3) uint8."""
    return np.asarray(image, np.uint8)


@cache
def _formats() -> tuple[str, ...]:
    """The safe formats that this build of Pillow has."""
    from PIL import AvifImagePlugin

    Image.init()
    # One task has one CPU; by default every AVIF would start a thread on each.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    return tuple(name for name in _SAFE_FORMATS if name in Image.OPEN)


def _loaded(data: bytes, pixel_limit: int, side: int | None) -> tuple[Image.Image, int]:
    """The image as the file has it, perhaps reduced, and by how much."""
    if data.startswith(b"\xff\xd8\xff"):
        _refuse_endless_jpeg(data)
    elif data.startswith(b"\x89PNG"):
        _refuse_endless_png(data)
    elif data.startswith((b"II", b"MM")):
        _quieten_libtiff()
    elif data.startswith((b"P1", b"P2", b"P3")):
        # Pillow copies a megabyte for every comment.
        data = re.sub(rb"#[^\r\n]*", b"", data)
    image = Image.open(io.BytesIO(data), formats=_formats())
    _refuse_oversized(image.size, pixel_limit)
    if image.format == "TIFF":
        tile = (image.tag_v2.get(322, 1), image.tag_v2.get(323, 1))  # type: ignore[attr-defined]
        _refuse_oversized(tile, pixel_limit, "a tile of ")
    elif image.format == "JPEG2000":
        _refuse_lying_codestream(data, pixel_limit)
    elif image.info.get("progressive") and data.count(b"\xff\xda") > _MOST_SCANS:
        raise ImageError("corrupt", f"a progressive JPEG with more than {_MOST_SCANS} scans")
    divisor = _divisor(image, data, side)
    if divisor > 1:
        image.draft(image.mode, (image.width // divisor, image.height // divisor))
    image.load()
    return image, divisor


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


# What is refused by its header


def _refuse_oversized(size: tuple[int, int], pixel_limit: int, what: str = "") -> None:
    width, height = size
    if width * height > pixel_limit:
        raise too_large(f"{what}{width}×{height} is {width * height:,} pixels", pixel_limit)


def _refuse_endless_jpeg(jpeg: bytes) -> None:
    place = 2
    for _ in range(_MOST_SEGMENTS):
        found = jpeg.find(b"\xff", place, place + (1 << 16))
        marker = jpeg[found + 1 : found + 2]
        if found < 0 or marker in (b"", b"\xda"):
            break
        has_length = marker >= b"\xc0" and not b"\xd0" <= marker <= b"\xd9"
        length = int.from_bytes(jpeg[found + 2 : found + 4]) if has_length else 0
        place = found + (2 + length if marker != b"\xff" else 1)
    else:
        raise ImageError("corrupt", f"more than {_MOST_SEGMENTS:,} segments before the picture")
    if found < 0 and len(jpeg) > place + (1 << 16):
        raise ImageError("corrupt", "the file is damaged (no picture where one has to begin)")


def _refuse_endless_png(png: bytes) -> None:
    place = 8
    for _ in range(_MOST_CHUNKS):
        place += 12 + int.from_bytes(png[place : place + 4])
        if place >= len(png):
            return
    raise ImageError("corrupt", f"a PNG of more than {_MOST_CHUNKS:,} chunks")


def _refuse_lying_codestream(data: bytes, pixel_limit: int) -> None:
    """What the decoder goes by, not what the file around it says (ISO/IEC 15444-1, A.5.1)."""
    place = data.find(b"\xff\x4f\xff\x51")
    while place >= 0:
        fields = data[place + 8 : place + 42]
        if len(fields) < 34:
            raise ImageError("truncated", "the file is cut short in its header")
        right, bottom, left, top, width, height, first_x, first_y, components = struct.unpack(
            ">8IH", fields
        )
        _refuse_oversized((right - left, bottom - top), pixel_limit)
        across = -(-(right - first_x) // max(width, 1))
        down = -(-(bottom - first_y) // max(height, 1))
        if across * down > _MOST_TILES or components > 4:
            raise ImageError(
                "unsupported", f"a JPEG 2000 of {across * down:,} tiles, {components} components"
            )
        place = data.find(b"\xff\x4f\xff\x51", place + 4)


def _without_text(png: bytes) -> bytes:
    """A PNG without texts and colour profile, which inflate to megabytes: they are not needed."""
    kept, place = [png[:8]], 8
    while place < len(png):
        end = place + 12 + int.from_bytes(png[place : place + 4])
        if png[place + 4 : place + 8] not in (b"iCCP", b"iTXt", b"tEXt", b"zTXt"):
            kept.append(png[place:end])
        place = end
    return b"".join(kept)


@cache
def _quieten_libtiff() -> None:
    """Keep libtiff from writing to standard error what it finds wrong; Pillow lets it."""
    home = Path(PIL.__file__).parent
    bundles = (home.parent / "pillow.libs", home / ".dylibs")
    bundled = [str(path) for bundle in bundles for path in bundle.glob("libtiff*")]
    for library in bundled or [ctypes.util.find_library("tiff") or "libtiff"]:
        with suppress(OSError, AttributeError):
            quieten = ctypes.CDLL(library).TIFFSetErrorHandler
            quieten.argtypes, quieten.restype = [ctypes.c_void_p], ctypes.c_void_p
            quieten(None)


# Any mode, upright, to RGB


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # a broken EXIF block is no reason to lose the picture
        return image
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow would clip these to 255; keep the picture by keeping the high byte.
        levels = np.array(image)
        np.clip(levels, 0, 65535, out=levels)
        return Image.fromarray((levels >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        levels = np.array(image)
        np.nan_to_num(levels, copy=False)
        if levels.max(initial=0.0) <= 1.0:
            levels *= 255
        np.clip(levels, 0, 255, out=levels)
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
