"""Thousands of damaged files, the same in every run: each is a picture or an ImageError.

``FUZZ_SEED`` gives other files than usual, ``FUZZ_FILES`` more or fewer of them. The file that
fails is kept, and named in the failure.
"""

import os
import random
import warnings
from collections import Counter
from pathlib import Path

import pytest

from tests.hostile import is_a_sentence, originals, outcome

SEED = int(os.environ.get("FUZZ_SEED", "20261122"))
FILES = int(os.environ.get("FUZZ_FILES", "4000"))
KINDS = {"map", "empty", "not_an_image", "too_large", "truncated", "corrupt", "unsupported"}
# Values at which lengths, sizes and counts go wrong.
NUMBERS = (
    *(
        bytes(4),
        b"\xff" * 4,
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\x7f",
        b"\x80\0\0\0",
        b"\0\0\0\x80",
    ),
    *(b"\0\1", b"\xff\xff", b"\0\0", b"\1", b"\x7f", b"\x80", b"\xff"),
)
MARKS = (
    *(b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"IEND", b"VP8 ", b"VP8X"),
    *(b"\xff\xc0", b"\xff\xc2", b"\xff\xc4", b"\xff\xda", b"\xff\xd9", b"\xff\xe1", b"!\xf9", b","),
    *(b"ispe", b"av1C", b"iloc", b"mdat", b"ihdr", b"jp2c", b"\xff\x51", b"\xff\x52", b"\xff\x90"),
)


def damaged(data: bytes, others: list[bytes], dice: random.Random) -> bytes:
    """A file with one to six things wrong, mostly near its start, where headers are."""
    file = bytearray(data)
    for _ in range(dice.randint(1, 6)):
        near = dice.choice([32, 128, 512, len(file)])
        place = dice.randrange(max(1, min(near, len(file))))
        length = dice.choice([1, 2, 4, 16, 64])
        match dice.randrange(8):
            case 0:
                file[place : place + 1] = bytes(
                    [file[place] ^ (1 << dice.randrange(8))] if file else []
                )
            case 1:
                number = dice.choice(NUMBERS)
                file[place : place + len(number)] = number
            case 2:
                del file[place : place + length]
            case 3:
                file[place:place] = dice.randbytes(length)
            case 4:
                file[place:place] = file[place : place + length]
            case 5:
                other = dice.choice(others)
                begin = dice.randrange(len(other))
                file[place : place + length] = other[begin : begin + length]
            case 6:
                # A field right behind one of the names that formats give their parts.
                found = [at for mark in MARKS if (at := file.find(mark)) >= 0]
                if found:
                    at = dice.choice(found) + dice.randint(0, 12)
                    file[at : at + 2] = dice.randbytes(2)
            case 7:
                del file[max(1, dice.randrange(len(file) + 1)) :]
    return bytes(file)


def test_damaged_files_give_a_picture_or_an_image_error_and_nothing_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    dice = random.Random(SEED)
    files = list(originals().values())
    kept = tmp_path / "damaged"
    ended: Counter[str] = Counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(FILES):
            data = damaged(files[number % len(files)], files, dice)
            # Beforehand: what crashes a decoder leaves no time for it.
            kept.write_bytes(data)
            kind, message = outcome(data, side=8 if number // len(files) % 2 else None)
            ended[kind] += 1
            said = f"seed {SEED}, file {number}, kept as {kept}"
            assert kind in KINDS, said
            assert is_a_sentence(message), f"{message!r}: {said}"
            assert capfd.readouterr() == ("", ""), said
            assert not caught, said
    assert ended["map"] > FILES // 20, ended
    assert {"truncated", "corrupt", "not_an_image"} <= set(ended), ended
