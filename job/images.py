"""Bytes of an image file → an upright RGB array, or the reason why not."""

import io
import warnings
from functools import cache

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from job.errors import ImageError

# Formats that Pillow decodes by itself, without starting another program (EPS would).
_SAFE_FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "TIFF",
    "BMP",
    "GIF",
    "JPEG2000",
    "PPM",
    "AVIF",
    "ICO",
    "TGA",
)
EXTENSIONS = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff", ".bmp"),
        *(".dib", ".gif", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".avif"),
        *(".ico", ".tga"),
    )
)

DEFAULT_PIXEL_LIMIT = 100_000_000


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
    if not data:
        raise ImageError("empty", "the object is empty (0 bytes)")
    # Our own limit stands in for Pillow's, which only warns at first.
    Image.MAX_IMAGE_PIXELS = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data), formats=_formats())
            _refuse_oversized(image.size, pixel_limit)
            image.load()
            return _to_rgb(_upright(image))
        except ImageError:
            raise
        except UnidentifiedImageError:
            raise ImageError("not_an_image", _describe_unidentified(data)) from None
        except Exception as error:  # Pillow's plugins raise whatever their parsing ran into
            raise _reason(error) from error


def to_array(image: Image.Image) -> np.ndarray:
    """The pixels of an RGB image, (height, width, 3) uint8."""
    return np.asarray(image, np.uint8)


@cache
def _formats() -> tuple[str, ...]:
    """The safe formats that this build of Pillow has."""
    Image.init()
    return tuple(name for name in _SAFE_FORMATS if name in Image.OPEN)


def _refuse_oversized(size: tuple[int, int], pixel_limit: int) -> None:
    width, height = size
    if width * height > pixel_limit:
        raise ImageError(
            "too_large",
            f"{width}×{height} is {width * height:,} pixels, over the limit of {pixel_limit:,};"
            " raise --pixel-limit if such images are expected",
        )


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block is no reason to lose the picture
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow would clip these to 255; keep the picture by keeping the high byte.
        levels = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        levels = np.nan_to_num(np.asarray(image, np.float64))
        if levels.max(initial=0.0) <= 1.0:
            levels = levels * 255
        return Image.fromarray(levels.clip(0, 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def _describe_unidentified(data: bytes) -> str:
    head = data[:512].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "an HTML page, not an image (an error page saved under an image's name?)"
    if head.startswith((b"<?xml", b"<svg")):
        return "an XML or SVG document, not a raster image"
    if head.startswith((b"{", b"[")):
        return "a JSON document, not an image"
    if head.startswith(b"%pdf"):
        return "a PDF document, not an image"
    if head.startswith((b"\x89png", b"\xff\xd8\xff", b"gif8", b"riff")):
        return "begins like an image, but its header is damaged"
    return f"not an image in a known format (the file starts with {data[:8]!r})"


def _reason(error: Exception) -> ImageError:
    text = str(error) or type(error).__name__
    lowered = text.lower()
    if isinstance(error, MemoryError):
        return ImageError("too_large", "not enough memory to decode it; lower --pixel-limit")
    if "truncated" in lowered or isinstance(error, EOFError) or "unexpected end" in lowered:
        return ImageError("truncated", f"the file is cut short ({text})")
    if isinstance(error, NotImplementedError) or "not supported" in lowered:
        return ImageError("unsupported", f"a variant that cannot be decoded ({text})")
    return ImageError("corrupt", f"the file is damaged ({text})")


# A truncated file must not be silently padded with grey, whatever another library has set.
ImageFile.LOAD_TRUNCATED_IMAGES = False
