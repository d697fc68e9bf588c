"""JPEG: pixels with libjpeg's remarks on them, which tell a damaged file from a sound one.

libjpeg fills what a damaged file has lost with grey, and says so in a warning that Pillow drops.
simplejpeg decodes by the same libjpeg-turbo, to the same pixels and as fast, and hands the first
warning on.
"""

import io
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from job.errors import ImageError
from job.wording import counted

# Far above what cameras and programs write, far below what takes minutes: Pillow joins the EXIF of
# all segments again for each, and libjpeg goes over all pixels in every scan.
_MOST_SEGMENTS = 1000
_MOST_SCANS = 100
# How many restart markers may be lost; each costs a decoding, or a few.
_MOST_MARKERS = 2
# How many parts are judged one after the other, each with all before it: twice what encoders write.
_MOST_PARTS = 60
# Room for the pixels of an ordinary photograph.
_KEPT_BYTES = 16 << 20
_kept = threading.local()

_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
_SEQUENTIAL = frozenset({0xC0, 0xC1, 0xC9})
_JPEG_LS = 0xF7
_APP0 = 0xE0
_READ_AHEAD = 9  # bytes that libjpeg may have read behind the last pixel, and does not count
_END = b"\xff\xd9"
_ALL_COEFFICIENTS = b"\0\x3f\0"  # what ends the header of a sequential scan

_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0x(\w+)")
_OTHER = re.compile(r"found marker 0x(\w+) instead of RST(\d)")
# What libjpeg gives up on, where libtiff shows grey.
_BROKEN = re.compile(r"Unsupported (marker|JPEG process)|Invalid (JPEG|component|progress)|Bogus")
_LOSS = re.compile(
    rf"Corrupt JPEG data|[Pp]remature end|Inconsistent progression|{_BROKEN.pattern}"
)
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
    has_end = jpeg.rfind(_END, head.scan) >= 0  # from behind, where it is
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
    whole = begin + jpeg[head.scan :] + _END  # which some programs leave out
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
    if not _PIXELS.search(remark):
        # It is about the header, and hides what there may be about the pixels.
        if head.frame is not None and head.frame[0] in _SEQUENTIAL:
            end = 2 + int.from_bytes(scans[2:4])
            scans = scans[: end - 3] + _ALL_COEFFICIENTS + scans[end:]
        remark = _remark(plain + scans, space)
    if not _LOSS.search(remark):
        return jpeg
    # Pictures that have such data at all have them in many places.
    is_overwritten = len(re.findall(rb"\0{16,}", scans.partition(_END)[0])) == 1
    most = _MOST_MARKERS if head.restart_interval and not is_overwritten else 0
    is_mendable = _LEFT_OVER.search(remark) or _OTHER.search(remark)
    mended = _mended(plain, scans, space, most) if is_mendable else None
    if mended is None:
        raise _loss(remark)
    return jpeg if mended == scans else jpeg[: head.scan] + mended


def _loss(remark: str) -> ImageError:
    left_over = _LEFT_OVER.search(remark)
    if "premature end" in remark.lower() or ("instead of RST" in remark and "0xd9" in remark):
        return ImageError("truncated", "a part of the picture is missing (premature end)")
    if "bad Huffman code" in remark or "bad arithmetic code" in remark:
        what = "what it holds is no picture data"
    elif left_over and not 0xD0 <= int(left_over[2], 16) <= 0xD7:
        count = int(left_over[1])
        what = f"{counted(count, 'byte')} of picture data {'is' if count == 1 else 'are'} left over"
    elif _BROKEN.search(remark):
        what = "broken data stream"
    elif "progression" in remark:
        what = "parts of the picture are out of order"
    else:
        what = "parts between restart markers"
    return ImageError("corrupt", f"the file is damaged ({what})")


def _mended(plain: bytes, scans: bytes, space: str, most: int) -> bytes | None:
    """The scans, with no more than so many restart markers set right; None if more is lost.

    libjpeg tells of the first loss only, and not where it is. So each scan is judged when all
    before it are right, and what fills the room behind it is left out: all scans have it, or none,
    as a scan that is damaged can end a byte or two too early.
    """
    markers = [(begin, code) for begin, _, code in _markers(scans)]
    begins = [begin for begin, code in markers if code in (0xC4, 0xDA, 0xDD)][1:]
    before = [scans[begin - 1] for begin, code in markers if code in (0xC4, 0xDA)][1:]
    can_be_filled = len(before) > 1 and len(set(before)) == 1
    done, last = b"", 0
    for begin in begins if len(begins) < _MOST_PARTS else ():
        found = _mended_part(plain, done + scans[last:begin] + _END, space, most)
        if found is None or (found[2] and not can_be_filled):
            return None
        done, most, filling = found
        done, last = done[: len(done) - len(_END) - filling], begin
    found = _mended_part(plain, done + scans[last:], space, most)
    return found and found[0]


def _mended_part(
    plain: bytes, scans: bytes, space: str, most: int
) -> tuple[bytes, int, int] | None:
    """The scans, how many markers may still be lost, and bytes of filling before their end.

    A restart marker that is lost costs libjpeg the interval behind it. With the marker in its place
    libjpeg has nothing to remark on, unless it is not the marker alone that is lost.
    """
    remark = _remark(plain + scans, space)
    if not _LOSS.search(remark):
        return scans, most, 0
    if filling := _filling(scans, remark):
        return scans, most, filling
    if not most:
        return None
    tried = (_mended_part(plain, one, space, most - 1) for one in _with_next_marker(scans, remark))
    # Of an interval without its first two bytes, two can be left over.
    return next((found for found in tried if found and found[2] not in (1, 2)), None)


def _filling(scans: bytes, remark: str) -> int:
    """How much of a camera's filling libjpeg finds between the last pixel and the end; 0 for none.

    Pixels that a flipped bit has shifted leave some of their data over; cameras leave a byte or
    two, or repeat one. Where the last pixels are made of the same byte, they are overwritten too.
    """
    found = _LEFT_OVER.search(remark)
    if not found or found[2] != "d9":
        return 0
    end = next((place for place, _, code in _markers(scans) if code == 0xD9), 0)
    count = int(found[1])
    run = end - len(scans[:end].rstrip(scans[end - 1 : end]))
    return count if count <= 2 or count <= run <= count + _READ_AHEAD else 0


def _with_next_marker(scans: bytes, remark: str) -> Iterator[bytes]:
    """The scans as they may have been before the marker was lost that libjpeg remarks on.

    A marker too early is always remarked on, and one too late by a byte is not: the earliest place
    comes first.
    """
    left_over, other = _LEFT_OVER.search(remark), _OTHER.search(remark)
    begin, end, code, number = _first_out_of_turn(scans)
    turn = bytes([0xFF, 0xD0 + number])
    places = range(0)
    if other and int(other[1], 16) == code and int(other[2]) == number:
        if end - begin > 2:
            yield scans[:begin] + turn + scans[end - 1 :]  # FF was all that stood for the marker
        elif code != 0xD9:
            yield scans[:begin] + turn + scans[end:]
        places = range(begin - _READ_AHEAD, begin)
    elif left_over and int(left_over[2], 16) == code:
        # libjpeg counts the two bytes that stand for FF as one where it has looked ahead.
        count = int(left_over[1])
        places = range(begin - count - 3, begin - count + 1)
    for place in places:
        if place > 0 and scans[place - 1] != 0xFF:
            found = scans[place : place + 2]
            flips = (int.from_bytes(found) ^ int.from_bytes(turn)).bit_count()
            overwritten = scans[:place] + turn + scans[place + 2 :]
            if found in (b"\0\0", b"\xff\xff") or flips == 1:
                yield overwritten
            yield scans[:place] + turn + scans[place:]
            if found == b"\xff\0":  # data may begin with it
                yield overwritten


def _first_out_of_turn(scans: bytes) -> tuple[int, int, int, int]:
    """Begin, end and code of the first marker that another should precede, and whose turn it is."""
    turn = 0
    for begin, end, code in _markers(scans):
        if code == 0xD0 + turn:
            turn = (turn + 1) % 8
        elif code == 0xDA:
            turn = 0
        elif code not in (0xC4, 0xDD):
            return begin, end, code, turn
    return 0, 0, 0, 0


def _markers(scans: bytes) -> Iterator[tuple[int, int, int]]:
    """Begin, end and code of what looks like a marker."""
    for found in re.finditer(rb"\xff+([^\x00\xff])", scans):
        yield found.start(), found.end(), found[1][0]
