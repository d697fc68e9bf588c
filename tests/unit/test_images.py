"""Decoding: every kind of picture comes out upright and RGB; everything else is an ImageError."""

import io
import pickle
import struct
import subprocess
import sys
import time
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps
from PIL.PngImagePlugin import PngInfo

from job.errors import ImageError
from job.images.decode import decode, decode_reduced, to_array
from tests import hostile
from tests.conftest import PHOTOS, needs_photos, picture
from tests.hostile import chunk, is_a_sentence, outcome, png, saved, scene, with_scans

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def error_of(data: bytes, **options: int) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(data, **options)
    return caught.value


# Modes


@pytest.mark.parametrize(
    ("mode", "kind", "colour", "expected"),
    [
        ("1", "PNG", 1, (255, 255, 255)),
        ("L", "PNG", 77, (77, 77, 77)),
        ("LA", "PNG", (77, 0), (77, 77, 77)),
        ("RGB", "PNG", (1, 2, 3), (1, 2, 3)),
        ("RGBA", "PNG", (10, 20, 30, 0), (10, 20, 30)),
        ("RGBA", "WEBP", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", "TIFF", (10, 20, 30, 128), (10, 20, 30)),
        ("CMYK", "TIFF", (0, 255, 255, 0), RED),
        ("YCbCr", "TIFF", (255, 128, 128), (255, 255, 255)),
        ("I;16", "PNG", 0xABCD, (0xAB,) * 3),
        ("I;16", "TIFF", 0xABCD, (0xAB,) * 3),
        ("I;16B", "TIFF", 0xABCD, (0xAB,) * 3),
        ("I", "TIFF", 0xABCD, (0xAB,) * 3),
        ("F", "TIFF", 0.5, (127,) * 3),
        ("F", "TIFF", 200.0, (200,) * 3),
    ],
)
def test_every_mode_becomes_rgb(mode: str, kind: str, colour: Any, expected: object) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    image = decode(saved(Image.new(mode, (5, 3), colour), kind, **options))
    assert (image.mode, image.size) == ("RGB", (5, 3))
    assert set(image.get_flattened_data()) == {expected}


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
@pytest.mark.parametrize("transparency", [None, 0, 1])
def test_palettes_are_looked_up_whatever_is_transparent(
    kind: str, transparency: int | None
) -> None:
    image = Image.new("P", (4, 2))
    image.putpalette([*RED, *BLUE])
    image.putdata([0, 1, 0, 1, 1, 1, 0, 0])
    options = {} if transparency is None else {"transparency": transparency}
    found = decode(saved(image, kind, **options))
    expected = [RED, BLUE, RED, BLUE, BLUE, BLUE, RED, RED]
    assert list(found.get_flattened_data()) == expected


def test_palette_with_an_alpha_of_each_colour_keeps_its_colours() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putdata([0, 1])
    found = decode(saved(image, "PNG", transparency=bytes([0, 128])))
    assert list(found.get_flattened_data()) == [RED, GREEN]


def test_16_bit_grey_keeps_its_high_byte_at_every_level() -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    found = to_array(decode(saved(Image.fromarray(levels), "PNG")))
    for channel in range(3):
        assert np.array_equal(found[:, :, channel], levels >> 8)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), -3.0, 1e30])
def test_floats_out_of_range_do_not_end_in_an_error_or_warning(value: float) -> None:
    array = np.full((2, 2), 0.25, np.float32)
    array[0, 0] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = decode(saved(Image.fromarray(array), "TIFF"))
    assert (image.mode, image.size) == ("RGB", (2, 2))


def test_negative_and_wide_integers_are_clipped() -> None:
    array = np.array([[-5, 0, 65535, 1 << 20]], np.int32)
    found = to_array(decode(saved(Image.fromarray(array), "TIFF")))
    assert found[0, :, 0].tolist() == [0, 0, 255, 255]


def test_pixels_are_rows_by_columns_by_three_bytes() -> None:
    found = to_array(decode(saved(Image.new("L", (7, 4)), "PNG")))
    assert (found.shape, found.dtype) == ((4, 7, 3), np.uint8)


# Orientation


def undo_orientation(upright: Image.Image, orientation: int) -> Image.Image:
    """The picture as a camera stores it that writes this orientation."""
    turn = Image.Transpose
    stored = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_90,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_270,
    }
    return upright.transpose(stored[orientation]) if orientation in stored else upright


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_come_out_upright(orientation: int, kind: str) -> None:
    upright = Image.fromarray(picture(3, 20, 31))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(undo_orientation(upright, orientation), kind, exif=exif, **options)
    assert np.array_equal(to_array(decode(data)), np.asarray(upright))


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_does_not_exist_changes_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(picture(3, 20, 31))
    assert np.array_equal(to_array(decode(saved(image, "PNG", exif=exif))), np.asarray(image))


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0garbage that is no TIFF header",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0abcd",
    ],
)
def test_a_broken_exif_block_does_not_lose_the_picture(exif: bytes) -> None:
    image = Image.new("RGB", (16, 8), RED)
    assert decode(saved(image, "JPEG", exif=exif)).size == (16, 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "MPO"])
def test_a_turn_counts_though_the_rest_of_exif_is_broken(kind: str) -> None:
    """Of this block Pillow reads the turn, and fails to write it anew: the address is negative."""
    entries = struct.pack("<HHIi", 0x0112, 3, 1, 6) + struct.pack("<HHIi", 0x8769, 9, 1, -5)
    exif = b"Exif\0\0II*\0\x08\0\0\0\2\0" + entries + bytes(4)
    options = {"lossless": True} if kind == "WEBP" else {}
    plain = decode(saved(scene(20, 30), kind, **options))
    turned = plain.transpose(Image.Transpose.ROTATE_270)
    found = decode(saved(scene(20, 30), kind, exif=exif, **options))
    assert np.array_equal(to_array(found), np.asarray(turned))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "MPO", "AVIF", "PNG", "TIFF", "WEBP"])
def test_pictures_of_any_format_are_turned_as_pillow_turns_them(
    kind: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(scene(20, 30), kind, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    assert np.array_equal(to_array(decode(data)), np.asarray(expected))


@needs_photos
@pytest.mark.parametrize("name", ["Landscape", "Portrait"])
def test_photographs_of_every_orientation_look_alike(name: str) -> None:
    folder = PHOTOS / "exif-orientation"
    upright = decode((folder / f"{name}_1.jpg").read_bytes())
    small = np.asarray(upright.resize((32, 32)), float)
    for orientation in range(2, 9):
        image = decode((folder / f"{name}_{orientation}.jpg").read_bytes())
        assert image.size == upright.size
        assert np.abs(np.asarray(image.resize((32, 32)), float) - small).mean() < 4


# What is refused


@pytest.mark.parametrize(("width", "height"), [(2**31 - 1, 2**31 - 1), (200_000, 200_000)])
def test_a_huge_picture_is_refused_by_its_header_alone(width: int, height: int) -> None:
    started = time.process_time()
    error = error_of(png(width, height, bytes(100)))
    assert time.process_time() - started < 0.5
    assert (error.kind, error.retryable) == ("too_large", False)
    assert f"{width}×{height}" in error.message
    assert "--pixel-limit" in error.message


def test_the_pixel_limit_is_inclusive() -> None:
    data = saved(Image.new("L", (10, 10)), "PNG")
    assert decode(data, pixel_limit=100).size == (10, 10)
    assert error_of(data, pixel_limit=99).kind == "too_large"


def test_the_pixel_limit_stands_above_pillows_own() -> None:
    data = saved(Image.new("1", (10_000, 9_000)), "PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(data).size == (10_000, 9_000)


def test_nothing_is_empty() -> None:
    error = error_of(b"")
    assert (error.kind, error.message) == ("empty", "the object is empty (0 bytes)")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_that_is_cut_short_is_never_padded(kind: str, share: float) -> None:
    data = saved(Image.fromarray(picture(1, 200, 300)), kind)
    error = error_of(data[: int(len(data) * share)])
    assert error.kind in {"truncated", "corrupt", "not_an_image"}
    assert error.message


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_jpeg_or_png_cut_in_the_middle_is_called_truncated(kind: str) -> None:
    data = saved(Image.fromarray(picture(1, 200, 300)), kind)
    assert error_of(data[: len(data) // 2]).kind == "truncated"


def test_damaged_pixels_of_a_png_are_corrupt_and_not_shown() -> None:
    data = bytearray(saved(Image.fromarray(picture(1, 60, 80)), "PNG"))
    start = data.index(b"IDAT") + 20
    data[start : start + 8] = b"\xff" * 8
    assert error_of(bytes(data)).kind in {"corrupt", "truncated"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"<!DOCTYPE html><html><body>404</body></html>", "HTML"),
        (b"\n\n  <html>", "HTML"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b'{"error": "not found"}', "JSON"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "PDF"),
        (b"%!PS-Adobe-3.0", "a PostScript document"),
        (b"PK\x03\x04 and so on", "an archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
        (b"hello", "the file starts with 'hello'"),
        (b"\x1b[31mred", "the file starts with the bytes 1b 5b 33 31 6d 72 65 64"),
        (b"\xff\xd8", "the file starts with the bytes ff d8"),
        (b"\x00", "1 zeros"),
        (bytes(1000), "1,000 zeros"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, says: str) -> None:
    error = error_of(data)
    assert error.kind == "not_an_image"
    assert says in error.message


@pytest.mark.parametrize(
    ("brand", "kind", "says"),
    [
        (b"heic", "not_an_image", "begins like a HEIC, but its header is damaged"),
        (b"mif1", "not_an_image", "begins like a HEIC"),
        (b"isom", "not_an_image", "a video"),
        (b"qt  ", "not_an_image", "a video"),
    ],
)
def test_what_phones_upload_beside_photographs_is_named(brand: bytes, kind: str, says: str) -> None:
    error = error_of(b"\0\0\0\x18ftyp" + brand + bytes(40))
    assert (error.kind, says in error.message) == (kind, True)


def test_postscript_is_refused_because_it_would_start_another_program() -> None:
    data = saved(Image.new("RGB", (8, 8), RED), "EPS")
    assert data.startswith(b"%!PS")
    assert error_of(data).kind == "not_an_image"


@pytest.mark.parametrize("kind", ["PDF", "IM", "SPIDER", "PCX", "SGI", "MSP"])
def test_formats_nobody_uploads_are_refused_rather_than_parsed(kind: str) -> None:
    mode = {"SPIDER": "F", "MSP": "1"}.get(kind, "L")
    assert error_of(saved(Image.new(mode, (16, 16)), kind)).kind == "not_an_image"


def test_an_image_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(ImageError("truncated", "cut short", retryable=True)))
    assert (error.kind, error.message, error.retryable) == ("truncated", "cut short", True)


# Pictures with more than one frame


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_several_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (12, 10), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert set(decode(data).get_flattened_data()) == {RED}


def test_the_content_decides_the_format() -> None:
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "TGA"):
        assert decode(saved(Image.new("RGB", (16, 16), RED), kind)).size == (16, 16), kind


# PngSuite


def pngsuite() -> list[Path]:
    return sorted((PHOTOS / "pngsuite" / "png").glob("*.png"))


@needs_photos
def test_every_png_of_pngsuite_is_a_picture_or_a_reason() -> None:
    pictures, reasons = {}, {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for path in pngsuite():
            try:
                pictures[path.stem] = decode(path.read_bytes())
            except ImageError as error:
                reasons[path.stem] = error
    assert not caught
    # xcsn0g01 has a wrong checksum around pixels whose own checksum (Adler-32) is right.
    broken = {path.stem for path in pngsuite() if path.stem.startswith("x")} - {"xcsn0g01"}
    assert set(reasons) == broken
    assert pictures["xcsn0g01"] == pictures["basn0g01"]
    assert {image.mode for image in pictures.values()} == {"RGB"}
    assert {error.kind for error in reasons.values()} <= {
        "not_an_image",
        "truncated",
        "corrupt",
        "unsupported",
    }


@needs_photos
def test_interlacing_filters_and_chunk_order_do_not_change_a_picture() -> None:
    folder = PHOTOS / "pngsuite" / "png"

    def pixels(name: str) -> np.ndarray:
        return to_array(decode((folder / f"{name}.png").read_bytes()))

    pairs = [(path.stem, f"basi{path.stem[4:]}") for path in folder.glob("basn*.png")]
    pairs += [(f"s{side:02d}n3p01", f"s{side:02d}i3p01") for side in range(1, 5)]
    pairs += [("oi1n2c16", f"oi{number}n2c16") for number in (2, 4, 9)]
    pairs += [("z00n2c08", f"z0{level}n2c08") for level in (3, 6, 9)]
    for first, second in pairs:
        assert np.array_equal(pixels(first), pixels(second)), (first, second)


# Reduced


@pytest.mark.parametrize(
    ("height", "width", "side", "divisor"),
    [
        *[(800, 1000, 200, 4), (800, 1000, 201, 2), (800, 1000, 400, 2), (800, 1000, 401, 1)],
        *[(800, 1000, 50, 8), (800, 1000, 1, 8), (800, 1000, 5000, 1)],
        *[(804, 1000, 50, 4), (800, 1002, 50, 2), (801, 1000, 50, 1)],  # nothing else divides both
    ],
)
def test_a_large_jpeg_is_reduced_to_no_less_than_asked(
    height: int, width: int, side: int, divisor: int
) -> None:
    data = saved(Image.fromarray(picture(1, height, width)), "JPEG")
    image, found = decode_reduced(data, side)
    assert found == divisor
    assert image.size == (width // divisor, height // divisor)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("RGB", "JPEG", {"progressive": True, "quality": 95, "subsampling": 0}),
        ("L", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("RGB", "MPO", {}),
    ],
)
def test_a_reduced_jpeg_shows_the_same_picture_and_shifts_nothing(
    orientation: int, mode: str, kind: str, options: dict[str, object]
) -> None:
    stripes = np.array(picture(1, 800, 1200))
    stripes[-24:], stripes[:, -40:] = 255, 0  # edges that a shift would move
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(stripes).convert(mode), kind, exif=exif, **options)
    whole = decode(data)
    reduced, divisor = decode_reduced(data, 100)
    assert divisor == 8
    assert (reduced.mode, reduced.width * 8, reduced.height * 8) == ("RGB", *whole.size)
    found, exact = (
        to_array(image.resize((50, 50), Image.Resampling.BILINEAR)).astype(int)
        for image in (reduced, whole)
    )
    assert np.abs(found - exact).max() <= 12
    assert np.abs(found - exact).mean() < 1


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_no_other_format_is_reduced(kind: str) -> None:
    data = saved(Image.fromarray(picture(2, 160, 200)), kind)
    image, divisor = decode_reduced(data, 8)
    assert divisor == 1
    assert np.array_equal(to_array(image), to_array(decode(data)))


def test_a_lossless_jpeg_is_decoded_in_full() -> None:
    image, divisor = decode_reduced(hostile.LOSSLESS_JPEG, 8)
    assert (divisor, image.size) == (1, (16, 16))


# The hostile collection


@pytest.mark.parametrize("side", [None, 8])
def test_every_hostile_file_is_a_picture_or_a_reason(
    side: int | None, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for file in hostile.collection():
            ended, message = outcome(file.data, side)
            if ended not in file.ends or not is_a_sentence(message):
                wrong.append((file.name, ended, message))
    assert not wrong
    assert not caught
    assert capfd.readouterr() == ("", "")


MEASURE = """
import resource, sys
from job.errors import ImageError
from job.images.decode import decode
from tests import hostile

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

for data in hostile.originals().values():
    decode(data)
bombs = hostile.bombs()
for name, (data, ends) in bombs.items():
    before = peak()
    try:
        decode(data)
        ended = "map"
    except ImageError as error:
        ended = error.kind
    print(name, ended, peak() - before)
"""


def test_bombs_are_refused_before_they_inflate() -> None:
    ended = {
        name: (kind, int(megabytes)) for name, kind, megabytes in map(str.split, printed(MEASURE))
    }
    assert set(ended) == set(hostile.bombs())
    for name, (data, kinds) in hostile.bombs().items():
        kind, megabytes = ended[name]
        assert kind in kinds, name
        # What texts and tags may take: Pillow's 64 MB of text, and the file a few times over.
        assert megabytes < 70 + 4 * (len(data) >> 20), (name, megabytes)


LARGEST = """
import io, resource, sys
import numpy as np
from PIL import Image
from job.images.decode import decode, to_array

mode, kind, side = sys.argv[1], sys.argv[2], 2500
buffer = io.BytesIO()
Image.new(mode, (side, side)).save(buffer, kind)
data = buffer.getvalue()
small = io.BytesIO()
Image.new(mode, (8, 8)).save(small, kind)
decode(small.getvalue())
open("/proc/self/clear_refs", "w").write("5")
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
before = peak()
pixels = to_array(decode(data, pixel_limit=side * side))
print((peak() - before) * 1024 / side / side)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "JPEG"), ("RGBA", "PNG"), ("RGBA", "WEBP"), ("F", "TIFF"), ("I", "TIFF")],
)
def test_a_picture_at_the_limit_takes_a_known_number_of_bytes_per_pixel(
    mode: str, kind: str
) -> None:
    (bytes_per_pixel,) = printed(LARGEST, mode, kind)
    assert float(bytes_per_pixel) < 24


def printed(script: str, *words: str) -> list[str]:
    """What a process of its own prints, line by line."""
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


SLOW = {
    "a comment a line": b"P3 9 9 255\n" + b"#\n" * 4_000_000,
    "EXIF in crumbs": b"\xff\xd8" + b"\xff\xe1\0\x09Exif\0\0x" * 1_000_000,
    "scans": with_scans(20_000),
    "padding": b"\xff\xd8" + b"\xff" * 8_000_000,
    "nothing": b"\xff\xd8\xff\xe1\0\2" + b"x" * 30_000_000,
    "empty chunks": png(8, 8, bytes(72), chunk(b"abCd", b"") * 500_000),
}


@pytest.mark.parametrize("name", SLOW)
def test_what_would_take_minutes_does_not(name: str) -> None:
    started = time.process_time()
    error_of(SLOW[name])
    assert time.process_time() - started < 4


# What does not cost a picture


@pytest.mark.parametrize("text", [b"iCCP", b"zTXt", b"iTXt"])
def test_text_that_inflates_costs_neither_memory_nor_the_picture(text: bytes) -> None:
    head = {b"iCCP": b"k\0\0", b"zTXt": b"k\0\0", b"iTXt": b"k\0\1\0\0\0"}[text]
    bomb = chunk(text, head + zlib.compress(bytes(3 << 20)))
    data = saved(scene(), "PNG")
    for place in (33, len(data) - 12):  # behind the header, and behind the pixels
        found = decode(data[:place] + bomb + data[place:])
        assert np.array_equal(to_array(found), np.asarray(scene()))


def test_an_orientation_in_xmp_counts_where_exif_has_none() -> None:
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", '<rdf:Description tiff:Orientation="6"/>')
    data = saved(scene(20, 30), "PNG", pnginfo=text)
    assert decode(data).size == (20, 30)


@pytest.mark.parametrize("orientation", range(10))
def test_pictures_are_turned_as_pillow_turns_them(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(scene(20, 30), "JPEG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(to_array(decode(data)), np.asarray(expected))


def test_padding_is_refused_whatever_another_library_has_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = saved(scene(200, 300), "JPEG")
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert error_of(data[: len(data) // 2]).kind == "truncated"


def test_a_decoded_picture_travels_between_processes() -> None:
    for data in hostile.originals().values():
        image = decode(data)
        assert np.array_equal(to_array(pickle.loads(pickle.dumps(image))), to_array(image))
