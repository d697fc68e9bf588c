"""PNG: which chunks a picture needs, and whether all of its rows are there."""

import zlib
from collections.abc import Iterator

from PIL import Image

from job.errors import ImageError

# Far above what programs write, far below what takes minutes: Pillow parses each in Python.
_MOST_CHUNKS = 100_000
_SIGNATURE = 8
_BLOCK = 1 << 20
# Columns and rows of the seven passes of an interlaced picture: first and step (PNG, 8.2).
_PASSES = (
    *((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2)),
    (0, 1, 1, 2),
)
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def without_bad_extras(png: bytes) -> bytes:
    """The file without ancillary chunks whose checksum is wrong: they are not needed.

    Raises:
        ImageError: the file has more chunks than any program writes.
    """
    bad = [
        (begin, end)
        for count, (name, begin, end) in enumerate(_chunks(png))
        if _counted(count)
        and name[0] & 0x20
        and end <= len(png)
        and zlib.crc32(png[begin + 4 : end - 4]) != int.from_bytes(png[end - 4 : end])
    ]
    kept, place = [], 0
    for begin, end in bad:
        kept.append(png[place:begin])
        place = end
    return b"".join([*kept, png[place:]]) if bad else png


def essential(png: bytes) -> bytes:
    """The file with its pixels and its orientation only.

    Texts and colour profiles may inflate to megabytes, or be malformed: they are not needed.
    """
    names = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf")
    kept = [png[begin:end] for name, begin, end in _chunks(png) if name in names]
    return b"".join([png[:_SIGNATURE], *kept])


def refuse_missing_rows(png: bytes, image: Image.Image) -> None:
    """Refuse a picture whose pixel data ends, in good order, before its last row.

    Pillow leaves such rows black. Only a picture that ends in a black row has its data counted.

    Raises:
        ImageError: rows are missing.
    """
    is_interlaced = png[28:29] == b"\1"
    if not is_interlaced and _has_colour(image):
        return
    needed = _size_of_pixels(png)
    if needed is None:
        return
    stream, have = zlib.decompressobj(), 0
    for name, begin, end in _chunks(png):
        data = png[begin + 8 : end - 4] if name == b"IDAT" else b""
        while data and have < needed and not stream.eof:
            have += len(stream.decompress(data, _BLOCK))
            data = stream.unconsumed_tail
    while have < needed and not stream.eof and (rest := stream.decompress(b"", _BLOCK)):
        have += len(rest)
    if have < needed:
        share = f"{100 * have // needed} % of its pixel data"
        raise ImageError("truncated", f"rows of the picture are missing: the file has {share}")


def _has_colour(image: Image.Image) -> bool:
    last = image.crop((0, image.height - 1, image.width, image.height))
    return any(last.tobytes())


def _size_of_pixels(png: bytes) -> int | None:
    """How many bytes the pixel data inflates to, with the byte before each row."""
    width, height = int.from_bytes(png[16:20]), int.from_bytes(png[20:24])
    depth, colour, interlaced = png[24], png[25], png[28]
    if colour not in _SAMPLES:
        return None
    passes = _PASSES if interlaced else ((0, 1, 0, 1),)
    size = 0
    for left, across, top, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            size += rows * (1 + -(-columns * depth * _SAMPLES[colour] // 8))
    return size


def _chunks(png: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, begin and end (which may lie beyond the file) of every chunk."""
    place = _SIGNATURE
    while place + 8 <= len(png):
        end = place + 12 + int.from_bytes(png[place : place + 4])
        yield png[place + 4 : place + 8], place, end
        place = end


def _counted(count: int) -> bool:
    if count >= _MOST_CHUNKS:
        raise ImageError("corrupt", f"a PNG of more than {_MOST_CHUNKS:,} chunks")
    return True
