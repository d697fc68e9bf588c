"""Why a file has no picture, in words that a person understands."""

import re
from collections.abc import Mapping
from typing import Literal

from PIL import Image

from job.errors import ImageError

# How files begin, in lower case; some of them behind the length of their first box.
_STRANGERS = {
    "an HTML page (of an error?), not an image": (b"<!doctype html", b"<html"),
    "an XML or SVG document, not a raster image": (b"<?xml", b"<svg"),
    "a JSON document, not an image": (b"{", b"["),
    "a PDF document, not an image": (b"%pdf",),
    "a PostScript document, not an image": (b"%!ps",),
    "a Git LFS pointer: the image itself was never fetched": (b"version https://git-lfs",),
    "an archive, not an image": (b"pk\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf", b"rar!"),
    "a video, not an image": (b"ftypisom", b"ftypmp4", b"ftypqt  ", b"ftypm4v"),
}
_HEIF_BRANDS = (
    *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"),
)
_UNSUPPORTED = {
    "a JPEG XL": (b"jxl \r\n", b"\xff\x0a"),
}
_FORMATS = {
    "a JPEG": (b"\xff\xd8\xff",),
    "a PNG": (b"\x89png",),
    "a WebP": (b"riff",),
    "a GIF": (b"gif8",),
    "a TIFF": (b"ii*\0", b"mm\0*"),
    "a JPEG 2000": (b"\xffo\xffq", b"jp  \r\n"),
    "an AVIF": (b"ftypavif", b"ftypavis"),
    "a HEIC": tuple(b"ftyp" + brand for brand in _HEIF_BRANDS),
    "an ICO": (b"\0\0\1\0",),
    "a BMP": (b"bm",),
}


def not_identified(data: bytes) -> ImageError:
    """Of a file that no decoder takes for its own."""
    heads = data[:512].lstrip().lower(), data[4:16].lower()

    def named(names: Mapping[str, tuple[bytes, ...]]) -> str:
        starts = (
            name
            for name, beginnings in names.items()
            for head in heads
            if head.startswith(beginnings)
        )
        return next(starts, "")

    if what := named(_STRANGERS):
        return ImageError("not_an_image", what)
    if what := named(_UNSUPPORTED):
        remedy = "which cannot be decoded here; convert it to JPEG or PNG"
        return ImageError("unsupported", f"{what} image, {remedy}")
    if _is_cut_short(data):
        return ImageError("truncated", "the file is cut short in its header")
    if what := named(_FORMATS):
        return ImageError("not_an_image", f"begins like {what}, but its header is damaged")
    if not data.strip(b"\0"):
        return ImageError("not_an_image", f"{len(data):,} zeros, not an image")
    text = data[:8].decode("latin-1")
    shown = f"'{text}'" if _is_plain(text) else f"the bytes {data[:8].hex(' ')}"
    return ImageError(
        "not_an_image", f"not an image in a known format (the file starts with {shown})"
    )


def is_heif(data: bytes) -> bool:
    """Whether a file says that it is a HEIC or another of its family."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS


def begins_like_an_image(data: bytes) -> bool:
    """Whether a file begins like one of a known image format."""
    heads = data[:16].lower(), data[4:16].lower()
    return any(head.startswith(starts) for starts in _FORMATS.values() for head in heads)


# Where files say how long they are at least: numbers to be added up.
_LENGTHS: tuple[tuple[bytes, tuple[int, ...], Literal["little", "big"]], ...] = (
    (b"RIFF", (4,), "little"),
    (b"BM", (2,), "little"),
    (b"\0\0\1\0", (14, 18), "little"),
    (b"II*\0", (4,), "little"),
    (b"MM\0*", (4,), "big"),
)


def _is_cut_short(data: bytes) -> bool:
    """Whether a file ends before it says it does."""
    if data.startswith(b"\xff\xd8\xff"):
        return b"\xff\xd9" not in data
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data
    if data.startswith(b"GIF8"):
        return not data.endswith(b";")
    for beginning, at, order in _LENGTHS:
        if data.startswith(beginning):
            return len(data) < sum(int.from_bytes(data[place : place + 4], order) for place in at)
    end = 0
    is_boxed = data.startswith((b"jP  ", b"ftypavi"), 4) or is_heif(data)
    for _ in range(100 if is_boxed else 0):
        size = int.from_bytes(data[end : end + 4])
        end += size
        if size < 8 or end >= len(data):  # 0 and 1 stand for sizes that are written elsewhere
            break
    return end > len(data)


def reason(error: Exception, data: bytes, pixel_limit: int) -> ImageError:
    """Of a file that its decoder gave up on, from what Pillow raised."""
    if isinstance(error, Image.DecompressionBombError):
        claimed = re.search(r"\d+", str(error))
        pixels = f"{int(claimed[0]):,}" if claimed else "too many"
        return too_large(f"{pixels} pixels", pixel_limit)
    text = _own_words(error)
    lowered = text.lower()
    if isinstance(error, MemoryError) or "out of memory" in lowered:
        # Of the node, at this moment: another one, or another time, may have more.
        message = "not enough memory to decode it; lower --pixel-limit"
        return ImageError("too_large", message, retryable=True)
    short = any(sign in lowered for sign in ("truncated", "unexpected end", "only got"))
    if isinstance(error, EOFError) or short or _is_cut_short(data):
        return ImageError("truncated", "the file is cut short")
    if isinstance(error, NotImplementedError) or "support" in lowered:
        return ImageError("unsupported", f"a variant that cannot be decoded{text}")
    return ImageError("corrupt", f"the file is damaged{text}")


def _own_words(error: Exception) -> str:
    """What Pillow says of a file, in brackets; nothing of what its parsing ran into."""
    text = re.sub(r"""\bb(['"])(.*?)\1""", r"\2", str(error)).strip()
    text = text.removesuffix(" when reading image file").rstrip(".")
    told = isinstance(error, OSError | SyntaxError | ValueError | NotImplementedError)
    return f" ({text})" if told and _is_plain(text) else ""


def _is_plain(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and not set(text) & set("<>[]\\")


def too_large(what: str, pixel_limit: int) -> ImageError:
    """Of an image, or a part of one, with more pixels than allowed."""
    return ImageError(
        "too_large",
        f"{what}, over the limit of {pixel_limit:,}; raise --pixel-limit if such images are"
        " expected",
    )
