"""A collection of image files as no camera writes them, each with how it may end.

Made here, always the same: cut short, with headers that lie, inflating to gigapixels, of every odd
but honest kind, no images at all, with broken metadata, and with names that break careless code.
"""

import io
import json
import re
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, features
from PIL.PngImagePlugin import PngInfo

from job.errors import ImageError
from job.images.decode import decode_reduced, to_array
from tests.conftest import picture

MAP = frozenset({"map"})
BAD = frozenset({"truncated", "corrupt", "not_an_image"})
# So small that collections are quick, and that images over it are cheap to make.
PIXEL_LIMIT = 1_000_000
# Words of Python's and of its libraries' insides, which no person should have to read.
_INTERNAL = re.compile(
    r"\b[A-Z]\w*(Error|Exception|Warning)\b|0x|\bb['\"]|object at|[<>\[\]\\]|None|unpack|Traceback"
)


@dataclass(frozen=True)
class Hostile:
    """A file: its name, its bytes, and what it may become: ``map``, or kinds of error."""

    name: str
    data: bytes
    ends: frozenset[str]


def collection() -> list[Hostile]:
    """All of them."""
    return [
        *_cut_short(),
        *_lying(),
        *(Hostile(f"bomb-{name}", data, kinds) for name, (data, kinds) in bombs().items()),
        *_odd_but_honest(),
        *_strangers(),
        *_broken_metadata(),
        *_names(),
    ]


def write(folder: Path) -> dict[str, frozenset[str]]:
    """Write all of them into a folder; gives what each name may become."""
    expected = {}
    for file in collection():
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.data)
        assert file.name not in expected, file.name
        expected[file.name] = file.ends
    return expected


def outcome(data: bytes, side: int | None = None) -> tuple[str, str]:
    """What becomes of a file: ``map`` or the kind of its error, and what is said of it."""
    try:
        image, divisor = decode_reduced(data, side, pixel_limit=PIXEL_LIMIT)
    except ImageError as error:
        return error.kind, error.message
    assert image.mode == "RGB"
    assert to_array(image).shape == (*image.size[::-1], 3)
    assert divisor in ((1,) if side is None else (1, 2, 4, 8))
    assert divisor == 1 or min(image.size) >= (side or 0)
    assert 0 < image.width * image.height * divisor**2 <= PIXEL_LIMIT
    return "map", "a picture"


def is_a_sentence(message: str) -> bool:
    """Whether a person can read it: one line, no control characters, nothing of Python."""
    return bool(message) and message.isprintable() and not _INTERNAL.search(message)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """An image as a file of some format."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def scene(height: int = 48, width: int = 64) -> Image.Image:
    """An ordinary picture."""
    return Image.fromarray(picture(7, height, width))


def _frames() -> dict[str, object]:
    # New ones each time: saving leaves settings of one format behind that another trips over.
    return {"save_all": True, "append_images": [scene(), scene()]}


@cache
def originals() -> dict[str, bytes]:
    """One good file of every format and most of its variants, by extension-like names."""
    image = scene()
    grey, palette = image.convert("L"), image.convert("P")
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "jpg": saved(image, "JPEG", exif=exif),
        "progressive.jpg": saved(image, "JPEG", progressive=True),
        "restarts.jpg": saved(image, "JPEG", restart_marker_rows=1),
        "png": saved(image, "PNG", exif=exif),
        "palette.png": saved(palette, "PNG", transparency=3),
        "animated.png": saved(image, "PNG", **_frames()),
        "webp": saved(image, "WEBP"),
        "lossless.webp": saved(image, "WEBP", lossless=True),
        "animated.webp": saved(image, "WEBP", **_frames()),
        "gif": saved(palette, "GIF"),
        "animated.gif": saved(palette, "GIF", **_frames()),
        "raw.tif": saved(image, "TIFF"),
        "lzw.tif": saved(image, "TIFF", compression="tiff_lzw"),
        "deflate.tif": saved(image, "TIFF", compression="tiff_deflate"),
        "jpeg.tif": saved(image, "TIFF", compression="jpeg"),
        "fax.tif": saved(grey.convert("1"), "TIFF", compression="group4"),
        "bmp": saved(image, "BMP"),
        "grey.bmp": saved(grey, "BMP"),
        "jp2": saved(image, "JPEG2000"),
        "j2k": saved(image, "JPEG2000", no_jp2=True),
        "ico": saved(image, "ICO", sizes=[(32, 32)]),
        "tga": saved(image, "TGA"),
        "rle.tga": saved(image, "TGA", compression="tga_rle"),
        "ppm": saved(image, "PPM"),
    }
    if features.check("avif"):
        files["avif"] = saved(image, "AVIF")
    return files


# Cut short


def _cut_short() -> list[Hostile]:
    files = []
    for name, data in originals().items():
        for share in (2, 10, 30, 50, 70, 90):
            length = max(1, len(data) * share // 100)
            # The second frame of an animation is never read.
            ends = BAD | MAP if name.startswith("animated") and share > 40 else BAD
            files.append(Hostile(f"cut/{share:02d}-percent.{name}", data[:length], ends))
        # What is missing may be no more than an end marker.
        files.append(Hostile(f"cut/last-byte.{name}", data[:-1], BAD | MAP))
    return files


# Headers that lie


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check


def png(
    width: int,
    height: int,
    pixels: bytes,
    *more: bytes,
    depth: int = 8,
    colour: int = 0,
    deflated: bool = False,
) -> bytes:
    """A PNG that says of itself what it is told to."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = pixels if deflated else zlib.compress(pixels)
    chunks = [chunk(b"IHDR", header), *more, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff(
    width: int,
    height: int,
    pixels: bytes,
    *,
    following: int = 0,
    **changes: tuple[int, ...],
) -> bytes:
    """A little-endian TIFF of one grey page; ``t322=(16,)`` sets tag 322, ``t273=()`` drops it."""
    tags: dict[int, tuple[int, ...]] = {
        256: (width,), 257: (height,), 258: (8,), 259: (1,), 262: (1,), 273: (8,), 277: (1,),
        278: (height,), 279: (len(pixels),),
    }  # fmt: skip
    tags.update({int(name[1:]): values for name, values in changes.items()})
    tags = {tag: values for tag, values in sorted(tags.items()) if values}
    place = 8 + len(pixels)
    arrays, entries = b"", b""
    for tag, values in tags.items():
        words = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            entries += struct.pack("<HHII", tag, 4, len(values), place + len(arrays))
            arrays += words
        else:
            entries += struct.pack("<HHI", tag, 4, 1) + words
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)
    return b"II*\0" + struct.pack("<I", place + len(arrays)) + pixels + arrays + directory


def gif(
    screen: tuple[int, int], frame: tuple[int, int, int, int], lzw: bytes, code_size: int = 2
) -> bytes:
    """A GIF of one grey frame, which may be elsewhere than on its screen."""
    blocks = b"".join(
        bytes([len(lzw[at : at + 255])]) + lzw[at : at + 255] for at in range(0, len(lzw), 255)
    )
    header = b"GIF89a" + struct.pack("<HHBBB", *screen, 0, 0, 0)
    return header + b"," + struct.pack("<HHHHBB", *frame, 0, code_size) + blocks + b"\0;"


def lzw_of_zeros(pixels: int) -> bytes:
    """At least so many pixels of colour 0, as GIF packs them: some thousand to a byte."""
    packed, bits, have = bytearray(), 0, 0
    while pixels > 0:
        width = 3
        for code in (4, 0, *range(6, 4096)):
            bits |= code << have
            have += width
            while have >= 8:
                packed.append(bits & 255)
                bits, have = bits >> 8, have - 8
            if code >= 6:
                pixels -= code - 4
                width += code + 1 == 1 << width and width < 12
        bits |= 4 << have
        have += 12
        pixels -= 1
    return bytes(packed) + bits.to_bytes(4, "little")


def _jpeg_claiming(width: int, height: int) -> bytes:
    data = bytearray(originals()["jpg"])
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def _patched(name: str, at: bytes | int, offset: int, new: bytes) -> bytes:
    data = bytearray(originals()[name])
    place = (at if isinstance(at, int) else data.index(at)) + offset
    data[place : place + len(new)] = new
    return bytes(data)


def _bmp(width: int, height: int, bits: int, compression: int, pixels: bytes) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    palette = bytes(4 << bits) if bits <= 8 else b""
    offset = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, offset) + header + palette + pixels


def _ico(image: bytes, side: int = 0, offset: int = 22) -> bytes:
    entry = struct.pack("<BBBBHHII", side, side, 0, 0, 1, 32, len(image), offset)
    return struct.pack("<HHH", 0, 1, 1) + entry + image


def webp_of_one_colour(width: int, height: int) -> bytes:
    """A lossless WebP of a few bytes: every colour has a code of no bits at all."""
    fields = [(0x2F, 8), (width - 1, 14), (height - 1, 14), (0, 4)]
    fields += [(0, 1), (0, 1), (0, 1)]  # no transforms, no colour cache, one group of codes
    one_symbol = [(1, 1), (0, 1), (0, 1), (0, 1)]
    fields += one_symbol * 3 + [(1, 1), (0, 1), (1, 1), (255, 8)] + one_symbol
    bits = have = 0
    for value, size in fields:
        bits |= value << have
        have += size
    data = bits.to_bytes(have // 8 + 8, "little")
    data += bytes(len(data) % 2)
    body = b"WEBPVP8L" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _lying() -> list[Hostile]:
    large, bad = frozenset({"too_large"}), BAD
    unsupported = BAD | {"unsupported"}
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff\xff\xff\xff\xff\0"
    webp = b"WEBP" + canvas + originals()["webp"][12:]
    loop = tiff(8, 8, bytes(64))
    cases: list[tuple[str, bytes, frozenset[str]]] = [
        ("ihdr-60000.png", png(60_000, 60_000, bytes(100)), large),
        ("ihdr-largest.png", png(2**31 - 1, 2**31 - 1, bytes(100)), large),
        ("ihdr-too-tall.png", png(900, 900, bytes(100)), frozenset({"truncated"})),
        ("width-0.png", png(0, 5, bytes(100)), bad),
        ("depth-3.png", png(5, 5, bytes(100), depth=3), bad),
        ("colour-type-9.png", png(5, 5, bytes(100), colour=9), bad),
        ("no-palette.png", png(5, 5, bytes(30), colour=3), bad | MAP),
        ("two-headers.png", png(5, 5, bytes(30), chunk(b"IHDR", bytes(13))), bad),
        ("checksum.png", _patched("png", b"IHDR", 17, b"\0\0"), bad),
        ("pixels.png", _patched("png", b"IDAT", 20, b"\xff" * 8), bad),
        ("endless-chunk.png", _patched("png", b"IDAT", -4, b"\x7f\xff\xff\xff"), bad | MAP),
        ("sof-65500.jpg", _jpeg_claiming(65_500, 65_500), large),
        ("sof-900.jpg", _jpeg_claiming(900, 900), bad),
        ("sof-16.jpg", _jpeg_claiming(16, 16), bad),
        ("sof-no-lines.jpg", _jpeg_claiming(64, 0), bad),
        ("precision-12.jpg", _patched("jpg", b"\xff\xc0", 4, b"\x0c"), unsupported),
        ("two-components.jpg", _patched("jpg", b"\xff\xc0", 9, b"\x02"), bad),
        ("sampling-0.jpg", _patched("jpg", b"\xff\xc0", 11, b"\0"), bad),
        ("no-tables.jpg", originals()["jpg"].replace(b"\xff\xc4", b"\xff\xec"), MAP),
        ("adobe.jpg", _with_segment(b"\xff\xee", b"Adobe"), bad),
        ("jfif.jpg", _with_segment(b"\xff\xe0", b"JFIF"), bad),
        ("segments.jpg", b"\xff\xd8" + b"\xff\xe1\0\x09Exif\0\0x" * 5000, frozenset({"corrupt"})),
        ("padding.jpg", b"\xff\xd8" + b"\xff" * 200_000, frozenset({"corrupt"})),
        ("scans.jpg", with_scans(2000), frozenset({"corrupt"})),
        ("width-negative.bmp", _bmp(-5, 5, 24, 0, bytes(99)), bad | large),
        ("height-largest.bmp", _bmp(5, 2**31 - 1, 24, 0, bytes(99)), large),
        ("height-smallest.bmp", _bmp(5, -(2**31), 24, 0, bytes(99)), large),
        ("rle-50000.bmp", _bmp(50_000, 50_000, 8, 1, b"\xff\0" * 99), large),
        ("rle-jumps.bmp", _bmp(999, 999, 8, 1, b"\0\2\xff\xff" * 99), bad | MAP),
        ("7-bits.bmp", _bmp(5, 5, 7, 0, bytes(99)), unsupported),
        ("jpeg-within.bmp", _bmp(5, 5, 24, 4, bytes(99)), unsupported),
        ("offset.bmp", _patched("bmp", 10, 0, b"\xff\xff\xff\x7f"), bad),
        ("width-largest.tif", tiff(2**31 - 1, 2**31 - 1, bytes(64)), large),
        ("ring-of-one.tif", tiff(8, 8, bytes(64), following=len(loop) - 114), MAP),
        ("directory-beyond.tif", b"II*\0" + struct.pack("<I", 2**32 - 2) + bytes(64), bad),
        ("directory-in-header.tif", b"II*\0" + bytes(4) + bytes(64), bad),
        ("tile-60000.tif", _tiled(8, 8, 60_000, bytes(64)), large),
        ("tile-0.tif", _tiled(8, 8, 0, bytes(64)), bad),
        ("many-samples.tif", tiff(8, 8, bytes(64), t277=(60_000,)), unsupported),
        ("strip-beyond.tif", tiff(8, 8, bytes(64), t273=(2**31,)), bad),
        ("no-strips.tif", tiff(8, 8, bytes(64), t273=(), t279=()), bad),
        ("exif-loop.tif", tiff(8, 8, bytes(64), t34665=(72,)), MAP),
        ("compression-99.tif", tiff(8, 8, bytes(64), t259=(99,)), unsupported),
        ("screen-65535.gif", gif((65_535, 65_535), (0, 0, 4, 4), lzw_of_zeros(16)), large),
        ("frame-65535.gif", gif((4, 4), (0, 0, 65_535, 65_535), lzw_of_zeros(16)), large),
        ("frame-beyond.gif", gif((4, 4), (65_000, 65_000, 4, 4), lzw_of_zeros(16)), large),
        ("frame-larger.gif", gif((4, 4), (0, 0, 40, 40), lzw_of_zeros(1600)), MAP),
        ("no-frame.gif", b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0, 0, 0) + b";", bad),
        ("code-size.gif", gif((4, 4), (0, 0, 4, 4), lzw_of_zeros(16), 13), bad),
        ("canvas-16777216.webp", b"RIFF" + struct.pack("<I", len(webp)) + webp, bad | large),
        ("length.webp", _patched("webp", 4, 0, b"\xff\xff\xff\x7f"), bad | MAP),
        ("siz-60000.jp2", _patched("jp2", b"\xff\x4f\xff\x51", 8, b"\0\0\xea\x60" * 2), large),
        ("siz-60000.j2k", _patched("j2k", 8, 0, b"\0\0\xea\x60" * 2), large),
        ("tiles-of-1.jp2", _patched("jp2", b"\xff\x4f\xff\x51", 24, b"\0\0\0\1" * 2), bad | MAP),
        ("components.jp2", _patched("jp2", b"\xff\x4f\xff\x51", 40, b"\x40\0"), unsupported),
        ("ihdr-60000.jp2", _patched("jp2", b"ihdr", 4, b"\0\0\xea\x60" * 2), large),
        ("png-60000.ico", _ico(png(60_000, 60_000, bytes(100))), large),
        ("dib-60000.ico", _ico(_bmp(60_000, 60_000, 24, 0, bytes(99))[14:]), large),
        ("beyond.ico", _ico(b"", offset=2**31), bad),
        ("empty.ico", struct.pack("<HHH", 0, 1, 0), bad),
        ("65535.tga", bytes([0, 0, 10, *bytes(9), 255, 255, 255, 255, 24, 0]) + bytes(99), large),
        ("60000.ppm", b"P6 60000 60000 255\n" + bytes(99), large),
        ("too-many-digits.ppm", b"P6 99999999999999999 5 255\n" + bytes(99), bad),
        ("negative.ppm", b"P5 -5 5 255\n" + bytes(99), bad),
        ("comments.ppm", b"P3 9 9 255\n" + b"#\n" * 400_000, frozenset({"truncated", "corrupt"})),
    ]
    if features.check("avif"):
        sixty_thousand = b"\0\0\xea\x60" * 2
        cases.append(("ispe-60000.avif", _patched("avif", b"ispe", 8, sixty_thousand), bad | large))
    return [Hostile(f"lying/{name}", data, ends) for name, data, ends in cases]


def _tiled(width: int, height: int, side: int, deflated: bytes) -> bytes:
    return tiff(
        width, height, deflated, t259=(8,), t273=(), t278=(), t279=(), t322=(side,), t323=(side,),
        t324=(8,), t325=(len(deflated),),
    )  # fmt: skip


def with_scans(count: int) -> bytes:
    """A progressive JPEG whose first scan comes again and again."""
    data = originals()["progressive.jpg"]
    first = data.index(b"\xff\xda")
    second = data.index(b"\xff", first + 2)
    while data[second + 1] in (0, *range(0xD0, 0xD8)):
        second = data.index(b"\xff", second + 2)
    return data[:second] + data[first:second] * count + data[second:]


# Bombs


@cache
def _deflated_zeros(megabytes: int) -> bytes:
    packer, block = zlib.compressobj(9), bytes(1 << 20)
    return b"".join([packer.compress(block) for _ in range(megabytes)] + [packer.flush()])


def bombs() -> dict[str, tuple[bytes, frozenset[str]]]:
    """Small files that want to be gigabytes, and how each may end."""
    large, zeros = frozenset({"too_large"}), _deflated_zeros(200)
    small = bytes(72)
    texts = [chunk(b"zTXt", b"k%d\0\0" % n + _deflated_zeros(1)) for n in range(300)]
    many = b"".join(struct.pack("<HHII", 1000 + n, 1, 1_000_000, 8) for n in range(60_000))
    directory = b"II*\0" + struct.pack("<I", 1_000_008) + bytes(1_000_000)
    directory += struct.pack("<H", 60_000) + many + bytes(4)
    return {
        # 1.6 gigapixels of one bit, which are decoded to a byte each
        "pixels.png": (png(40_000, 40_000, zeros, depth=1, deflated=True), large),
        "profile.png": (png(8, 8, small, chunk(b"iCCP", b"k\0\0" + zeros)), MAP),
        "text.png": (png(8, 8, small, chunk(b"zTXt", b"k\0\0" + zeros)), MAP),
        "international.png": (png(8, 8, small, chunk(b"iTXt", b"k\0\1\0\0\0" + zeros)), MAP),
        "texts.png": (png(8, 8, small, *texts), MAP),
        "exif.png": (png(8, 8, small, chunk(b"eXIf", directory)), MAP),
        "pixels.gif": (gif((12_000, 12_000), (0, 0, 12_000, 12_000), _gif_bomb()), large),
        "pixels.webp": (webp_of_one_colour(16_384, 16_384), large),
        "pixels.tif": (tiff(40_000, 40_000, zeros, t258=(1,), t259=(8,)), large),
        "tile.tif": (_tiled(8, 8, 14_000, zeros), large),
        "tags.tif": (directory, BAD),
        "png.ico": (_ico(png(40_000, 40_000, zeros, depth=1, deflated=True)), large),
    }


@cache
def _gif_bomb() -> bytes:
    return lzw_of_zeros(144_000_000)


# Odd but honest


# 16 x 16 grey pixels, which Pillow reads and cannot write.
LOSSLESS_JPEG = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffc3000b080010001001011100"
    "ffc4001500010100000000000000000000000000000007ffda0008010100010000"
    "a4000000000000000000000000000000008880000000000000000000000000000000ffd9"
)


def _odd_but_honest() -> list[Hostile]:
    image = scene()
    grey = image.convert("L")
    wide = struct.pack(">64H", *range(0, 64000, 1000))
    cmyk = saved(image.convert("CMYK"), "JPEG")
    at = cmyk.index(b"Adobe") + 11
    files = {
        "16-bit-grey.png": saved(Image.new("I;16", (9, 7), 40_000), "PNG"),
        "16-bit-rgb.png": png(8, 2, (b"\0" + wide[:48]) * 2, depth=16, colour=2),
        "16-bit-rgba.png": png(8, 2, (b"\0" + wide[:64]) * 2, depth=16, colour=6),
        "16-bit-grey-alpha.png": png(8, 2, (b"\0" + wide[:32]) * 2, depth=16, colour=4),
        "1-bit.png": saved(grey.convert("1"), "PNG"),
        "alpha.png": saved(image.convert("RGBA"), "PNG"),
        "grey-alpha.png": saved(grey.convert("LA"), "PNG"),
        "palette-transparent.png": saved(image.convert("P"), "PNG", transparency=b"\0\x80\xff"),
        "animated.png": saved(image, "PNG", **_frames()),
        "cmyk.jpg": cmyk,
        "ycck.jpg": cmyk[:at] + b"\2" + cmyk[at + 1 :],
        "grey.jpg": saved(grey, "JPEG"),
        "lossless.jpg": LOSSLESS_JPEG,
        "multi-picture.jpg": saved(image, "MPO", **_frames()),
        "animated.gif": saved(image, "GIF", **_frames()),
        "animated.webp": saved(image, "WEBP", **_frames()),
        "alpha.webp": saved(image.convert("RGBA"), "WEBP"),
        "one-colour.webp": webp_of_one_colour(999, 999),
        "float.tif": saved(Image.new("F", (9, 7), 0.4), "TIFF"),
        "not-a-number.tif": saved(Image.new("F", (9, 7), float("nan")), "TIFF"),
        "lab.tif": saved(Image.new("LAB", (9, 7), (100, 120, 140)), "TIFF"),
        "ycbcr.tif": saved(image.convert("YCbCr"), "TIFF"),
        "cmyk.tif": saved(image.convert("CMYK"), "TIFF", compression="tiff_lzw"),
        "32-bit.tif": saved(Image.new("I", (9, 7), 40_000), "TIFF"),
        "pages.tif": saved(scene(), "TIFF", **_frames()),
        "tiled.tif": _tiled(20, 20, 32, zlib.compress(bytes(1024))),
        "low.png": saved(scene(1, 30_000), "PNG"),
        "narrow.png": saved(scene(30_000, 1), "PNG"),
        "low.jpg": saved(scene(1, 30_000), "JPEG"),
        "narrow.jpg": saved(scene(30_000, 1), "JPEG"),
        "one.png": saved(scene(1, 1), "PNG"),
        "one.jpg": saved(scene(1, 1), "JPEG"),
        "one.gif": saved(scene(1, 1), "GIF"),
        "one.webp": saved(scene(1, 1), "WEBP"),
        "one.tif": saved(scene(1, 1), "TIFF"),
        "top-down.bmp": _bmp(5, -5, 24, 0, bytes(80)),
        "rle.bmp": _bmp(4, 2, 8, 1, b"\4\1\0\0\4\2\0\1"),
        "plain.pbm": b"P1 3 2\n# a comment\n101010",
        "plain.pgm": b"P2 2 2 7 0 1 # one\n 6 7",
        "plain.ppm": b"P3 1 1 255 1 2 3",
        "odd-range.pgm": b"P5 2 2 7 \0\1\6\7",
        "a-png.jpg": saved(image, "PNG"),
        "a-jpeg.png": saved(image, "JPEG"),
        "more-behind.jpg": saved(image, "JPEG") + b"PK\3\4 and whatever else" * 99,
    }
    files |= {f"original.{name}": data for name, data in originals().items()}
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        files[f"orientation-{orientation}.jpg"] = saved(image, "JPEG", exif=exif)
    return [Hostile(f"odd/{name}", data, MAP) for name, data in files.items()]


# No images


def _strangers() -> list[Hostile]:
    not_an_image, unsupported = frozenset({"not_an_image"}), frozenset({"unsupported"})
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    cases = {
        "empty.jpg": (b"", frozenset({"empty"})),
        "page.jpg": (b"<!DOCTYPE html><html><body>404</body></html>", not_an_image),
        "answer.png": (json.dumps({"error": "not found"}).encode(), not_an_image),
        "denied.jpg": (b"<?xml version='1.0'?><Error>AccessDenied</Error>", not_an_image),
        "drawing.jpg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", not_an_image),
        "paper.jpg": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", not_an_image),
        "script.png": (b"#!/bin/sh\nrm -rf /\n", not_an_image),
        "text.jpg": (b"hello, I am a text file\n" * 9, not_an_image),
        "ansi.jpg": (b"\x1b[31mred\x1b[0m\x07", not_an_image),
        "pointer.jpg": (lfs, not_an_image),
        "archive.jpg": (b"PK\3\4" + bytes(99), not_an_image),
        "program.jpg": (b"\x7fELF\2\1\1" + bytes(99), not_an_image),
        "postscript.jpg": (saved(scene(), "EPS"), not_an_image),
        "zeros.jpg": (bytes(5000), not_an_image),
        "ones.jpg": (b"\xff" * 5000, not_an_image),
        "one-byte.png": (b"\x89", not_an_image),
        "signature.png": (b"\x89PNG\r\n\x1a\n", BAD),
        "marker.jpg": (b"\xff\xd8\xff", BAD),
        "phone.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), BAD),
        "film.jpg": (b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(99), not_an_image),
        "xl.jpg": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99), unsupported),
        "pickle.jpg": (b"\x80\4cos\nsystem\n(S'true'\ntR.", not_an_image),
    }
    return [Hostile(f"strangers/{name}", data, ends) for name, (data, ends) in cases.items()]


# Broken metadata around good pixels


def _broken_metadata() -> list[Hostile]:
    image = scene()
    exifs = {
        "nothing": b"Exif\0\0",
        "no-header": b"Exif\0\0garbage that is no TIFF header",
        "beyond": b"Exif\0\0II*\0\xff\xff\xff\xff",
        "type": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0abcd",
        "many": b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\3\xff\xff\xff\xff" * 99,
        "ring": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\1\0\0\0\x08\0\0\0\x08\0\0\0",
        "large": b"Exif\0\0" + b"\xff" * 60_000,
    }
    files = {f"exif-{name}.jpg": saved(image, "JPEG", exif=exif) for name, exif in exifs.items()}
    for name, exif in exifs.items():
        files[f"exif-{name}.png"] = saved(image, "PNG", exif=exif)
        files[f"exif-{name}.webp"] = saved(image, "WEBP", exif=exif)
    text = PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n 8\nno hexadecimal digits")
    turned = '<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    text_of_xmp = PngInfo()
    text_of_xmp.add_itxt("XML:com.adobe.xmp", turned)
    files |= {
        "profile.jpg": saved(image, "JPEG", icc_profile=b"garbage" * 99),
        "profile.png": saved(image, "PNG", icc_profile=b"garbage" * 99),
        "profile.webp": saved(image, "WEBP", icc_profile=b"garbage" * 99),
        "profile.tif": saved(image, "TIFF", icc_profile=b"garbage" * 99),
        "profile-parts.jpg": _with_segment(b"\xff\xe2", b"ICC_PROFILE\0\7\xff" + b"x" * 99),
        "photoshop.jpg": _with_segment(b"\xff\xed", b"Photoshop 3.0\0" + b"8BIM\xff" * 99),
        "pictures.jpg": _with_segment(b"\xff\xe2", b"MPF\0" + exifs["many"][6:]),
        "raw-profile.png": saved(image, "PNG", pnginfo=text),
        "xmp.png": saved(image, "PNG", pnginfo=text_of_xmp),
    }
    return [Hostile(f"metadata/{name}", data, MAP) for name, data in files.items()]


def _with_segment(marker: bytes, content: bytes) -> bytes:
    data = originals()["jpg"]
    return data[:2] + marker + struct.pack(">H", len(content) + 2) + content + data[2:]


# Names


def _names() -> list[Hostile]:
    good = saved(scene(20, 30), "JPEG")
    long = "n" * 251 + ".jpg"
    names = [
        *("a b.jpg", " a.jpg", "a#b.jpg", "a%b.jpg", "a%20b.jpg", "a?b.jpg", "a&b.jpg", "a+b.jpg"),
        *("*.jpg", "[ab].jpg", "{a,b}.jpg", "a=b.jpg", "a;b.jpg", "a|b.jpg", "a:b.jpg"),
        *("a\nb.jpg", "a\r\nb.jpg", "a\tb.jpg", "'a'.jpg", '"a".jpg', "`a`.jpg", "a\\b.jpg"),
        *("\\n.jpg", "<b>a.jpg", "a,b.jpg", "(a).jpg", "a@b.jpg", "~.jpg", "~root.jpg", "!.jpg"),
        *("ü🎈.jpg", "图像.jpg", "صورة.jpg", "\U0001f468\u200d\U0001f469.jpg", "$HOME.jpg"),
        *("\u00e9.jpg", "e\u0301.jpg", "e\u0301\u0302\u0303\u0304.jpg", "\u200b.jpg"),
        *("a\u202egpj.jpg", "\ufeffa.jpg", "a\u2028b.jpg", "\x1b[31ma\x1b[0m.jpg"),
        *("\x07\x7f\x85.jpg", "-a.jpg", "--model.jpg", ".a.jpg", "a..jpg", "A.JPG", "a.JpEg"),
        *("None.jpg", "nan.jpg", "0.jpg", "..%2f..%2fa.jpg", "%2e%2e%2fb.jpg", "s3:a.jpg", long),
        *("file:/a.jpg", "token=abc/a.jpg", "maps/a.jpg", "zip::a.jpg", "a.partial.jpg"),
        "/".join(["d" * 180] * 4) + "/deep.jpg",
    ]
    return [Hostile(f"names/{name}", good, MAP) for name in names]
