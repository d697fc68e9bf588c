"""PNG maps: exact ids, valid structure, and what Pillow reads back."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from job.images.map_png import decode_map
from job.kernels.png import class_counts, encode_map, encode_map_reference
from tests.hostile import chunk, png

PALETTE = np.random.default_rng(7).integers(0, 256, (256, 3)).astype(np.uint8)


def hostile_maps() -> list:
    random = np.random.default_rng(0)
    noise = random.integers(0, 150, (97, 131)).astype(np.uint8)
    wide = random.integers(0, 60000, (64, 75)).astype(np.uint16)
    ramp = np.arange(256, dtype=np.uint8)
    return [
        pytest.param(np.zeros((1, 1), np.uint8), id="one pixel"),
        pytest.param(np.full((1, 1), 65535, np.uint16), id="one wide pixel"),
        pytest.param(random.integers(0, 9, (1, 30000)).astype(np.uint8), id="one row"),
        pytest.param(random.integers(0, 9, (30000, 1)).astype(np.uint8), id="one column"),
        pytest.param(np.full((512, 683), 149, np.uint8), id="constant"),
        pytest.param(noise, id="noise"),
        pytest.param(np.tile(ramp, (256, 1)), id="every id, along rows"),
        pytest.param(np.tile(ramp[:, None], (1, 256)), id="every id, down columns"),
        pytest.param(noise[::2, ::3], id="strided"),
        pytest.param(noise.T, id="transposed"),
        pytest.param(np.asfortranarray(noise), id="column-major"),
        pytest.param(noise[::-1, ::-1], id="reversed"),
        pytest.param(wide, id="wide noise"),
        pytest.param(wide.T[::3], id="wide, strided"),
        pytest.param(wide.astype(">u2").astype(np.uint16), id="wide, once big-endian"),
    ]


def chunks_of(png: bytes) -> list[tuple[bytes, bytes]]:
    """Take a PNG apart, checking its signature, lengths and checksums."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    position, chunks = 8, []
    while position < len(png):
        (length,) = struct.unpack_from(">I", png, position)
        kind, data = png[position + 4 : position + 8], png[position + 8 : position + 8 + length]
        assert len(data) == length
        (checksum,) = struct.unpack_from(">I", png, position + 8 + length)
        assert checksum == zlib.crc32(kind + data)
        chunks.append((kind, data))
        position += 12 + length
    return chunks


@pytest.mark.parametrize("ids", hostile_maps())
def test_a_map_comes_back_exactly_and_as_from_the_reference(ids: np.ndarray) -> None:
    png = encode_map(ids, PALETTE)
    for decoded in (decode_map(png), decode_map(encode_map_reference(ids, PALETTE))):
        assert decoded.dtype == ids.dtype
        np.testing.assert_array_equal(decoded, ids)


@pytest.mark.parametrize("ids", hostile_maps())
def test_the_file_is_made_of_the_chunks_the_specification_asks_for(ids: np.ndarray) -> None:
    png = encode_map(ids, PALETTE)
    chunks = chunks_of(png)
    wide = ids.dtype == np.uint16
    kinds = [b"IHDR", b"IDAT", b"IEND"] if wide else [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    assert [kind for kind, _ in chunks] == kinds
    data = dict(chunks)
    header = struct.unpack(">IIBBBBB", data[b"IHDR"])
    assert header == (*ids.shape[::-1], 16 if wide else 8, 0 if wide else 3, 0, 0, 0)
    lines = zlib.decompress(data[b"IDAT"])
    assert len(lines) == ids.shape[0] * (1 + ids.shape[1] * ids.itemsize)
    assert data[b"IEND"] == b""
    Image.open(io.BytesIO(png)).verify()


@pytest.mark.parametrize("colours", [1, 2, 16, 150, 256])
def test_the_palette_shows_every_class_colour(colours: int) -> None:
    ids = np.random.default_rng(1).integers(0, colours, (40, 50)).astype(np.uint8)
    image = Image.open(io.BytesIO(encode_map(ids, PALETTE[:colours])))
    assert image.mode == "P"
    assert image.getpalette() == PALETTE[:colours].ravel().tolist()
    np.testing.assert_array_equal(np.array(image.convert("RGB")), PALETTE[ids])


def test_a_realistic_map_is_little_larger_than_pillows() -> None:
    y, x = np.mgrid[:512, :683]
    ids = np.zeros((512, 683), np.uint8)
    random = np.random.default_rng(3)
    for label in range(1, 60):
        cy, cx, ry, rx = random.uniform((0, 0, 10, 10), (512, 683, 120, 160))
        ids[((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1] = label
    assert len(encode_map(ids, PALETTE)) < 1.5 * len(encode_map_reference(ids, PALETTE))


@pytest.mark.parametrize("palette", [None, PALETTE[:150]])
def test_a_grey_map_has_the_same_pixels_and_no_colours(palette: np.ndarray | None) -> None:
    ids = np.random.default_rng(3).integers(0, 256, (40, 60)).astype(np.uint8)
    for encode in (encode_map, encode_map_reference):
        png = encode(ids, palette, grayscale=True)
        with Image.open(io.BytesIO(png)) as image:
            assert image.mode == "L"
            assert np.array_equal(np.asarray(image), ids)
            assert np.array_equal(np.asarray(image.convert("RGB")), np.stack([ids] * 3, -1))
        assert np.array_equal(decode_map(png), ids)
    wide = np.array([[299, 0]], np.uint16)
    assert encode_map(wide, grayscale=True) == encode_map(wide)


@pytest.mark.parametrize(
    ("ids", "palette", "message"),
    [
        (np.zeros((2, 2), np.uint8), None, "needs a palette"),
        (np.zeros((2, 2), np.uint8), PALETTE.astype(np.int64), "needs a palette"),
        (np.zeros((2, 2), np.uint8), PALETTE.ravel(), "needs a palette"),
        (np.full((2, 2), 150, np.uint8), PALETTE[:150], "class 150 has no colour"),
        (np.zeros((2, 2), np.uint8), np.zeros((257, 3), np.uint8), "at most 256"),
        (np.zeros((2, 2), np.int64), PALETTE, "uint8 or uint16"),
        (np.zeros((2, 2, 3), np.uint8), PALETTE, "shape"),
        (np.zeros((0, 2), np.uint8), PALETTE, "neither of them 0"),
    ],
)
def test_what_cannot_be_a_map_is_refused_with_a_reason(
    ids: np.ndarray, palette: np.ndarray | None, message: str
) -> None:
    for encode in (encode_map, encode_map_reference):
        with pytest.raises(ValueError, match=message):
            encode(ids, palette)


def test_decoding_refuses_photographs_and_broken_files() -> None:
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    with pytest.raises(ValueError, match=r"mode RGB.* 1, 2, 4, 8 or 16 bits"):
        decode_map(file.getvalue())
    png = encode_map(np.random.default_rng(2).integers(0, 99, (90, 90)).astype(np.uint8), PALETTE)
    for broken in (b"", b"not an image", png[: len(png) // 2]):
        with pytest.raises(OSError, match=r"identify|truncated|broken"):
            decode_map(broken)


@pytest.mark.parametrize("rows", [1, 5, 19])
def test_a_map_with_too_few_rows_is_refused(rows: int) -> None:
    row = b"\0" + bytes(range(1, 21))
    for colour, more in ((0, ()), (3, (chunk(b"PLTE", PALETTE.tobytes()),))):
        whole = decode_map(png(20, 20, row * 20, *more, colour=colour))
        assert np.array_equal(whole, np.tile(np.arange(1, 21), (20, 1)))
        with pytest.raises(ValueError, match="rows of the picture are missing"):
            decode_map(png(20, 20, row * rows, *more, colour=colour))
    assert not decode_map(png(20, 20, bytes(21 * 20))).any(), "all of class 0 is whole"


def test_a_map_whose_pixels_are_overwritten_is_refused() -> None:
    ids = np.random.default_rng(4).integers(0, 256, (60, 80)).astype(np.uint8)
    for data in (encode_map(ids, PALETTE), encode_map_reference(ids % 100, PALETTE)):
        for share in (0.5, 0.9, 0.95, 0.99):
            kept = int(len(data) * share)
            with pytest.raises((OSError, SyntaxError, ValueError)):
                decode_map(data[:kept] + bytes(len(data) - kept))


@pytest.mark.parametrize("name", [b"tEXt", b"pHYs", b"tRNS", b"iCCP"])
def test_what_is_wrong_beside_the_pixels_costs_no_map(name: bytes) -> None:
    ids = np.random.default_rng(5).integers(0, 256, (20, 30)).astype(np.uint8)
    data = encode_map(ids, PALETTE)
    place = data.index(b"IDAT") - 4
    wrong = chunk(name, b"k\0\0x")
    for extra in (wrong[:-1] + bytes([wrong[-1] ^ 1]), chunk(name, b"\1")):
        assert np.array_equal(decode_map(data[:place] + extra + data[place:]), ids)


def test_class_counts_add_up_and_refuse_unknown_classes() -> None:
    ids = np.array([[0, 3, 3], [149, 3, 0]], np.uint8)
    counts = class_counts(ids, 150)
    assert counts.shape == (150,)
    assert counts.dtype == np.int64
    assert (counts[0], counts[3], counts[149], counts.sum()) == (2, 3, 1, 6)
    assert class_counts(np.full((2, 3), 999, np.uint16), 1000)[999] == 6
    with pytest.raises(ValueError, match="class 149"):
        class_counts(ids, 149)
