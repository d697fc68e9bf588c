"""TIFF: the kinds of samples that Pillow reads wrongly or not at all, as 8-bit pictures.

Each strip or tile of the first page is unpacked by itself, into no more bytes than the header gives
it, and reduced to 8 bits at once.
"""

import io
import lzma
import zlib

import numpy as np

from job.errors import ImageError
from job.images import floats, jpeg, webp
from job.images.pillow import Image
from job.images.reasons import refuse_oversized
from job.images.tiff_page import BLACK_IS_ZERO, FLOAT, INT, NO_COMPRESSION, UINT, Page

_MOST_BANDS = 64
_MOST_SEGMENTS = 400_000
_BYTES_PER_PIXEL = 24  # of one strip or tile, at the most

_WHITE_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 2, 3, 5, 6, 8
_COLOURS = {
    4: "a mask", 9: "ICC L*a*b*", 10: "ITU L*a*b*", 32803: "a camera's raw samples",
    32844: "LogL", 32845: "LogLuv", 34892: "a camera's raw samples",
}  # fmt: skip
_OLD_JPEG, _JPEG = 6, 7
_LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS = 5, 8, 32946, 32773
_LZMA, _ZSTD, _WEBP = 34925, 50000, 50001
_UNPACKED_HERE = (
    *(NO_COMPRESSION, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS, _LZMA, _ZSTD, _WEBP, _JPEG),
)
_COMPRESSIONS = {
    34676: "LogLuv", 34677: "LogLuv", 33003: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000",
    34887: "LERC", 34892: "lossy JPEG", 50002: "JPEG XL", 52546: "JPEG XL", 34934: "JPEG XR",
    22610: "JPEG XR", 32809: "ThunderScan", 32766: "NeXT", 34661: "JBIG",
}  # fmt: skip
_LIBTIFF = (2, 3, 4, _OLD_JPEG)  # through Pillow
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def suits_pillow(of: Page) -> bool:
    """Whether Pillow reads such a page, and rightly."""
    if of.compression == _OLD_JPEG:
        return of.bits == 8
    if of.compression not in _UNPACKED_HERE:
        return True  # or nobody does
    if of.compression == _WEBP or _is_sparse(of) or of.bands > 4 or of.is_big_endian_bigtiff:
        return of.colours == _YCBCR and of.compression != _JPEG  # which is not read here
    if of.sample_format == UINT and of.bits in (1, 2, 4, 8):
        if of.colours == _RGB and (of.bits < 8 or (of.is_planar and of.bands > 3)):
            return False
        if of.colours == _PALETTE:
            return of.bands > 1 or int(of.tags.get(320, np.array([256])).max(initial=0)) > 255
        most = 2 if of.colours == BLACK_IS_ZERO else 1
        return of.colours not in (_WHITE_IS_ZERO, BLACK_IS_ZERO) or of.bands <= most
    if of.compression == _JPEG:
        return False
    if of.sample_format == UINT and of.bits == 16 and not of.is_planar:
        return of.bands == {BLACK_IS_ZERO: 1, _RGB: 3, _CMYK: 4}.get(of.colours)
    return False


def _is_sparse(of: Page) -> bool:
    """Whether parts were never written: they have neither a place nor a size."""
    count = min(len(of.offsets), len(of.sizes))
    return bool(((of.offsets[:count] == 0) & (of.sizes[:count] == 0)).any())


def unsupported(of: Page) -> ImageError | None:
    """That a page is of a sort which neither Pillow nor this module decodes; None if it is not."""
    what = ""
    if of.compression in _LIBTIFF:
        pass  # damage, or an odd number of bits
    elif of.compression in _COMPRESSIONS and of.compression not in _UNPACKED_HERE:
        what = f"compressed as {_COMPRESSIONS[of.compression]}"
    elif of.compression not in _UNPACKED_HERE:
        what = f"of an unknown compression ({of.compression})"
    if of.colours in _COLOURS:
        what = f"of {_COLOURS[of.colours]}"
    elif of.bits not in (1, 2, 4, 8) and (what or not suits_pillow(of)):
        what = f"{_described(of)}{f', {what}' if what else ''}"
    return ImageError("unsupported", f"a TIFF {what}, which cannot be decoded") if what else None


def _described(of: Page) -> str:
    kind = {UINT: "", INT: "signed ", FLOAT: "floating "}.get(of.sample_format, "other ")
    bands = f"{of.bands:,} band{'s' if of.bands != 1 else ''}"
    return f"of {bands} of {of.bits or 'different'} {kind}bits"


def refuse_lost_parts(data: bytes, of: Page, pixel_limit: int) -> None:
    """Refuse a page that Pillow reads in which libjpeg finds parts of JPEGs missing.

    Raises:
        ImageError: a part of the picture is lost.
    """
    for place, size in _extents_of_jpegs(of):
        packed = data[place : place + size]
        if packed.startswith(b"\xff\xd8"):  # it may be no more than a part of an old JPEG
            jpeg.refuse_lost_parts(_with_tables(packed, of), pixel_limit)


def _extents_of_jpegs(of: Page) -> list[tuple[int, int]]:
    """Where JPEGs may begin, and their bytes; of the old sort there is one, and strips cut it."""
    if of.compression not in (_OLD_JPEG, _JPEG):
        return []
    extents = [(int(place), int(size)) for place, size in zip(of.offsets, of.sizes, strict=False)]
    if of.compression == _JPEG:
        return extents
    begin, size = of.number(513, 0), of.number(514, 0)
    if all(begin <= place and place + held <= begin + size for place, held in extents):
        return [(begin, size)]
    return extents if len(extents) == 1 else []


def decode(data: bytes, of: Page, pixel_limit: int) -> Image.Image:
    """The picture of a page, in a mode of 8 bits, with its orientation as EXIF.

    Unsigned samples keep their high byte; signed ones are clipped to 0…65535 (8-bit ones to
    0…127), as Pillow has them, and those keep theirs; floats see
    :func:`job.images.floats.to_bytes`.

    Raises:
        ImageError: it is too large, damaged, or of a sort that cannot be decoded.
    """
    _refuse_by_header(of, pixel_limit)
    kept = _kept_bands(of)
    shape = of.height, of.width, len(kept)
    if of.sample_format == FLOAT:
        with np.errstate(all="ignore"):
            levels = np.full(shape, of.no_data or 0, np.float32)
            _fill(levels, kept, data, of, pixel_limit)
            levels = floats.to_bytes(levels, of.no_data)
    else:
        levels = np.zeros(shape, _stored_type(of))
        _fill(levels, kept, data, of, pixel_limit)
    image = _coloured(levels, of)
    image.getexif()[0x0112] = of.orientation
    return image


def _stored_type(of: Page) -> type[np.unsignedinteger]:
    return np.uint16 if of.colours == _PALETTE and of.bits > 8 else np.uint8


def _refuse_by_header(of: Page, pixel_limit: int) -> None:
    across, down = of.segment_size
    refuse_oversized((of.width, of.height), pixel_limit)
    refuse_oversized((across, down), pixel_limit, "a tile of ")
    if min(of.width, of.height, across, down) <= 0:
        raise ImageError("corrupt", "the file is damaged (a picture without pixels)")
    if not 1 <= of.bands <= _MOST_BANDS or of.bits not in range(1, 65):
        raise _cannot(of)
    if of.sample_format not in (UINT, INT, FLOAT) or of.compression not in _UNPACKED_HERE:
        raise _cannot(of)
    if of.bits > 16 and of.bits not in (32, 64):
        raise _cannot(of)
    if of.sample_format == FLOAT and of.bits not in (16, 32, 64):
        raise _cannot(of)
    if of.sample_format == INT and of.bits not in (8, 16, 32, 64):
        raise _cannot(of)
    if of.compression == _JPEG and (of.sample_format, of.bits) not in ((UINT, 8), (UINT, 12)):
        raise _cannot(of)
    segments = -(-of.width // across) * -(-of.height // down)
    if segments > _MOST_SEGMENTS or segments * across * down > 4 * pixel_limit + (1 << 24):
        raise ImageError("corrupt", f"the file is damaged ({segments:,} parts of one picture)")
    if across * down * (1 if of.is_planar else of.bands) * of.bits > (
        8 * _BYTES_PER_PIXEL * pixel_limit
    ):
        raise _cannot(of)


def _cannot(of: Page) -> ImageError:
    return ImageError("unsupported", f"a TIFF {_described(of)}, which cannot be decoded")


def _kept_bands(of: Page) -> range:
    """Which bands make the picture; alpha, near infrared and the like do not."""
    extras = [int(value) for value in of.tags.get(338, ())]
    if of.colours in (_WHITE_IS_ZERO, BLACK_IS_ZERO):
        # GDAL writes colours as grey with extra bands, the last of them perhaps alpha (1, 2).
        has_alpha = of.bands == 4 and bool(extras) and extras[-1] in (1, 2)
        if of.bands <= 2:
            return range(1)
        if of.colours == BLACK_IS_ZERO and (of.bands == 3 or has_alpha):
            return range(3)
    elif of.colours == _PALETTE and of.bits <= 16 and of.sample_format == UINT:
        if len(of.tags.get(320, ())) == 3 << of.bits:
            return range(1)
    elif of.colours == _RGB and of.bands >= 3:
        return range(3)
    elif of.colours == _YCBCR and of.compression == _JPEG and of.bands == 3:
        if not of.is_planar:
            return range(3)
    elif of.colours == _CMYK and of.bands >= 4 and of.sample_format == UINT:
        return range(4)
    elif of.colours == _LAB and of.bits in (8, 16) and of.bands >= 3:
        return range(3)
    raise unsupported(of) or _cannot(of)


def _fill(levels: np.ndarray, kept: range, data: bytes, of: Page, pixel_limit: int) -> None:
    """Unpack all strips or tiles into the picture."""
    across, down = of.segment_size
    columns, rows = -(-of.width // across), -(-of.height // down)
    per_plane = columns * rows
    planes = kept if of.is_planar else range(1)
    if len(of.offsets) < per_plane * len(planes):
        raise _without_place()
    for plane in planes:
        for number in range(per_plane):
            top, left = number // columns * down, number % columns * across
            height = down if of.is_tiled else min(down, of.height - top)
            place, size = _extent(plane * per_plane + number, height, data, of)
            if not place:
                continue
            samples = _samples(data[place : place + size], across, height, of, pixel_limit)
            view = levels[top : top + height, left : left + across]
            seen = samples[: view.shape[0], : view.shape[1]]
            if of.is_planar:
                view[:, :, plane] = _reduced(seen[:, :, 0], of)
            else:
                view[:] = _reduced(seen[:, :, : len(kept)], of)


def _extent(number: int, height: int, data: bytes, of: Page) -> tuple[int, int]:
    """Where a strip or tile of so many rows begins, and its bytes; 0, 0 if it was never written."""
    place = int(of.offsets[number])
    size = int(of.sizes[number]) if number < len(of.sizes) else 0
    if not place and number < len(of.sizes) and not size:
        return 0, 0
    # As libtiff does where programs wrote no sizes or wrong ones.
    if of.compression == NO_COMPRESSION:
        size = _row_bytes(of) * height
    elif not size and len(of.offsets) == 1:
        size = len(data) - place
    if not place or size <= 0:
        raise _without_place()
    if place + size > len(data):
        raise ImageError("truncated", "the file is cut short")
    return place, size


def _without_place() -> ImageError:
    return ImageError("corrupt", "the file is damaged (parts of the picture have no place)")


def _row_bytes(of: Page) -> int:
    """Bytes of an unpacked row of a strip or tile."""
    return -(-of.segment_size[0] * (1 if of.is_planar else of.bands) * of.bits // 8)


def _reduced(samples: np.ndarray, of: Page) -> np.ndarray:
    """Samples of any kind as they are stored until colours are made of them."""
    if of.sample_format == FLOAT or of.colours == _PALETTE:
        return samples
    if of.sample_format == INT:
        return samples.clip(0, 127) if of.bits == 8 else samples.clip(0, 65535) >> 8
    if of.bits < 8:
        return samples.astype(np.uint16) * 255 // ((1 << of.bits) - 1)
    return samples >> (of.bits - 8)


def _coloured(levels: np.ndarray, of: Page) -> Image.Image:
    if of.colours == _PALETTE:
        colours = of.tags[320].reshape(3, -1)
        # Some programs write colours of 8 bits where the standard has 16.
        table = (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8).T
        return Image.fromarray(table[levels[:, :, 0]])
    if of.colours == _WHITE_IS_ZERO:
        levels = 255 - levels
    if levels.shape[2] == 1:
        return Image.fromarray(np.ascontiguousarray(levels[:, :, 0]))
    if of.colours == _LAB:
        # Only a and b are signed.
        return Image.frombytes("LAB", (of.width, of.height), levels.tobytes(), "raw", "LAB")
    return Image.fromarray(levels, "CMYK" if of.colours == _CMYK else "RGB")


# A strip or tile


def _samples(packed: bytes, width: int, height: int, of: Page, pixel_limit: int) -> np.ndarray:
    """One strip or tile, (height, width, bands)."""
    bands = 1 if of.is_planar else of.bands
    if of.compression == _WEBP:
        return _webp(packed, width, height, of)
    if of.compression == _JPEG:
        return _jpeg(packed, width, height, of, pixel_limit)
    per_row = _row_bytes(of)
    if of.number(266, 1) == 2:
        packed = packed.translate(_REVERSED)
    unpacked = _unpacked(packed, per_row * height, of.compression)
    if len(unpacked) < per_row * height:
        raise ImageError("truncated", "the file is cut short (a part of the picture is too short)")
    unpacked = unpacked[: per_row * height]
    predictor = of.number(317, 1)
    if predictor == 3 and of.sample_format == FLOAT:
        return _float_predicted(unpacked, width, height, bands, of.bits // 8)
    if of.bits not in (8, 16, 32, 64):
        import imagecodecs

        kind = np.uint8 if of.bits < 8 else np.uint16
        samples = imagecodecs.packints_decode(unpacked, kind, of.bits, runlen=width * bands)
        return np.asarray(samples)[: width * bands * height].reshape(height, width, bands)
    letter = {UINT: "u", INT: "i", FLOAT: "f"}[of.sample_format]
    dtype = np.dtype(f"{of.order}{letter}{of.bits // 8}")
    samples = np.frombuffer(unpacked, dtype).reshape(height, width, bands)
    if predictor == 2:
        whole = samples.astype(f"u{of.bits // 8}" if letter == "f" else dtype.newbyteorder("="))
        np.cumsum(whole, axis=1, dtype=whole.dtype, out=whole)
        return whole.view(dtype.newbyteorder("=")) if letter == "f" else whole
    return samples


def _float_predicted(unpacked: bytes, width: int, height: int, bands: int, item: int) -> np.ndarray:
    """Undo predictor 3: differences of bytes, sorted by significance (Adobe, TIFF note 3)."""
    rows = np.frombuffer(unpacked, np.uint8).reshape(height, width * item, bands)
    rows = np.cumsum(rows, axis=1, dtype=np.uint8).reshape(height, item, width * bands)
    together = np.ascontiguousarray(rows.transpose(0, 2, 1))
    return together.view(f">f{item}").reshape(height, width, bands)


def _unpacked(packed: bytes, size: int, compression: int) -> bytes:
    """No more than so many bytes of a strip or tile."""
    import imagecodecs

    try:
        if compression in (_DEFLATE, _OLD_DEFLATE):
            return zlib.decompressobj().decompress(packed, size)
        if compression == _LZMA:
            return lzma.LZMADecompressor(memlimit=1 << 28).decompress(packed, size)
        if compression == _LZW:
            return bytes(imagecodecs.lzw_decode(packed, out=size))
        if compression == _PACKBITS:
            return bytes(imagecodecs.packbits_decode(packed, out=size))
        if compression == _ZSTD:
            return bytes(imagecodecs.zstd_decode(packed, out=size))
    except (
        *(zlib.error, lzma.LZMAError, EOFError, ValueError, RuntimeError),
        *(imagecodecs.ImcdError, imagecodecs.ZstdError),
    ):
        raise ImageError("corrupt", "the file is damaged (a part cannot be unpacked)") from None
    return packed


def _webp(packed: bytes, width: int, height: int, of: Page) -> np.ndarray:
    if of.bits != 8 or of.sample_format != UINT or of.is_planar:
        raise _cannot(of)
    if webp.size(packed) not in (None, (width, height)):
        raise ImageError("corrupt", "the file is damaged (a part is of another size)")
    with Image.open(io.BytesIO(packed), formats=("WEBP",)) as image:
        if image.size != (width, height):
            raise ImageError("corrupt", "the file is damaged (a part is of another size)")
        return np.asarray(image.convert("RGBA" if of.bands == 4 else "RGB"))


def _with_tables(packed: bytes, of: Page) -> bytes:
    """A JPEG with the tables that all strips or tiles share."""
    tables = of.tags.get(347, np.empty(0)).tobytes()
    return packed[:2] + tables[2:].removesuffix(b"\xff\xd9") + packed[2:]


def _jpeg(packed: bytes, width: int, height: int, of: Page, pixel_limit: int) -> np.ndarray:
    import imagecodecs

    whole = _with_tables(packed, of)
    jpeg.refuse_lost_parts(whole, pixel_limit)
    bands = 1 if of.is_planar else of.bands
    # The numbers are libjpeg's own for grey, RGB, YCbCr and CMYK. Where nothing says what the bands
    # are, it would take three for YCbCr, and libtiff writes them as they are.
    wanted = {1: 1, 3: 2, 4: 4}.get(bands)
    held = wanted
    if of.colours == _YCBCR and not of.is_planar:
        held = 3
    elif any(marker in (0xE0, 0xEE) for marker, _ in jpeg.header(whole).segments):
        held = None
    try:
        samples = imagecodecs.jpeg_decode(
            whole, bitspersample=of.bits, colorspace=held, outcolorspace=wanted
        )
    except imagecodecs.Jpeg8Error:
        raise ImageError("corrupt", "the file is damaged (a part cannot be unpacked)") from None
    samples = np.asarray(samples)
    samples = samples.reshape(*samples.shape[:2], -1)
    if samples.shape[0] < height or samples.shape[1:] != (width, bands):
        raise ImageError("corrupt", "the file is damaged (a part is of another size)")
    return samples[:height]
