"""PNG: the picture of a file, whatever its metadata is like, if all of its rows are there."""

import io
import zlib
from collections.abc import Iterator

from job.errors import ImageError
from job.images.pillow import Image
from job.images.reasons import refuse_oversized
from job.kernels.png import SIGNATURE

# Far above what programs write, far below what takes minutes: Pillow parses each in Python.
_MOST_CHUNKS = 100_000
_BLOCK = 1 << 20
# Columns and rows of the seven passes of an interlaced picture: first and step (PNG, 8.2).
_PASSES = (
    *((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2)),
    (0, 1, 1, 2),
)
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def load(png: bytes, pixel_limit: int) -> Image.Image:
    """The picture, as Pillow has it; what is wrong with chunks that it does not need costs nothing.

    Args:
        png: the whole file.
        pixel_limit: the most pixels to decode.

    Raises:
        ImageError: it is too large, lacks rows, is damaged, or has more chunks than any program
            writes.
        OSError, SyntaxError, ValueError: what else Pillow raises of a file that it cannot read.
    """
    if png.startswith(SIGNATURE):
        png = _without_bad_extras(png)
    opened = False
    try:
        image = Image.open(io.BytesIO(png), formats=("PNG",))
        opened = True
        refuse_oversized(image.size, pixel_limit)
        image.load()
    except ImageError:
        raise
    except Exception as error:
        # Metadata that is malformed, or inflates to megabytes, is no reason to lose the picture.
        plain = _essential(png) if png.startswith(SIGNATURE) else png
        if plain == png or (opened and isinstance(error, OSError)):  # of the pixels
            raise
        return load(plain, pixel_limit)
    _refuse_lost_pixels(png, image)
    return image


def _without_bad_extras(png: bytes) -> bytes:
    """The file without ancillary chunks whose checksum is wrong: they are not needed."""
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


def _essential(png: bytes) -> bytes:
    """The file with its colours and its orientation only.

    Texts and colour profiles may inflate to megabytes, or be malformed, and so may what says which
    colours are transparent: they are not needed.
    """
    names = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"eXIf")
    kept = [png[begin:end] for name, begin, end in _chunks(png) if name in names]
    return b"".join([SIGNATURE, *kept])


def _refuse_lost_pixels(png: bytes, image: Image.Image) -> None:
    """Refuse a picture whose pixel data ends, in good order, before its last row, or is damaged.

    Pillow leaves rows that are missing black, and looks at no checksum once it has all rows. Only
    what ends in a black row, or has a wrong checksum, is inflated again; then the checksum over all
    of the pixels (Adler-32) decides.
    """
    parts = [(begin + 8, end - 4) for name, begin, end in _chunks(png) if name == b"IDAT"]
    is_sound = all(
        zlib.crc32(memoryview(png)[begin - 4 : end]) == int.from_bytes(png[end : end + 4])
        for begin, end in parts
        if end + 4 <= len(png)
    )
    is_interlaced = png[28:29] == b"\1"
    if is_sound and not is_interlaced and _has_colour(image):
        return
    needed = _size_of_pixels(png)
    if needed is None:
        return
    # The checksum comes behind the last byte.
    wanted = needed if is_sound else needed + 1
    stream, have = zlib.decompressobj(), 0
    wrong = ImageError("corrupt", "the file is damaged (a checksum of its pixels is wrong)")
    try:
        for begin, end in parts:
            data = png[begin:end]
            while data and have < wanted and not stream.eof:
                have += len(stream.decompress(data, _BLOCK))
                data = stream.unconsumed_tail
        while have < wanted and not stream.eof and (rest := stream.decompress(b"", _BLOCK)):
            have += len(rest)
    except zlib.error:
        raise wrong from None
    if have < needed:
        share = f"{100 * have // needed} % of its pixel data"
        raise ImageError("truncated", f"rows of the picture are missing: the file has {share}")
    if not (is_sound or stream.eof):
        raise wrong


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
    """Name, begin and end (which may lie beyond the file) of every chunk, up to the last one."""
    place, name = len(SIGNATURE), b""
    while place + 8 <= len(png) and name != b"IEND":
        name, end = png[place + 4 : place + 8], place + 12 + int.from_bytes(png[place : place + 4])
        yield name, place, end
        place = end


def _counted(count: int) -> bool:
    if count >= _MOST_CHUNKS:
        raise ImageError("corrupt", f"a PNG of more than {_MOST_CHUNKS:,} chunks")
    return True
