"""Kinds of image files that come out wrong elsewhere: each decodes right, or says its true sort.

The files are made here, by other people's encoders. Those of the shared collection are compared
with its own truth.
"""

import gzip
import io
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import ExifTags, Image, ImageOps

from job.errors import ImageError
from job.image_names import EXTENSIONS
from job.images.decode import decode, decode_reduced, to_array
from tests.conftest import PHOTOS, needs_photos, picture
from tests.hostile import chunk, originals, png, saved, scene, tiff

AWKWARD = PHOTOS / "awkward"
HEIGHT, WIDTH = 48, 80
ACROSS, DOWN = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
GREY = (ACROSS * 255 // (WIDTH - 1)).astype(np.uint8)
COLOURS = np.dstack([GREY, DOWN * 255 // (HEIGHT - 1), 255 - GREY]).astype(np.uint8)
LAYOUTS = [
    {},
    {"rowsperstrip": 7},
    {"tile": (32, 32)},
    {"compression": "zlib", "predictor": True},
    {"compression": "lzw", "predictor": True, "tile": (16, 16), "byteorder": ">"},
    {"compression": "zstd", "bigtiff": True, "byteorder": ">"},
    {"compression": "packbits", "rowsperstrip": 5},
]


def wide(levels: np.ndarray, bits: int) -> np.ndarray:
    """8-bit levels as samples of 16, 32 or 64 bits."""
    factor = np.uint64(((1 << bits) - 1) // 255)
    return (levels.astype(np.uint64) * factor).astype(f"u{bits // 8}")


def tif(samples: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, **options)
    return buffer.getvalue()


def error_of(data: bytes | bytearray, **options: int) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(bytes(data), **options)
    return caught.value


def assert_shows(data: bytes | bytearray, expected: np.ndarray, tolerance: int = 1) -> None:
    found = to_array(decode(bytes(data))).astype(int)
    expected = expected if expected.ndim == 3 else np.dstack([expected] * 3)
    assert found.shape == expected.shape
    assert np.abs(found - expected.astype(int)).max() <= tolerance


# The shared collection

REFUSED = {
    "d_png_short_valid_stream.png": ("truncated", "rows of the picture are missing"),
    "j_12bit.jpg": ("unsupported", "a JPEG of 12 bits"),
    "j_big_cut_half_eoi.jpg": ("truncated", "premature end"),
    "j_big_zero_mid.jpg": ("truncated", "premature end"),
}


@needs_photos
def test_the_shared_awkward_files_are_right_or_say_why_not() -> None:
    files = [path for path in sorted(AWKWARD.iterdir()) if path.suffix not in ("", ".md")]
    assert len(files) >= 22
    for path in files:
        data, truth = path.read_bytes(), AWKWARD / "truth" / f"{path.name}.png"
        if path.name in REFUSED:
            error = error_of(data)
            kind, words = REFUSED[path.name]
            assert (error.kind, words in error.message) == (kind, True), path.name
        elif truth.exists():
            with Image.open(truth) as image:
                assert_shows(data, np.asarray(image.convert("RGB")))
        elif path.name == "x_jp2_grey9.jp2":
            assert_shows(data, (np.arange(512).reshape(16, 32) >> 1).astype(np.uint8))
        else:
            assert to_array(decode(data)).shape == (HEIGHT, WIDTH, 3), path.name


# TIFF


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_tiffs_of_any_width_layout_and_meaning_show_their_colours(
    bits: int, layout: dict[str, object]
) -> None:
    assert_shows(tif(wide(GREY, bits), photometric="minisblack", **layout), GREY)
    assert_shows(tif(wide(255 - GREY, bits), photometric="miniswhite", **layout), GREY)
    inks = np.dstack([255 - COLOURS, np.zeros_like(GREY)])
    near_infrared = np.dstack([COLOURS, GREY])
    for planes in ("contig", "separate"):
        options = {"planarconfig": planes, **layout}

        def placed(samples: np.ndarray, planes: str = planes) -> np.ndarray:
            samples = wide(samples, bits)
            return samples if planes == "contig" else np.moveaxis(samples, 2, 0).copy()

        assert_shows(tif(placed(COLOURS), photometric="rgb", **options), COLOURS)
        assert_shows(tif(placed(inks), photometric="separated", **options), COLOURS)
        for extra in ("unspecified", "unassalpha"):
            data = tif(placed(near_infrared), photometric="rgb", extrasamples=[extra], **options)
            assert_shows(data, COLOURS)


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 9, 10, 12, 14])
def test_packed_samples_keep_their_brightest_bits(bits: int) -> None:
    most = (1 << bits) - 1
    levels = (ACROSS * most // (WIDTH - 1)).astype(np.uint16 if bits > 8 else np.uint8)
    expected = levels // 2 ** (bits - 8) if bits > 8 else levels.astype(int) * 255 // most
    grey = {"bitspersample": bits, "rowsperstrip": 5}
    assert_shows(tif(levels, photometric="minisblack", **grey), expected)
    assert_shows(tif(most - levels, photometric="miniswhite", **grey), expected)
    colours = np.dstack([levels, levels * 0, levels])
    shown = np.dstack([expected, expected * 0, expected])
    assert_shows(tif(colours, photometric="rgb", bitspersample=bits), shown)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_floats_are_scaled_by_the_range_that_most_of_them_keep_to(
    kind: str, layout: dict[str, object]
) -> None:
    unit = (GREY / 255).astype(kind)
    odd, shown = unit.copy(), GREY.copy()
    for place, value in enumerate([1.0002, 40.0, np.inf, np.nan, -np.inf]):
        odd[place, 3], shown[place, 3] = value, 255 if value > 0 else 0
    assert_shows(tif(unit, photometric="minisblack", **layout), GREY)
    assert_shows(tif(odd, photometric="minisblack", **layout), shown)
    assert_shows(tif(1 - unit, photometric="miniswhite", **layout), GREY)
    assert_shows(tif(GREY.astype(kind), photometric="minisblack", **layout), GREY)
    assert_shows(tif((COLOURS / 255).astype(kind), photometric="rgb", **layout), COLOURS)


UNIT = GREY.astype(np.float32) / 255
SPECKS = (ACROSS * 7 + DOWN * 3) % 53 == 0  # 2 % of the pixels
HOLE = (DOWN >= 10) & (DOWN < 30)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (UNIT * 1.05, GREY),
        (np.where(SPECKS, 1.2, UNIT), np.where(SPECKS, 255, GREY)),
        (np.where(SPECKS, 40, UNIT), np.where(SPECKS, 255, GREY)),
        (UNIT * 0.2, GREY // 5),
        (UNIT * 255 - 0.4, GREY),
        (np.where(SPECKS, 2000, UNIT * 254.5), np.where(SPECKS, 255, GREY)),
        *((UNIT * top, GREY) for top in (0.01, 2, 10, 30, 300, 4095, 10_000, 65_535, 1e25)),
        (UNIT * 2 - 1, GREY),
        (UNIT * 600 - 300, GREY),
        (UNIT * 25 - 25, GREY),
        (UNIT * 3990 - 4000, GREY),
        (np.rint(UNIT * 40), GREY * 40.0 / 255),
        (GREY - 3.0, GREY),
        # White that is reached, by few or by many, however dark the rest.
        *(
            (np.where(white, top, UNIT * share * top), np.where(white, 255, GREY * share))
            for top in (1, 255)
            for share in (0.05, 0.2)
            for white in ((ACROSS * 7 + DOWN * 3) % 211 == 0, HOLE)
        ),
    ],
    ids=lambda value: f"{value.min():.4g} to {value.max():.4g}",
)
def test_floats_of_any_range_keep_their_picture(samples: np.ndarray, expected: np.ndarray) -> None:
    data = tif(samples.astype(np.float32), photometric="minisblack")
    # At each end 1 % is clipped, and a picture that begins at 0 has its first level there.
    assert_shows(data, expected, tolerance=12)


@pytest.mark.parametrize("value", [-9999, -32_768, -1e20, -3.4e38])
@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 255), (0, 3000), (0, 10_000), (-25, 0), (-4000, 8000)]
)
def test_a_value_far_from_all_others_has_no_say_if_no_tag_tells_of_it(
    low: float, high: float, value: float
) -> None:
    levels = np.where(HOLE, value, low + UNIT * (high - low)).astype(np.float32)
    assert_shows(tif(levels, photometric="minisblack"), np.where(HOLE, 0, GREY), tolerance=8)
    if low >= 0 and value > -1e30:
        levels = np.where(HOLE, -value * 10, low + UNIT * (high - low)).astype(np.float32)
        assert_shows(tif(levels, photometric="minisblack"), np.where(HOLE, 255, GREY), 8)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        *([(0.5,), (127,)], [(0.01,), (2,)], [(5.5,), (5,)], [(200,), (200,)], [(1000,), (255,)]),
        *([(-5,), (0,)], [(0, 1), (0, 255)], [(0, 1000), (0, 255)], [(-5, 0), (0, 255)]),
        *([(-5, 3), (0, 255)], [(-1, 0, 1), (0, 127, 255)], [(-9999, 0, 1), (0, 0, 255)]),
        *([(100, 500, 900), (0, 127, 255)], [(0, 0.01), (0, 255)], [(1e-40, 0), (0, 0)]),
    ],
    ids=str,
)
def test_floats_of_few_values_can_be_told_apart(
    levels: tuple[float, ...], expected: tuple[int, ...]
) -> None:
    number = (ACROSS + DOWN) % len(levels)
    data = tif(np.array(levels, np.float32)[number], photometric="minisblack")
    assert_shows(data, np.array(expected)[number])


@pytest.mark.parametrize("value", [-9999.0, 9999.0, 3.4028235e38])
def test_what_gdal_calls_no_data_is_black_and_has_no_say(value: float) -> None:
    levels, shown = (GREY / 255).astype(np.float32), GREY.copy()
    levels[10:30], shown[10:30] = value, 0
    tag = (42113, 2, 0, str(value), True)
    assert_shows(tif(levels, photometric="minisblack", extratags=[tag]), shown)


def test_palettes_of_8_and_of_16_bits_show_the_same_colours() -> None:
    table = np.array([np.arange(256), 255 - np.arange(256), np.full(256, 7)], np.uint16)
    expected = table.T[GREY].astype(np.uint8)
    for colours in (table, table * 257):
        assert_shows(tif(GREY, photometric="palette", colormap=colours), expected)


def test_bands_that_are_no_colours_are_named_and_not_guessed() -> None:
    three = tif(COLOURS, photometric="minisblack", planarconfig="contig")
    assert_shows(three, COLOURS)
    for bands in (4, 13):
        for kind in (np.uint8, np.uint16):
            samples = np.zeros((HEIGHT, WIDTH, bands), kind)
            error = error_of(tif(samples, photometric="minisblack", planarconfig="contig"))
            assert error.kind == "unsupported"
            assert f"a TIFF of {bands} bands" in error.message


@pytest.mark.parametrize(
    ("options", "sort"),
    [
        ({"photometric": 32845}, "LogLuv"),
        ({"compression": "lerc", "photometric": "rgb"}, "LERC"),
        ({"compression": "jpegxl", "photometric": "rgb"}, "JPEG XL"),
        ({"compression": "jpeg2000", "photometric": "rgb"}, "JPEG 2000"),
    ],
)
def test_a_sound_tiff_that_cannot_be_decoded_is_not_called_damaged(
    options: dict[str, Any], sort: str
) -> None:
    error = error_of(tif(COLOURS, **options))
    assert (error.kind, sort in error.message) == ("unsupported", True)


JPEG_PAGES = [
    (GREY, {"photometric": "minisblack"}),
    (255 - GREY, {"photometric": "miniswhite"}),
    (COLOURS, {"photometric": "rgb"}),
    (COLOURS, {"photometric": "minisblack", "planarconfig": "contig"}),
    (np.dstack([255 - COLOURS, GREY * 0]), {"photometric": "separated"}),
    (np.asarray(Image.fromarray(COLOURS).convert("YCbCr")), {"photometric": "ycbcr"}),
]


@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 16}, {"tile": (32, 32)}], ids=str)
@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize(("samples", "options"), JPEG_PAGES)
def test_a_jpeg_within_a_tiff_is_shown_whole_or_refused(
    samples: np.ndarray, options: dict[str, Any], bits: int, layout: dict[str, object]
) -> None:
    stored = samples if bits == 8 else wide(samples, 16) >> 4
    data = tif(stored, compression="jpeg", compressionargs={"level": 97}, **options, **layout)
    shown = GREY if samples.ndim == 2 else COLOURS
    assert np.abs(to_array(decode(data)).astype(int) - np.atleast_3d(shown)).mean() < 4
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        begin, size = page.dataoffsets[0], page.databytecounts[0]
    end = begin + size
    half = (entropy_coded(data[begin:end]) + size) // 2
    ended = data[: begin + half] + b"\xff\xd9" * (size - half) + data[end:]
    zeroed = data[: begin + half] + bytes(size - half - 2) + b"\xff\xd9" + data[end:]
    for damaged in (ended[: len(data)], zeroed):
        assert error_of(damaged).kind in {"truncated", "corrupt"}


@pytest.mark.parametrize("bits", [8, 12])
def test_bands_of_a_jpeg_within_a_tiff_that_are_no_colours_are_named(bits: int) -> None:
    samples = np.dstack([COLOURS, GREY]).astype(np.uint8 if bits == 8 else np.uint16)
    data = tif(samples, photometric="minisblack", planarconfig="contig", compression="jpeg")
    error = error_of(data)
    assert (error.kind, f"4 bands of {bits} bits" in error.message) == ("unsupported", True)


def jpeg_page(data: bytes, **tags: tuple[int, ...]) -> bytes:
    """A TIFF of one page around a JPEG of 320×240 with colours at half their size."""
    given: dict[str, Any] = {
        "t258": (8, 8, 8),
        "t259": (7,),
        "t262": (6,),
        "t273": (8,),
        "t277": (3,),
        "t278": (240,),
        "t279": (len(data),),
        "t530": (2, 2),
    }
    return tiff(320, 240, data, **(given | tags))


@pytest.mark.parametrize("code", [b"\xff\x06", b"\xff\xd8", b"\xff\xc5\0\2", b"\xff\xc4\0\0"])
def test_what_libjpeg_gives_up_on_is_refused_within_a_tiff_too(code: bytes) -> None:
    data = saved(Image.fromarray(picture(5, 240, 320)), "JPEG", subsampling=2)
    assert decode(jpeg_page(data)).size == (320, 240)
    at = (entropy_coded(data) + len(data)) // 2
    broken = data[:at] + code + data[at + len(code) :]
    for damaged in (broken, jpeg_page(broken)):
        assert "broken data stream" in error_of(damaged).message


@pytest.mark.parametrize("with_header", [True, False])
def test_strips_that_cut_an_old_jpeg_within_a_tiff_are_one_picture(with_header: bool) -> None:
    image = Image.fromarray(picture(5, 240, 320))
    data = saved(image, "JPEG", subsampling=2, restart_marker_rows=1)
    cuts = [found.end() for found in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    begins = [0 if with_header else entropy_coded(data), *cuts]
    tags = {
        "t259": (6,),
        "t278": (16,),
        "t512": (1,),
        "t513": (8,),
        "t514": (len(data),),
        "t273": tuple(8 + begin for begin in begins),
        "t279": tuple(e - b for b, e in zip(begins, [*cuts, len(data)], strict=True)),
    }
    found = to_array(decode(jpeg_page(data, **tags))).astype(int)
    assert np.abs(found - to_array(decode(data))).mean() < 2
    at = cuts[3]
    damaged = data[:at] + bytes(400) + data[at + 400 :]
    assert error_of(jpeg_page(damaged, **tags)).kind in {"truncated", "corrupt"}


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("bits", [8, 16])
def test_dark_that_is_large_keeps_its_picture_beside_a_plane_of_alpha(
    bits: int, layout: dict[str, object]
) -> None:
    planes = wide(np.stack([255 - GREY, GREY]), bits)
    options = {"planarconfig": "separate", "extrasamples": ["unassalpha"], **layout}
    assert_shows(tif(planes, photometric="miniswhite", **options), GREY)


@pytest.mark.parametrize("size", [None, 0, 100])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [8, 16])
def test_raw_samples_are_found_whatever_size_a_tiff_gives_them(
    bits: int, photometric: int, size: int | None
) -> None:
    levels = wide(GREY if photometric else 255 - GREY, bits)
    for strips in (1, 3):
        length = levels.nbytes // strips
        data = tiff(
            *(WIDTH, HEIGHT, levels.tobytes()),
            t258=(bits,),
            t262=(photometric,),
            t278=(HEIGHT // strips,),
            t273=tuple(range(8, 8 + levels.nbytes, length)),
            t279=() if size is None else (size,) * strips,
        )
        assert_shows(data, GREY)


def test_webp_within_a_tiff_is_decoded() -> None:
    data = tif(COLOURS, photometric="rgb", compression="webp", compressionargs={"level": 101})
    assert np.abs(to_array(decode(data)).astype(int) - COLOURS).mean() < 4


@pytest.mark.parametrize("bits", [16, 32])
def test_a_tiff_is_refused_by_its_header_before_anything_is_unpacked(bits: int) -> None:
    data = tif(wide(COLOURS, bits), photometric="rgb", planarconfig="contig", compression="zlib")
    assert error_of(data, pixel_limit=HEIGHT * WIDTH - 1).kind == "too_large"
    for cut in (0.4, 0.7):
        assert error_of(data[: int(len(data) * cut)]).kind in {"truncated", "corrupt"}


# JPEG


def entropy_coded(jpeg: bytes) -> int:
    """Where the data of the first scan begins."""
    scan = jpeg.index(b"\xff\xda")
    return scan + 2 + int.from_bytes(jpeg[scan + 2 : scan + 4])


@pytest.mark.parametrize("side", [None, 32])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"subsampling": 0, "optimize": True},
        {"restart_marker_rows": 1},
        {"restart_marker_blocks": 5},
    ],
    ids=str,
)
def test_a_damaged_jpeg_that_still_has_its_end_marker_is_refused(
    options: dict[str, Any], side: int | None
) -> None:
    for mode in ("RGB", "L", "CMYK"):
        data = saved(Image.fromarray(picture(5, 320, 480)).convert(mode), "JPEG", **options)
        begin = entropy_coded(data)
        half = (begin + len(data)) // 2
        assert decode_reduced(data, side)[0].mode == "RGB"
        cut = data[:half].rstrip(b"\xff") + b"\xff\xd9"
        with pytest.raises(ImageError) as caught:
            decode_reduced(cut, side)
        assert caught.value.kind in {"truncated", "corrupt"}
    zeroed = data[: half - 1000] + bytes(2000) + data[half + 1000 :]
    with pytest.raises(ImageError):
        decode_reduced(zeroed, side)


RESTARTS = [
    {"restart_marker_rows": 1},
    {"restart_marker_rows": 1, "progressive": True},
    {"restart_marker_rows": 8, "optimize": True},
    {"restart_marker_blocks": 5},
]


@pytest.mark.parametrize("options", RESTARTS, ids=str)
def test_a_lost_restart_marker_alone_costs_no_picture(options: dict[str, Any]) -> None:
    for mode in ("RGB", "L", "CMYK"):
        image = Image.fromarray(picture(5, 320, 480)).convert(mode)
        data = saved(image, "JPEG", **options)
        expected = to_array(decode(data))
        markers = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", data)]
        assert min(markers) > entropy_coded(data)
        for at in markers[1:9:3] if len(markers) > 2 else markers:
            for instead in (b"", b"\0\0", bytes([0xFF, 0xD0 + (data[at + 1] + 3) % 8]), b"\xff\0"):
                found = decode(data[:at] + instead + data[at + 2 :])
                assert np.array_equal(to_array(found), expected)
        damaged = data[: markers[0]] + data[markers[0] + 2 :]
        reduced = [decode_reduced(one, 40)[0] for one in (data, damaged)]
        assert np.array_equal(to_array(reduced[0]), to_array(reduced[1]))


@pytest.mark.parametrize("rows", [5, 7, 10])
def test_a_restart_marker_is_not_set_a_byte_too_late(rows: int) -> None:
    """The first interval behind it begins with a byte that libjpeg counts as it should not."""
    noise = np.random.default_rng(3).normal(0, 8, (240, 320, 3))
    image = Image.fromarray((picture(5, 240, 320) + noise).clip(0, 255).astype(np.uint8))
    for quality in range(70, 96, 2):
        data = saved(image, "JPEG", quality=quality, restart_marker_rows=rows)
        expected = to_array(decode(data))
        for found in re.finditer(rb"\xff[\xd0-\xd7]", data):
            damaged = data[: found.start()] + data[found.end() :]
            assert np.array_equal(to_array(decode(damaged)), expected)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("rows", [1, 3, 7])
def test_each_restart_marker_of_a_progressive_jpeg_can_be_lost(rows: int, mode: str) -> None:
    image = Image.fromarray(picture(5, 120, 160)).convert(mode)
    data = saved(image, "JPEG", progressive=True, restart_marker_rows=rows)
    expected = to_array(decode(data))
    for found in re.finditer(rb"\xff[\xd0-\xd7]", data):
        damaged = data[: found.start()] + data[found.end() :]
        assert np.array_equal(to_array(decode(damaged)), expected), found


def test_data_that_begins_with_a_stuffed_byte_is_not_taken_for_a_spoilt_marker() -> None:
    noise = np.random.default_rng(3).normal(0, 30, (96, 512, 3))
    image = Image.fromarray((picture(5, 96, 512) + noise).clip(0, 255).astype(np.uint8))
    for quality in range(80, 97, 4):
        options = {"quality": quality, "progressive": True, "restart_marker_rows": 1}
        data = saved(image, "JPEG", **options)
        for found in re.finditer(rb"\xff[\xd0-\xd7](?=\xff\0)", data):
            damaged = data[: found.start()] + data[found.end() :]
            assert np.array_equal(to_array(decode(damaged)), to_array(decode(data)))


def test_a_restart_marker_that_is_overwritten_takes_no_data_with_it() -> None:
    image = Image.fromarray(picture(5, 240, 320))
    data = saved(image, "JPEG", quality=90, restart_marker_blocks=3)
    expected = to_array(decode(data)).astype(int)
    for found in list(re.finditer(rb"\xff[\xd0-\xd7](?=[\0-\xbf])", data))[::3]:
        damaged = data[: found.start()] + b"\xff\xff" + data[found.end() :]
        assert np.array_equal(to_array(decode(damaged)), expected), found


def test_what_follows_the_end_of_a_jpeg_has_no_say_on_its_restart_markers() -> None:
    data = saved(Image.fromarray(picture(5, 240, 320)), "JPEG", restart_marker_rows=1)
    at = data.index(b"\xff\xd3")
    expected = to_array(decode(data))
    found = to_array(decode(data[:at] + data[at + 2 :] + bytes(100)))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("options", [*RESTARTS, {"restart_marker_rows": 10}], ids=str)
def test_what_is_lost_with_a_restart_marker_is_missed(options: dict[str, Any]) -> None:
    data = saved(Image.fromarray(picture(5, 320, 480)), "JPEG", quality=90, **options)
    markers = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    marker = markers[len(markers) // 3]
    half = (len(data) - entropy_coded(data)) // 2
    for begin, length in (
        *((marker - 100, 200), (marker, 200), (marker - 700, 1500)),
        *((marker - 700, half), (marker, half), (marker + 2, half)),
    ):
        end = begin + length
        for instead in (b"", bytes(length)):
            assert error_of(data[:begin] + instead + data[end:]).kind in {"truncated", "corrupt"}


@pytest.mark.parametrize("options", [{"progressive": True}, {"optimize": True}], ids=str)
def test_zeros_in_place_of_picture_data_are_no_filling(options: dict[str, Any]) -> None:
    data = saved(Image.fromarray(picture(5, 320, 480)), "JPEG", **options)
    begin = entropy_coded(data)
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        at = begin + int(share * (len(data) - begin))
        for end in (at + 1500, len(data) - 2):
            zeroed = data[:at] + bytes(end - at) + data[end:]
            assert error_of(zeroed[: len(data) - 2] + b"\xff\xd9").kind in {"truncated", "corrupt"}


def test_an_odd_header_hides_no_damage() -> None:
    data = saved(scene(320, 480), "JPEG")
    begin = entropy_coded(data)
    for odd in (
        data[: begin - 3] + b"\0\0\0" + data[begin:],
        data[:2] + b"\xff\xe2\0\x11ICC_PROFILE\0\x03\x02" + data[2:],
        data.replace(b"\xff\xdb", b"\0\0\0\0\xff\xdb", 1),
    ):
        assert np.array_equal(to_array(decode(odd)), to_array(decode(data)))
        cut = odd[: len(odd) // 2].rstrip(b"\xff") + b"\xff\xd9"
        assert error_of(cut).kind == "truncated"


def test_filling_and_odd_segments_of_a_sound_jpeg_cost_no_picture() -> None:
    data = saved(scene(), "JPEG")
    expected = to_array(decode(data))
    odd_adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x07"
    for sound in (
        data[:-2] + b"\0" * 9 + b"\xff\xd9",
        data[:-2] + b"\x5a\xff\xd9",
        data[:-2] + b"\x5a" * 3000 + b"\xff\xff\xd9",
        data + b"whatever else",
        data[:2] + odd_adobe + data[2:],
    ):
        assert np.array_equal(to_array(decode(sound)), expected)


def filled(jpeg: bytes, filling: bytes, count: int = 0) -> bytes:
    """A JPEG with filling before all scans but the first and their tables, or before so many."""
    begin = jpeg.index(b"\xff\xda") + 2
    later = re.sub(rb"\xff[\xda\xc4]", lambda found: filling + found[0], jpeg[begin:], count=count)
    return jpeg[:begin] + later


@pytest.mark.parametrize(
    "filling", [b"\0", b"\xa5", b"\0\0", b"\xff", bytes(8), bytes(500)], ids=len
)
def test_filling_between_the_scans_of_a_jpeg_costs_no_picture(filling: bytes) -> None:
    for options in ({}, {"restart_marker_rows": 1}):
        data = saved(scene(96, 128), "JPEG", progressive=True, **options)
        assert np.array_equal(to_array(decode(filled(data, filling))), to_array(decode(data)))
        half = filled(data[: len(data) * 2 // 3].rstrip(b"\xff") + b"\xff\xd9", filling)
        assert error_of(half).kind in {"truncated", "corrupt"}


def test_what_one_scan_alone_leaves_over_is_no_filling() -> None:
    data = saved(Image.fromarray(picture(5, 240, 320)), "JPEG", progressive=True)
    error = error_of(filled(data, b"\x3c", 1))
    assert "1 byte of picture data is left over" in error.message


@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}], ids=str)
def test_the_end_of_a_thumbnail_is_not_the_end_of_a_jpeg(options: dict[str, Any]) -> None:
    data = saved(scene(), "JPEG", **options)
    exif = b"Exif\0\0II*\0\x08" + bytes(9) + saved(scene(32, 32), "JPEG")
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2) + exif
    endless = data[:2] + segment + data[2:-2]
    assert np.array_equal(to_array(decode(endless + bytes(100))), to_array(decode(data)))
    error = error_of(endless[: len(endless) - len(data) // 3] + bytes(100))
    assert error.kind == "truncated"


def test_ordinary_jpegs_are_equal_to_pillows_to_the_pixel() -> None:
    image = Image.fromarray(picture(6, 331, 473))
    for mode in ("RGB", "L", "CMYK"):
        ways: list[dict[str, Any]] = [
            *({"subsampling": number} for number in range(3)),
            *({"progressive": True}, {"optimize": True, "quality": 30}, {"keep_rgb": True}),
        ]
        for options in ways:
            data = saved(image.convert(mode), "JPEG", **options)
            expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            assert np.array_equal(to_array(decode(data)), expected), (mode, options)


def test_sound_jpegs_of_other_sorts_are_named_and_not_called_damaged() -> None:
    for samples in (COLOURS, GREY, wide(GREY, 16)):
        error = error_of(imagecodecs.jpegls_encode(samples))
        assert (error.kind, "a JPEG-LS" in error.message) == ("unsupported", True)
    error = error_of(imagecodecs.jpeg_encode(wide(COLOURS, 16) // 16, bitspersample=12))
    assert (error.kind, "a JPEG of 12 bits" in error.message) == ("unsupported", True)


# PNG


def test_rows_that_a_png_lacks_are_not_shown_as_black() -> None:
    row = b"\0" + bytes(range(1, 61))
    whole = png(20, 10, row * 10, colour=2)
    assert decode(whole).size == (20, 10)
    for rows in (1, 5, 9):
        error = error_of(png(20, 10, row * rows, colour=2))
        assert error.kind == "truncated"
    black = png(20, 10, bytes(61 * 10), colour=2)
    assert not to_array(decode(black)).any(), "a picture that is black is whole"


@pytest.mark.parametrize("name", [b"iCCP", b"tEXt", b"gAMA", b"pHYs", b"prVt"])
def test_a_wrong_checksum_or_length_of_what_is_not_needed_costs_no_picture(name: bytes) -> None:
    data = saved(scene(), "PNG")
    wrong = bytearray(chunk(name, b"k\0\0" + zlib.compress(b"x")))
    wrong[-1] ^= 1
    for extra in (bytes(wrong), chunk(name, b"\1\2"), chunk(name, b"")):
        for place in (33, len(data) - 12):
            found = decode(data[:place] + extra + data[place:])
            assert np.array_equal(to_array(found), np.asarray(scene()))
    header = bytearray(data)
    header[30] ^= 1
    assert error_of(bytes(header)).kind in {"corrupt", "not_an_image"}


@pytest.mark.parametrize("content", [b"", b"\0", b"\0\1\0"])
@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_short_list_of_transparent_colours_costs_no_picture(mode: str, content: bytes) -> None:
    data = saved(scene().convert(mode), "PNG")
    place = data.index(b"IDAT") - 4
    found = decode(data[:place] + chunk(b"tRNS", content) + data[place:])
    assert np.array_equal(to_array(found), np.asarray(scene().convert(mode).convert("RGB")))


def icon(png: bytes) -> bytes:
    entry = struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(png), 22)
    return struct.pack("<HHH", 0, 1, 1) + entry + png


@pytest.mark.parametrize("wrapped", [bytes, icon])
def test_a_png_whose_end_is_overwritten_is_refused(wrapped: Callable[[bytes], bytes]) -> None:
    noise = np.random.default_rng(1).integers(0, 128, (90, 130, 3)) + picture(5, 90, 130) // 2
    data = saved(Image.fromarray(noise.astype(np.uint8)), "PNG")
    assert decode(wrapped(data)).size == (130, 90)
    for share in (0.5, 0.75, 0.9, 0.99):
        kept = int(len(data) * share)
        error = error_of(wrapped(data[:kept] + bytes(len(data) - kept)))
        assert error.kind in {"truncated", "corrupt"}


def test_a_png_within_an_icon_is_held_to_the_same_as_others() -> None:
    row = b"\0" + bytes(range(1, 61))
    whole, short = (png(20, 10, row * rows, colour=2) for rows in (10, 5))
    assert np.array_equal(to_array(decode(icon(whole))), to_array(decode(whole)))
    assert "rows of the picture are missing" in error_of(icon(short)).message
    place = whole.index(b"IDAT") - 4
    odd = whole[:place] + chunk(b"tEXt", b"a\0b")[:-1] + b"?" + whole[place:]
    assert np.array_equal(to_array(decode(icon(odd))), to_array(decode(whole)))
    small, large = icon(whole), saved(scene(64, 64), "ICO", sizes=[(16, 16), (64, 64)])
    assert (decode(small).size, decode(large).size) == ((20, 10), (64, 64))


# JPEG 2000, HEIC, AVIF, gzip


@pytest.mark.parametrize("container", ["jp2", "j2k"])
@pytest.mark.parametrize("bits", [9, 10, 12, 14, 16])
def test_jpeg_2000_above_8_bits_keeps_its_brightest_levels(bits: int, container: str) -> None:
    options: dict[str, Any] = {"level": 0, "codecformat": container, "bitspersample": bits}
    levels = (COLOURS.astype(np.uint32) * ((1 << bits) - 1) // 255).astype(np.uint16)
    assert_shows(imagecodecs.jpeg2k_encode(levels, **options), COLOURS)
    assert_shows(imagecodecs.jpeg2k_encode(levels[:, :, 0].copy(), **options), GREY)
    alpha = np.dstack([levels, levels[:, :, 1]])
    assert_shows(imagecodecs.jpeg2k_encode(alpha, **options), COLOURS)


@pytest.mark.parametrize("container", ["jp2", "j2k"])
@pytest.mark.parametrize("bits", [1, 2, 4, 5, 7])
def test_jpeg_2000_below_8_bits_has_white_that_is_white(bits: int, container: str) -> None:
    most = (1 << bits) - 1
    levels = (COLOURS.astype(int) * most // 255).astype(np.uint8)
    expected = levels.astype(int) * 255 // most
    options: dict[str, Any] = {"level": 0, "codecformat": container, "bitspersample": bits}
    for samples, shown in (
        (levels, expected),
        (levels[:, :, 0].copy(), expected[:, :, 0]),
        (np.dstack([levels, levels[:, :, 1]]), expected),
    ):
        assert expected.max() == 255
        assert_shows(imagecodecs.jpeg2k_encode(samples, **options), shown, tolerance=0)


@pytest.mark.parametrize("depth", [4, 8, 12])
@pytest.mark.parametrize("bits", [4, 8])
def test_jpeg_2000_with_a_palette_shows_its_colours(bits: int, depth: int) -> None:
    numbers = (ACROSS % 16).astype(np.uint8)
    most = (1 << depth) - 1
    table = np.array([[n * most // 15, most, most - n // 2 * most // 15] for n in range(16)])
    table[3] = table[2]  # a colour twice

    def box(name: bytes, *parts: bytes | bytearray) -> bytes:
        content = b"".join(parts)
        return struct.pack(">I", 8 + len(content)) + name + content

    palette = struct.pack(">HB", 16, 3) + bytes([depth - 1] * 3)
    palette += table.astype(">u2" if depth > 8 else "u1").tobytes()
    header = box(b"ihdr", struct.pack(">IIHBBBB", HEIGHT, WIDTH, 1, bits - 1, 7, 0, 0))
    header += box(b"colr", b"\1\0\0", struct.pack(">I", 16)) + box(b"pclr", palette)
    header += box(b"cmap", *(struct.pack(">HBB", 0, 1, band) for band in range(3)))
    codes = imagecodecs.jpeg2k_encode(numbers, level=0, codecformat="j2k", bitspersample=bits)
    start = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    data = start + box(b"jp2h", header) + box(b"jp2c", codes)
    assert_shows(data, table[numbers] * 255 // most, tolerance=0)


def heic(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, quality=95, **options)
    return buffer.getvalue()


def test_heic_simply_works() -> None:
    image = scene(96, 160)
    data = heic(image)
    assert np.abs(to_array(decode(data)).astype(int) - np.asarray(image)).mean() < 6
    assert {".heic", ".heif", ".hif"} <= EXTENSIONS
    assert error_of(data, pixel_limit=999).kind == "too_large"
    assert error_of(data[: len(data) // 2]).kind in {"truncated", "corrupt"}
    several = pillow_heif.from_pillow(image)
    several.add_from_pillow(Image.new("RGB", (64, 64)))
    buffer = io.BytesIO()
    several.save(buffer, quality=95, primary_index=0)
    assert decode(buffer.getvalue()).size == image.size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_upright_however_the_phone_was_held(orientation: int) -> None:
    """A phone writes its turn twice, for HEIF (irot, imir) and in EXIF; it is one turn."""
    lying = Image.fromarray(picture(0, 64, 96))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    lying.info["exif"] = exif.tobytes()
    pillow_heif.register_heif_opener()
    buffer = io.BytesIO()
    lying.save(buffer, "HEIF", quality=95)
    assert (orientation == 1) != (b"irot" in buffer.getvalue() or b"imir" in buffer.getvalue())
    turned = lying.copy()
    turned.getexif()[ExifTags.Base.Orientation] = orientation
    upright = np.asarray(ImageOps.exif_transpose(turned), int)
    found = to_array(decode(buffer.getvalue()))
    assert found.shape == upright.shape
    assert np.abs(found - upright).mean() < 12, "as HEIC loses it"


def test_heic_and_avif_of_10_bits_show_what_they_hold() -> None:
    image = np.asarray(scene(96, 160))
    buffer = io.BytesIO()
    pillow_heif.encode("RGB;16", (160, 96), wide(image, 16).tobytes(), buffer, quality=95)
    avif = imagecodecs.avif_encode(wide(image, 16) >> 6, bitspersample=10, level=95)
    for data in (buffer.getvalue(), bytes(avif)):
        assert np.abs(to_array(decode(data)).astype(int) - image).mean() < 8


def test_a_gzip_compressed_image_is_unpacked_and_a_bomb_is_not() -> None:
    for name in ("jpg", "png", "raw.tif", "bmp"):
        data = originals()[name]
        packed = gzip.compress(data)
        assert np.array_equal(to_array(decode(packed)), to_array(decode(data)))
        assert error_of(packed[: len(packed) // 2]).kind == "truncated"
    assert error_of(gzip.compress(b"a text of some kind")).kind == "not_an_image"
    bomb = gzip.compress(b"BM" + struct.pack("<I", 0) + bytes(64 << 20))
    error = error_of(bomb, pixel_limit=1_000_000)
    assert (error.kind, "gzip" in error.message) == ("too_large", True)


@pytest.mark.parametrize("name", ["ppm", "tga", "rle.tga", "jp2", "avif", "webp", "ico", "gif"])
def test_gzip_around_any_format_that_is_decoded_is_unpacked(name: str) -> None:
    data = originals()[name]
    expected = to_array(decode(data))
    assert np.array_equal(to_array(decode(gzip.compress(data))), expected)
    assert np.array_equal(to_array(decode(gzip.compress(gzip.compress(data)))), expected)
    for kept in (12, 25):
        assert error_of(gzip.compress(data)[:kept]).kind == "truncated"


def test_gzip_around_a_large_tiff_or_a_blank_picture_is_unpacked() -> None:
    for data in (tif(COLOURS, photometric="rgb", bigtiff=True, byteorder=">"), heic(scene())):
        expected = to_array(decode(data))
        assert np.array_equal(to_array(decode(gzip.compress(data))), expected)
    blank = Image.new("RGB", (1500, 1500))
    assert decode(gzip.compress(saved(blank, "BMP"))).size == blank.size
    error = error_of(gzip.compress(saved(blank, "BMP")), pixel_limit=100_000)
    assert (error.kind, "raise --pixel-limit" in error.message) == ("too_large", True)
    assert "--byte-limit" not in error.message


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (b"name.txt" + bytes(249) + b"ustar", "not_an_image"),
        (b"SIMPLE  =                    T", "unsupported"),
        (gzip.compress(gzip.compress(b"BM")), "not_an_image"),
    ],
    ids=["nothing", "tar", "FITS", "gzip in gzip"],
)
def test_gzip_around_no_image_is_called_what_it_is(data: bytes, kind: str) -> None:
    assert error_of(gzip.compress(data)).kind == kind


# Other sorts


@pytest.mark.parametrize(
    ("start", "says"),
    [
        (b"8BPS\0\1", "a Photoshop image"),
        (b"\x76\x2f\x31\x01", "an OpenEXR image"),
        (imagecodecs.qoi_encode(COLOURS), "a QOI image"),
        (imagecodecs.jpegxr_encode(COLOURS), "a JPEG XR image"),
        (imagecodecs.jpegxl_encode(COLOURS), "a JPEG XL image"),
        (b"DDS |\0\0\0", "a DDS image"),
        (b"SIMPLE  =                    T", "a FITS image"),
        (b"#?RADIANCE\n", "a Radiance HDR image"),
        (b"P7\nWIDTH 2\n", "a PAM image"),
        (b"P5#by hand\n2 2 255\n", "an oddly commented Netpbm image"),
        (b"PF\n2 2\n-1.0\n", "a colour PFM image"),
        (b"\0\0\0\x18ftypcrx ", "a camera's raw image"),
        (b"FUJIFILMCCD-RAW ", "a camera's raw image"),
        (b"IIU\0\x18\0\0\0", "a camera's raw image"),
        (bytes(128) + b"DICM", "a DICOM image"),
    ],
)
def test_a_sound_image_of_another_sort_is_called_by_its_name(start: bytes, says: str) -> None:
    error = error_of(start + bytes(100))
    assert (error.kind, says in error.message) == ("unsupported", True)


@pytest.mark.parametrize(
    ("start", "says"),
    [
        (b"RIFF\x64\0\0\0WAVEfmt ", "a sound recording"),
        (b"RIFF\x64\0\0\0AVI LIST", "a video"),
        (b"RIFF\x64\0\0\0WEBPwhat", "begins like a WebP"),
        (b"\0\0\0\x18ftyp3gp4", "a video"),
        (b"\0\0\0\x18ftypM4A ", "a sound recording"),
        (b"\x1a\x45\xdf\xa3", "a video"),
        (b"BZh91AY", "an archive"),
        (b"\xfd7zXZ\0", "an archive"),
    ],
)
def test_what_is_no_image_is_called_by_its_name(start: bytes, says: str) -> None:
    error = error_of(start + bytes(100))
    assert (error.kind, says in error.message) == ("not_an_image", True)
