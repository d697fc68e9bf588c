"""Why a file has no picture, in words that a person understands."""

import re
from collections.abc import Mapping
from typing import Literal

from job.errors import ImageError

_HEIF_BRANDS = (
    *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"),
)
_Kinds = Mapping[str, bytes]  # patterns of how files begin; a dot is any byte
_STRANGERS: _Kinds = {
    "an HTML page (of an error?), not an image": rb"\s*(?i:<!doctype html|<html)",
    "an XML or SVG document, not a raster image": rb"\s*(?i:<\?xml|<svg)",
    "a JSON document, not an image": rb"\s*[{\[]",
    "a PDF document, not an image": rb"\s*(?i:%pdf)",
    "a PostScript document, not an image": rb"\s*%!(?i:ps)",
    "a Git LFS pointer: the image itself was never fetched": rb"\s*version https://git-lfs",
    "an archive, not an image": (
        rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!|BZh\d|\xfd7zXZ\0|\x28\xb5\x2f\xfd|.{257}ustar"
    ),
    "a video, not an image": (
        rb"....ftyp(iso|mp4|qt  |M4V|m4v|avc1|3g|dash|f4v)|....(moov|mdat|wide)|RIFF....AVI |"
        rb"\x1a\x45\xdf\xa3|FLV\x01|\0\0\x01[\xba\xb3]"
    ),
    "a sound recording, not an image": rb"RIFF....WAVE|....ftypM4A|ID3[\x02-\x04]|fLaC",
    "an Ogg recording, not an image": rb"OggS",
}
_UNSUPPORTED: _Kinds = {
    "a JPEG XL": rb"\xff\x0a|....JXL \r\n",
    "a JPEG XR": rb"II\xbc",
    "a Photoshop": rb"8BPS\0[\x01\x02]",
    "a GIMP": rb"gimp xcf",
    "an OpenEXR": rb"\x76\x2f\x31\x01",
    "a Radiance HDR": rb"#\?(RADIANCE|RGBE)",
    "a QOI": rb"qoif",
    "a DDS": rb"DDS ",
    "a FITS": rb"SIMPLE  =",
    "a PAM": rb"P7\s",
    "an oddly commented Netpbm": rb"P[1-6]#[^\n]*\n",
    "a colour PFM": rb"PF\s",
    "a camera's raw": (
        rb"....ftypcrx |FUJIFILMCCD-RAW|IIU\0|IIR[OS]|MMOR|FOVb|\0MRM|II\x1a\0\0\0HEAPCCDR"
    ),
    "a DICOM": rb".{128}DICM",
    "a NITF": rb"NITF0|NSIF0",
    "a BPG": rb"BPG\xfb",
    "a FLIF": rb"FLIF",
    "a DjVu": rb"AT&TFORM",
    "a macOS icon": rb"icns",
    "a Windows cursor": rb"\0\0\x02\0[^\0]\0",
}
_FORMATS: _Kinds = {
    "a JPEG": rb"\xff\xd8\xff",
    "a PNG": rb"\x89PNG",
    "a WebP": rb"RIFF....WEBP",
    "a GIF": rb"GIF8",
    "a TIFF": rb"II\*\0|MM\0\*|II\+\0|MM\0\+",
    "a JPEG 2000": rb"\xff\x4f\xff\x51|....jP  \r\n",
    "an AVIF": rb"....ftypavi[fs]",
    "a HEIC": rb"....ftyp(" + b"|".join(_HEIF_BRANDS) + rb")",
    "an ICO": rb"\0\0\x01\0",
    "a BMP": rb"BM",
    "a Netpbm picture": rb"P[1-6]\s|Pf\s",
}
# Of a format without a signature: what kind it says it is, and how many bits a pixel has.
_TARGA = rb".[\0\x01][\x01-\x03\x09-\x0b].{13}[\x01\x08\x0f\x10\x18\x20]"


def not_identified(data: bytes) -> ImageError:
    """Of a file that no decoder takes for its own."""
    if what := _named(data, _STRANGERS):
        return ImageError("not_an_image", what)
    if what := _named(data, _UNSUPPORTED):
        remedy = "which cannot be decoded here; convert it to JPEG or PNG"
        return ImageError("unsupported", f"{what} image, {remedy}")
    if _is_cut_short(data):
        return ImageError("truncated", "the file is cut short in its header")
    if what := _named(data, _FORMATS):
        return ImageError("not_an_image", f"begins like {what}, but its header is damaged")
    if not data.strip(b"\0"):
        return ImageError("not_an_image", f"{len(data):,} zeros, not an image")
    text = data[:8].decode("latin-1")
    shown = f"'{text}'" if _is_plain(text) else f"the bytes {data[:8].hex(' ')}"
    return ImageError(
        "not_an_image", f"not an image in a known format (the file starts with {shown})"
    )


def _named(data: bytes, kinds: _Kinds) -> str:
    """The first of some kinds that a file begins like, or nothing."""
    return next((kind for kind, start in kinds.items() if _begins(data, start)), "")


def _begins(data: bytes, pattern: bytes) -> bool:
    return re.match(pattern, data[:512], re.DOTALL) is not None


def is_heif(data: bytes) -> bool:
    """Whether a file says that it is a HEIC or another of its family."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS


def may_be_an_image(data: bytes) -> bool:
    """Whether a file begins like one of a format that is decoded here."""
    return bool(_named(data, _FORMATS)) or _begins(data, _TARGA)


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


def reason(error: Exception, data: bytes) -> ImageError:
    """Of a file that its decoder gave up on, from what Pillow raised."""
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


def refuse_oversized(size: tuple[int, int], pixel_limit: int, what: str = "") -> None:
    """Refuse an image, or a part of one, with more pixels than allowed.

    Raises:
        ImageError: it has.
    """
    width, height = size
    if width * height > pixel_limit:
        raise ImageError(
            "too_large",
            f"{what}{width}×{height} is {width * height:,} pixels, over the limit of"
            f" {pixel_limit:,}; raise --pixel-limit if such images are expected",
        )
