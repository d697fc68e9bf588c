"""Decoding neither changes the settings of the process nor heeds them, from several threads too."""

import hashlib
import io
import json
import logging
import subprocess
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import PIL.Image
import pillow_heif
import pytest
from PIL import AvifImagePlugin, GifImagePlugin, Image, ImageFile, PngImagePlugin, TiffImagePlugin

from job.errors import ImageError
from job.images import decode, libtiff, png_chunks, webp
from tests import hostile
from tests.hostile import originals, saved, scene

# The most pixels of the files that are decoded here, and of those that are not.
SMALL, LARGE = 48 * 64, 64 * 72


@cache
def files() -> dict[str, bytes]:
    """Good, damaged and too large ones of every format."""
    heic, large_heic = io.BytesIO(), io.BytesIO()
    pillow_heif.from_pillow(scene()).save(heic)
    pillow_heif.from_pillow(scene(64, 72)).save(large_heic)
    large = scene(64, 72)
    made = {
        **originals(),
        "heic": heic.getvalue(),
        "bitmap.ico": saved(scene(), "ICO", bitmap_format="bmp", sizes=[(48, 48)]),
    }
    made |= {f"half.{name}": data[: len(data) // 2] for name, data in made.items()}
    made |= {f"most.{name}": data[:-20] for name, data in made.items()}
    for kind in ("JPEG", "MPO", "PNG", "WEBP", "GIF", "TIFF", "BMP", "JPEG2000", "PPM", "TGA"):
        made[f"large.{kind}"] = saved(large, kind)
    for name in ("png", "bmp"):
        icon = saved(scene(72, 72), "ICO", bitmap_format=name, sizes=[(72, 72)])
        made[f"large.{name}.ico"] = icon
    made["large.avif"] = saved(large, "AVIF")
    made["large.heic"] = large_heic.getvalue()
    made |= {
        file.name: file.data
        for file in hostile.collection()
        if file.name.startswith(("metadata/", "lying/"))
    }
    return made


def outcome(name: str) -> tuple[str, str]:
    """What becomes of a file: its pixels in short, or why there are none."""
    try:
        image = decode.decode(files()[name], pixel_limit=SMALL)
    except ImageError as error:
        return error.kind, error.message
    return str(image.size), hashlib.sha256(image.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def expected() -> dict[str, tuple[str, str]]:
    """What becomes of each file in a process that has set nothing."""
    script = (
        "import json; from tests.unit import test_decoding_leaves_no_trace as test\n"
        "print(json.dumps({name: test.outcome(name) for name in test.files()}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stderr == ""
    return {name: (kind, what) for name, (kind, what) in json.loads(done.stdout).items()}


WATCHED = (
    *(PIL.Image, ImageFile, AvifImagePlugin, GifImagePlugin, PngImagePlugin, TiffImagePlugin),
    *(pillow_heif.options, warnings),
)


@pytest.fixture
def changes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Odd settings, as another program may have them; gives what is set from then on."""
    files()  # before: they are written by the settings of the process
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(ImageFile, "MAXBLOCK", 100)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    monkeypatch.setattr(Image, "OPEN", {})
    monkeypatch.setattr(AvifImagePlugin, "DEFAULT_MAX_THREADS", 3)
    monkeypatch.setattr(
        GifImagePlugin, "LOADING_STRATEGY", GifImagePlugin.LoadingStrategy.RGB_ALWAYS
    )
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 1)
    monkeypatch.setattr(TiffImagePlugin, "READ_LIBTIFF", True)
    monkeypatch.setattr(pillow_heif.options, "DECODE_THREADS", 3)
    monkeypatch.setattr(logging.getLogger("PIL"), "level", logging.DEBUG)
    seen: list[str] = []

    class Watched(types.ModuleType):
        def __setattr__(self, name: str, value: object) -> None:
            seen.append(f"{self.__name__}.{name}")
            super().__setattr__(name, value)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for module in WATCHED:
            module.__class__ = Watched
        yield seen
        for module in WATCHED:
            module.__class__ = types.ModuleType


def settings() -> tuple[object, ...]:
    return (
        *(ImageFile.LOAD_TRUNCATED_IMAGES, ImageFile.MAXBLOCK, Image.MAX_IMAGE_PIXELS),
        *(tuple(Image.OPEN), AvifImagePlugin.DEFAULT_MAX_THREADS, tuple(warnings.filters)),
        *(GifImagePlugin.LOADING_STRATEGY, PngImagePlugin.MAX_TEXT_CHUNK),
        *(TiffImagePlugin.READ_LIBTIFF, tuple(sorted(vars(pillow_heif.options).items(), key=str))),
        *(logging.getLogger("PIL").level, logging.root.manager.disable),
    )


@pytest.mark.parametrize("threads", [1, 4])
def test_settings_stay_as_they_are_at_every_moment_and_change_no_picture(
    threads: int,
    changes: list[str],
    expected: dict[str, tuple[str, str]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    before, done, others = settings(), threading.Event(), []

    def watch() -> None:
        while not done.wait(0.0005):
            if settings() != before:
                others.append(settings())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        names = list(files()) * (2 if threads > 1 else 1)
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(outcome, names))
    finally:
        done.set()
        watcher.join()
    wrong = {
        name: (end, expected[name])
        for name, end in zip(names, found, strict=True)
        if end != expected[name]
    }
    assert not wrong
    assert (changes, others, settings()) == ([], [], before)
    assert capfd.readouterr() == ("", "")


def test_each_format_is_decoded_refused_when_cut_and_refused_when_large(
    expected: dict[str, tuple[str, str]],
) -> None:
    kinds = {name: kind for name, (kind, _) in expected.items()}
    assert {kinds[name] for name in [*originals(), "heic", "bitmap.ico"]} <= {
        *("(64, 48)", "(48, 64)", "(32, 24)", "(48, 36)")
    }
    cut = {kind for name, kind in kinds.items() if name.startswith("half.")}
    # The second frame of an animation is never read.
    assert cut - {"(64, 48)"} <= {"truncated", "corrupt", "not_an_image"}
    assert {kind for name, kind in kinds.items() if name.startswith("large.")} == {"too_large"}


@pytest.mark.parametrize("limit", [None, 10, 10**12])
def test_the_limit_is_that_of_the_call_whatever_pillows_is(
    limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    for name, data in files().items():
        if name.startswith("large."):
            assert decode.decode(data, pixel_limit=100 * 100).width >= 72, name
            with pytest.raises(ImageError, match="over the limit"):
                decode.decode(data, pixel_limit=SMALL)


def test_threads_with_limits_of_their_own_do_not_hold_each_other_to_them() -> None:
    large = [data for name, data in files().items() if name.startswith("large.")]

    def kinds(limit: int) -> set[str]:
        found = set()
        for data in large * 5:
            try:
                decode.decode(data, pixel_limit=limit)
                found.add("map")
            except ImageError as error:
                found.add(error.kind)
        return found

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(kinds, [SMALL, 10_000] * 2)) == [{"too_large"}, {"map"}] * 2


UNTOUCHED = """
import logging, warnings
from PIL import AvifImagePlugin, Image, ImageFile
import pillow_heif

def state():
    return (
        logging.getLogger("PIL").level, Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES,
        AvifImagePlugin.DEFAULT_MAX_THREADS, sorted(Image.OPEN), sorted(Image.EXTENSION),
        vars(pillow_heif.options).copy(), warnings.filters[:],
    )

before = state()
from tests.unit.test_decoding_leaves_no_trace import files, outcome
assert state()[:4] == before[:4]
files()
before = state()
for name in files():
    outcome(name)
assert state() == before
assert "HEIF" not in Image.OPEN
"""


def test_a_fresh_process_is_left_as_it_was() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNTOUCHED],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_decoded_picture_is_one_of_the_pillow_that_everyone_uses() -> None:
    for data in originals().values():
        assert type(decode.decode(data)) is PIL.Image.Image


def test_what_is_no_png_raises_the_error_that_pillow_has_for_it() -> None:
    with pytest.raises(PIL.UnidentifiedImageError):
        png_chunks.load(b"no picture", SMALL)


# libtiff's handler of errors


def damaged_tiff() -> bytes:
    data = bytearray(originals()["lzw.tif"])
    data[8:40] = b"\xff\x13" * 16
    return bytes(data)


def decode_by_pillow() -> None:
    with pytest.raises(OSError, match="decoder error"), Image.open(io.BytesIO(damaged_tiff())) as i:
        i.load()


def decode_here() -> None:
    with pytest.raises(ImageError):
        decode.decode(damaged_tiff())


def test_libtiff_is_quiet_of_our_files_and_of_no_others(capfd: pytest.CaptureFixture[str]) -> None:
    def said(act: Callable[[], None]) -> bool:
        act()
        return "not yet in table" in capfd.readouterr().err

    assert said(decode_by_pillow)
    assert not said(decode_here)
    assert said(decode_by_pillow)
    with libtiff.quiet(), ThreadPoolExecutor(1) as other:
        assert said(lambda: other.submit(decode_by_pillow).result())
        assert not said(lambda: other.submit(decode_here).result())
        assert said(lambda: other.submit(decode_by_pillow).result())
        assert not said(decode_by_pillow)


def test_a_handler_that_another_has_set_in_libtiff_stays() -> None:
    exchange = libtiff._exchanges()[0]
    mine, later = (libtiff._HANDLER(lambda *_: None) for _ in range(2))
    addresses = [libtiff._address(handler) for handler in (mine, later)]
    before = exchange(addresses[0])
    try:
        decode_here()
        assert exchange(addresses[0]) == addresses[0]
        with libtiff.quiet():
            assert exchange(addresses[1]) not in addresses
        assert exchange(addresses[1]) == addresses[1]
    finally:
        exchange(before)


# Sizes by the header alone


@pytest.mark.parametrize("size", [(1, 1), (13, 7), (300, 200)])
def test_the_size_of_a_webp_is_read_as_pillow_reads_it(size: tuple[int, int]) -> None:
    image = scene(size[1], size[0])
    more = {"save_all": True, "append_images": [scene(size[1], size[0])]}
    for options in ({}, {"lossless": True}, {"exif": b"Exif\0\0"}, more):
        data = saved(image, "WEBP", **options)
        assert webp.size(data) == size
        for length in (0, 5, 12, 15):
            assert webp.size(data[:length]) is None
    assert webp.size(hostile.webp_of_one_colour(16_384, 16_384)) == (16_384, 16_384)
