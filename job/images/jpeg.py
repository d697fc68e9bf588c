"""JPEG: pixels with libjpeg's remarks on them, which tell a damaged file from a sound one.

libjpeg fills what a damaged file has lost with grey, and says so in a warning that Pillow drops.
simplejpeg decodes by the same libjpeg-turbo, to the same pixels and as fast, and hands the first
warning on.
"""

import io
import re
import threading
from dataclasses import dataclass

import numpy as np

from job.errors import ImageError
from job.images import restart_markers
from job.images.pillow import Image
from job.images.restart_markers import BROKEN, END, LEFT_OVER, LOSS, OTHER
from job.wording import counted

# Far above what cameras and programs write, far below what takes minutes: Pillow joins the EXIF of
# all segments again for each, and libjpeg goes over all pixels in every scan.
_MOST_SEGMENTS = 1000
_MOST_SCANS = 100
# How many restart markers may be lost; each costs a decoding, or a few.
_MOST_MARKERS = 2
# Room for the pixels of an ordinary photograph.
_KEPT_BYTES = 16 << 20
_kept = threading.local()

_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
_SEQUENTIAL = frozenset({0xC0, 0xC1, 0xC9})
_JPEG_LS = 0xF7
_APP0 = 0xE0
_ALL_COEFFICIENTS = b"\0\x3f\0"  # what ends the header of a sequential scan

# Of these none can be about the header, where segments stand before C4 and DA too.
_PIXELS = re.compile(
    r"[Pp]remature end|bad \w+ code|instead of RST|before marker 0xd[0-79]|progression"
)


@dataclass(frozen=True)
class Header:
    """What stands before the pixels.

    Attributes:
        segments: marker, and the bytes from the marker on, of each segment before the first scan.
        scan: where the first scan begins.
    """

    segments: tuple[tuple[int, bytes], ...]
    scan: int

    @property
    def frame(self) -> tuple[int, bytes] | None:
        """The frame header's marker and content: precision, height, width, components."""
        return next(
            ((marker, all_[4:]) for marker, all_ in self.segments if marker in _FRAMES), None
        )

    @property
    def restart_interval(self) -> int:
        """Units (MCUs) between restart markers; 0 for a scan without them."""
        return next(
            (int.from_bytes(all_[4:6]) for marker, all_ in self.segments if marker == 0xDD), 0
        )


def header(jpeg: bytes) -> Header:
    """The segments before the picture.

    Raises:
        ImageError: there are more than any camera writes, or no picture where one has to begin.
    """
    segments, place = [], 2
    for _ in range(_MOST_SEGMENTS):
        found = jpeg.find(b"\xff", place, place + (1 << 16))
        marker = jpeg[found + 1 : found + 2]
        if found < 0 or marker in (b"", b"\xda"):
            break
        has_length = marker >= b"\xc0" and not b"\xd0" <= marker <= b"\xd9"
        length = int.from_bytes(jpeg[found + 2 : found + 4]) if has_length else 0
        place = found + (2 + length if marker != b"\xff" else 1)
        if has_length and marker != b"\xff":
            segments.append((marker[0], jpeg[found:place]))
    else:
        raise ImageError("corrupt", f"more than {_MOST_SEGMENTS:,} segments before the picture")
    if found < 0 and len(jpeg) > place + (1 << 16):
        raise ImageError("corrupt", "the file is damaged (no picture where one has to begin)")
    return Header(tuple(segments), found)


def refuse_other_sorts(head: Header) -> None:
    """Refuse JPEGs that neither library decodes, by the name of their sort.

    Raises:
        ImageError: it is a JPEG-LS, or has more than 8 bits.
    """
    if head.frame is None or not head.frame[1]:
        return
    marker, precision = head.frame[0], head.frame[1][0]
    if marker == _JPEG_LS:
        raise ImageError("unsupported", "a JPEG-LS, which cannot be decoded")
    if 8 < precision <= 16:
        sort = "lossless JPEG" if marker in _LOSSLESS else "JPEG"
        raise ImageError("unsupported", f"a {sort} of {precision} bits, which cannot be decoded")


def load(image: Image.Image, head: Header, jpeg: bytes, divisor: int) -> Image.Image:
    """The pixels of a JPEG that Pillow has opened, at a fraction of its size.

    Restart markers that are lost, one or two, and nothing with them, cost no pixel.

    Raises:
        ImageError: a part of the picture is lost.
    """
    if image.info.get("progressive"):
        _refuse_many_scans(jpeg)
    width, height = (side // divisor for side in image.size)
    if divisor > 1:
        image.draft(image.mode, (width, height))
    space = {"RGB": "RGBX", "L": "GRAY", "CMYK": "CMYK"}.get(image.mode)
    has_end = jpeg.rfind(END, head.scan) >= 0  # from behind, where it is
    if space is None or not has_end or head.frame is None or head.frame[0] in _LOSSLESS:
        image.load()
        return image
    pixels, remark = _decoded(jpeg, space, width, height, divisor)
    if pixels is None:
        whole = _without_loss(remark, head, jpeg, space)
        if whole is not jpeg:
            image = Image.open(io.BytesIO(whole), formats=("JPEG",))
            image.draft(image.mode, (width, height))
        image.load()
        return image
    if space == "CMYK" or pixels.shape[:2] != (height, width):
        image.load()
        return image
    raw = "RGBX" if image.mode == "RGB" else "L"
    loaded = Image.frombytes(image.mode, (width, height), pixels, "raw", raw)
    loaded.info = image.info
    return loaded


def refuse_lost_parts(jpeg: bytes, pixel_limit: int) -> None:
    """Refuse a JPEG of 8 or 12 bits that another file holds, if libjpeg finds parts missing.

    Raises:
        ImageError: a part of the picture is lost, or it is far larger than it should be.
    """
    head = header(jpeg)
    if head.frame is None or len(head.frame[1]) < 6 or head.frame[0] in _LOSSLESS:
        return
    _refuse_many_scans(jpeg)
    content = head.frame[1]
    if int.from_bytes(content[1:3]) * int.from_bytes(content[3:5]) > pixel_limit:
        raise ImageError("corrupt", "the file is damaged (a part is of another size)")
    # 12 bits are coded as 8 are, and simplejpeg decodes 8 only; here the remark is all that counts.
    segments = tuple(
        (marker, all_[:4] + b"\x08" + all_[5:] if marker in _FRAMES else all_)
        for marker, all_ in head.segments
    )
    begin = b"\xff\xd8" + b"".join(all_ for _, all_ in segments)
    whole = begin + jpeg[head.scan :] + END  # which some programs leave out
    space = "CMYK" if content[5] == 4 else "GRAY"
    remark = _remark(whole, space)
    if remark and _without_loss(remark, Header(segments, len(begin)), whole, space) is not whole:
        raise _loss(remark)


def _refuse_many_scans(jpeg: bytes) -> None:
    if jpeg.count(b"\xff\xda") > _MOST_SCANS:
        raise ImageError("corrupt", f"a progressive JPEG with more than {_MOST_SCANS} scans")


def _decoded(
    jpeg: bytes, space: str, width: int, height: int, divisor: int
) -> tuple[np.ndarray | None, str]:
    """The pixels, until the next call of this thread; or libjpeg's first remark on them."""
    import simplejpeg

    least: dict[str, object] = {}
    if divisor > 1:
        least = {"min_width": width, "min_height": height}
    if width * height * 4 <= _KEPT_BYTES:
        least["buffer"] = _kept_buffer()
    try:
        return simplejpeg.decode_jpeg(jpeg, space, **least), ""
    except ValueError as error:
        return None, str(error)


def _remark(jpeg: bytes, space: str) -> str:
    import simplejpeg

    try:
        simplejpeg.decode_jpeg(jpeg, space)
    except ValueError as error:
        return str(error)
    return ""


def _kept_buffer() -> bytearray:
    # Memory that is new for each picture costs as much as a tenth of decoding it.
    if not hasattr(_kept, "buffer"):
        _kept.buffer = bytearray(_KEPT_BYTES)
    return _kept.buffer


# What libjpeg remarks


def _without_loss(remark: str, head: Header, jpeg: bytes, space: str) -> bytes:
    """The JPEG that libjpeg's remark is about, with its lost restart markers set again.

    Other remarks than those on the pixels cost no picture.

    Raises:
        ImageError: pixels are lost.
    """
    scans = jpeg[head.scan :]
    plain = b"\xff\xd8" + b"".join(all_ for marker, all_ in head.segments if marker < _APP0)

    def remark_on(scans: bytes) -> str:
        return _remark(plain + scans, space)

    if not _PIXELS.search(remark):
        # It is about the header, and hides what there may be about the pixels.
        if head.frame is not None and head.frame[0] in _SEQUENTIAL:
            end = 2 + int.from_bytes(scans[2:4])
            scans = scans[: end - 3] + _ALL_COEFFICIENTS + scans[end:]
        remark = remark_on(scans)
    if not LOSS.search(remark):
        return jpeg
    # Pictures that have such data at all have them in many places.
    is_overwritten = len(re.findall(rb"\0{16,}", scans.partition(END)[0])) == 1
    most = _MOST_MARKERS if head.restart_interval and not is_overwritten else 0
    is_mendable = LEFT_OVER.search(remark) or OTHER.search(remark)
    mended = restart_markers.mended(scans, remark_on, most) if is_mendable else None
    if mended is None:
        raise _loss(remark)
    return jpeg if mended == scans else jpeg[: head.scan] + mended


def _loss(remark: str) -> ImageError:
    left_over = LEFT_OVER.search(remark)
    if "premature end" in remark.lower() or ("instead of RST" in remark and "0xd9" in remark):
        return ImageError("truncated", "a part of the picture is missing (premature end)")
    if "bad Huffman code" in remark or "bad arithmetic code" in remark:
        what = "what it holds is no picture data"
    elif left_over and not 0xD0 <= int(left_over[2], 16) <= 0xD7:
        count = int(left_over[1])
        what = f"{counted(count, 'byte')} of picture data {'is' if count == 1 else 'are'} left over"
    elif BROKEN.search(remark):
        what = "broken data stream"
    elif "progression" in remark:
        what = "parts of the picture are out of order"
    else:
        what = "parts between restart markers"
    return ImageError("corrupt", f"the file is damaged ({what})")
