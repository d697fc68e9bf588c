"""JPEG: pixels with libjpeg's remarks on them, which tell a damaged file from a sound one.

libjpeg fills what a damaged file has lost with grey, and says so in a warning that Pillow drops.
simplejpeg decodes by the same libjpeg-turbo, to the same pixels and as fast, and hands the first
warning on.
"""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from job.errors import ImageError

# Far above what cameras and programs write, far below what takes minutes: Pillow joins the EXIF of
# all segments again for each, and libjpeg goes over all pixels in every scan.
_MOST_SEGMENTS = 1000
_MOST_SCANS = 100
# Of a picture in intervals that restart markers divide: what may be gone with such markers.
_LOST_SHARE = 0.02
_ZEROS = bytes(64)
# Room for the pixels of an ordinary photograph.
_KEPT_BYTES = 16 << 20
_kept = threading.local()

_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
_JPEG_LS = 0xF7
_JFIF, _ADOBE = 0xE0, 0xEE


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

    Raises:
        ImageError: a part of the picture is lost.
    """
    if image.info.get("progressive") and jpeg.count(b"\xff\xda") > _MOST_SCANS:
        raise ImageError("corrupt", f"a progressive JPEG with more than {_MOST_SCANS} scans")
    width, height = (side // divisor for side in image.size)
    if divisor > 1:
        image.draft(image.mode, (width, height))
    space = {"RGB": "RGBX", "L": "GRAY", "CMYK": "CMYK"}.get(image.mode)
    has_end = jpeg.rfind(b"\xff\xd9") >= 0  # from behind, where it is
    if space is None or not has_end or head.frame is None or head.frame[0] in _LOSSLESS:
        image.load()
        return image
    pixels, remark = _decoded(jpeg, space, width, height, divisor)
    if pixels is None:
        if remark:
            _refuse_lost_parts(remark, head, jpeg, space)
        image.load()
        return image
    if space == "CMYK" or pixels.shape[:2] != (height, width):
        image.load()
        return image
    raw = "RGBX" if image.mode == "RGB" else "L"
    loaded = Image.frombytes(image.mode, (width, height), pixels, "raw", raw)
    loaded.info = image.info
    return loaded


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


def _refuse_lost_parts(remark: str, head: Header, jpeg: bytes, space: str) -> None:
    """Refuse where libjpeg's remark means that pixels are lost; other remarks cost no picture."""
    scan = jpeg[head.scan :]
    found = re.match(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0x(\w+)", remark)
    in_header = "Adobe" in remark or "JFIF" in remark
    if in_header or (found and int(found[2], 16) not in (0xC4, 0xD9, 0xDA, *range(0xD0, 0xD8))):
        # The first remark is about the header, and hides what there may be about the pixels.
        plain = [all_ for marker, all_ in head.segments if marker not in (_JFIF, _ADOBE)]
        jpeg = b"\xff\xd8" + b"".join(plain) + scan
        remark = _remark(jpeg, space)
        found = re.match(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0x(\w+)", remark)
    if "premature end" in remark.lower() or ("instead of RST" in remark and "0xd9" in remark):
        if not _are_only_markers_lost(head, scan, space):
            raise ImageError("truncated", "a part of the picture is missing (premature end)")
    elif "bad Huffman code" in remark or "bad arithmetic code" in remark:
        if not _are_only_markers_lost(head, scan, space):
            raise ImageError("corrupt", "the file is damaged (what it holds is no picture data)")
    elif "instead of RST" in remark or (found and 0xD0 <= int(found[2], 16) <= 0xD7):
        if not _are_only_markers_lost(head, scan, space):
            raise ImageError("corrupt", "the file is damaged (parts between restart markers)")
    elif (
        found
        and not _is_filling(int(found[1]), scan, int(found[2], 16))
        and not _are_only_markers_lost(head, scan, space)
    ):
        raise ImageError(
            "corrupt", f"the file is damaged ({found[1]} bytes of picture data are left over)"
        )


def _is_filling(count: int, scan: bytes, marker: int) -> bool:
    """Whether what stands between the last pixel and a marker is a camera's filling.

    Pixels that a flipped bit has shifted leave some of their data over; cameras leave a byte or
    two, or repeat one.
    """
    if count <= 2:
        return True
    end = scan.find(bytes([0xFF, marker]))
    return len(set(scan[max(0, end - count) : end])) <= 1


def _are_only_markers_lost(head: Header, scan: bytes, space: str) -> bool:
    """Whether no more than restart markers are lost, and the pixels next to them."""
    interval, frame = head.restart_interval, head.frame
    if not interval or frame is None:
        return False
    if scan.count(b"\xff\xda") != 1:
        return _is_one_marker_lost(scan)
    pieces, numbers = _pieces(scan)
    expected = -(-_units(frame[1]) // interval)
    lost = expected - len(pieces)
    wrong = [
        place
        for place, (before, after) in enumerate(
            zip([7, *numbers], [*numbers, (7 + expected - 1) % 8], strict=True)
        )
        if place < len(numbers) and after != (before + 1) % 8
    ]
    if not 0 <= lost <= max(1, expected * _LOST_SHARE) or (not wrong and not lost):
        return False
    return _others_are_sound(head, scan, pieces, set(wrong), space, expected)


def _is_one_marker_lost(scans: bytes) -> bool:
    """Whether the restart markers of several scans are in order but for a single one."""
    expected, place, breaks = 0, 0, []
    for number, (at, code) in enumerate(_markers(scans, 0)):
        if code == 0xDA:
            expected = 0
        elif 0xD0 <= code <= 0xD7:
            if code - 0xD0 != expected:
                breaks.append(number)
                if _ZEROS in scans[place : at + 4096]:
                    return False
            expected = (code - 0xD0 + 1) % 8
        place = at
    return bool(breaks) and len(breaks) <= 2 and breaks[-1] - breaks[0] < 2


def _others_are_sound(
    head: Header,
    scan: bytes,
    pieces: list[bytes],
    wrong: set[int],
    space: str,
    expected: int,
) -> bool:
    """Whether all pieces decode but those whose marker is lost, each of them by itself."""
    spoilt = set(wrong) | {place + 1 for place in wrong}
    if len(pieces) < expected and not wrong:
        spoilt.add(len(pieces) - 1)
    sound = [piece for place, piece in enumerate(pieces[:-1]) if place not in spoilt]
    if not sound:
        return expected <= 3
    if any(_ZEROS in pieces[place] for place in spoilt if place < len(pieces)) and not any(
        _ZEROS in piece for piece in sound
    ):
        return False  # more than a marker is overwritten
    whole = (sound * (1 + expected // len(sound)))[: expected - 1]
    last = pieces[-1] if len(pieces) - 1 not in spoilt else None
    body = b"".join(piece + bytes([0xFF, 0xD0 + number % 8]) for number, piece in enumerate(whole))
    start = scan[: 2 + int.from_bytes(scan[2:4])]
    head_bytes = b"\xff\xd8" + b"".join(all_ for _, all_ in head.segments)
    file = head_bytes + start + body + (last if last is not None else sound[0]) + b"\xff\xd9"
    remark = _remark(file, space)
    if last is None and "before marker 0xd9" in remark:
        return True  # a whole interval stands for a last one that may be shorter
    return not remark or bool(re.search(r" [12] extraneous bytes", remark))


def _pieces(scan: bytes) -> tuple[list[bytes], list[int]]:
    """Of a scan: the data between its restart markers, and the numbers of these."""
    pieces, numbers, begin = [], [], 2 + int.from_bytes(scan[2:4])
    for place, code in _markers(scan, begin):
        pieces.append(scan[begin:place])
        if not 0xD0 <= code <= 0xD7:
            break
        numbers.append(code - 0xD0)
        begin = place + 2
    return pieces, numbers


def _markers(scan: bytes, begin: int) -> Iterator[tuple[int, int]]:
    for found in re.finditer(rb"\xff+([^\x00\xff])", scan[begin:]):
        yield begin + found.start(), found[1][0]


def _units(frame: bytes) -> int:
    """How many units (MCUs) a picture has in its only scan (ISO/IEC 10918-1, A.2)."""
    height, width = int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5])
    samplings = frame[7 : 7 + 3 * frame[5] : 3]
    if frame[5] == 1:
        return -(-width // 8) * -(-height // 8)
    across = max((sampling >> 4 for sampling in samplings), default=1) * 8
    down = max((sampling & 15 for sampling in samplings), default=1) * 8
    return -(-width // max(across, 8)) * -(-height // max(down, 8))
