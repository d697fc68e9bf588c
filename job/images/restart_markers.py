"""Restart markers of a JPEG: set again where they are lost, by what libjpeg remarks on it."""

import re
from collections.abc import Callable, Iterator

END = b"\xff\xd9"
# How many parts are judged one after the other, each with all before it: twice what encoders write.
_MOST_PARTS = 60
_READ_AHEAD = 9  # bytes that libjpeg may have read behind the last pixel, and does not count

LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0x(\w+)")
OTHER = re.compile(r"found marker 0x(\w+) instead of RST(\d)")
# What libjpeg gives up on, where libtiff shows grey.
BROKEN = re.compile(r"Unsupported (marker|JPEG process)|Invalid (JPEG|component|progress)|Bogus")
LOSS = re.compile(rf"Corrupt JPEG data|[Pp]remature end|Inconsistent progression|{BROKEN.pattern}")


def mended(scans: bytes, remark_on: Callable[[bytes], str], most: int) -> bytes | None:
    """The scans, with no more than so many restart markers set right; None if more is lost.

    libjpeg tells of the first loss only, and not where it is. So each scan is judged when all
    before it are right, and what fills the room behind it is left out: all scans have it, or none,
    as a scan that is damaged can end a byte or two too early.

    Args:
        scans: a JPEG from its first scan to its end.
        remark_on: what libjpeg remarks on such, ``""`` for nothing.
        most: how many markers may be lost.
    """
    markers = [(begin, code) for begin, _, code in _markers(scans)]
    begins = [begin for begin, code in markers if code in (0xC4, 0xDA, 0xDD)][1:]
    before = [scans[begin - 1] for begin, code in markers if code in (0xC4, 0xDA)][1:]
    can_be_filled = len(before) > 1 and len(set(before)) == 1
    done, last = b"", 0
    for begin in begins if len(begins) < _MOST_PARTS else ():
        found = _mended_part(done + scans[last:begin] + END, remark_on, most)
        if found is None or (found[2] and not can_be_filled):
            return None
        done, most, filling = found
        done, last = done[: len(done) - len(END) - filling], begin
    found = _mended_part(done + scans[last:], remark_on, most)
    return found and found[0]


def _mended_part(
    scans: bytes, remark_on: Callable[[bytes], str], most: int
) -> tuple[bytes, int, int] | None:
    """The scans, how many markers may still be lost, and bytes of filling before their end.

    A restart marker that is lost costs libjpeg the interval behind it. With the marker in its place
    libjpeg has nothing to remark on, unless it is not the marker alone that is lost.
    """
    remark = remark_on(scans)
    if not LOSS.search(remark):
        return scans, most, 0
    if filling := _filling(scans, remark):
        return scans, most, filling
    if not most:
        return None
    tried = (_mended_part(one, remark_on, most - 1) for one in _with_next_marker(scans, remark))
    # Of an interval without its first two bytes, two can be left over.
    return next((found for found in tried if found and found[2] not in (1, 2)), None)


def _filling(scans: bytes, remark: str) -> int:
    """How much of a camera's filling libjpeg finds between the last pixel and the end; 0 for none.

    Pixels that a flipped bit has shifted leave some of their data over; cameras leave a byte or
    two, or repeat one. Where the last pixels are made of the same byte, they are overwritten too.
    """
    found = LEFT_OVER.search(remark)
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
    left_over, other = LEFT_OVER.search(remark), OTHER.search(remark)
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
