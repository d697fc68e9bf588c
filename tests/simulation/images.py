"""Images: what the simulated runs segment, and what comes of each, known beforehand.

Nothing is fetched or predicted: a map is a function of the image's URI. Some images always fail,
and some fail at one attempt and not at the next.
"""

from collections.abc import Sequence
from functools import cache
from random import Random
from zlib import crc32

import numpy as np
import pyarrow as pa

from job import schema
from job.kernels.png import class_counts, encode_map
from job.rows import ENCODED

LABELS = ("sky", "ground", "tree")
COLOURS = np.array([[70, 130, 180], [120, 90, 60], [30, 140, 40]], np.uint8)
# Of a hundred images how many have a map only at some attempts, and how many at none.
_FLIPPING, _FAILING = 15, 12
_COUNT = 48
URIS = tuple(f"s3://sim/in/{number:03d}.png" for number in range(_COUNT))
_NUMBERS = {uri: number for number, uri in enumerate(URIS)}


@cache
def png(uri: str) -> bytes:
    """The map of an image."""
    return encode_map(_ids(uri), COLOURS)


def _ids(uri: str) -> np.ndarray:
    random = Random(uri)
    height, width = random.randint(1, 4), random.randint(1, 4)
    ids = [random.randrange(len(LABELS)) for _ in range(height * width)]
    return np.array(ids, np.uint8).reshape(height, width)


def may_have_map(uri: str) -> bool:
    """Whether an attempt at it may succeed."""
    return _luck(uri) >= _FAILING


def may_fail(uri: str) -> bool:
    """Whether an attempt at it may fail."""
    return _luck(uri) < _FAILING + _FLIPPING


@cache
def _luck(uri: str) -> int:
    return crc32(uri.encode()) % 100


def maps_schema() -> pa.Schema:
    """Of ``maps/``."""
    return _schema()


@cache
def _schema() -> pa.Schema:
    return schema.maps(LABELS, COLOURS)


def encoded(rows: Sequence[tuple[int, str]], run_id: str, random: Random) -> pa.Table:
    """One attempt at some images, as the encoder gives it to be written.

    Args:
        rows: id and URI of each.
        run_id: of the run.
        random: decides about those that may or may not have a map.
    """
    places = []
    for _, uri in rows:
        fails = may_fail(uri) and (not may_have_map(uri) or random.random() < 0.5)
        places.append(_NUMBERS[uri] + (_COUNT if fails else 0))
    made = _all_encoded().take(pa.array(places))
    made = made.set_column(0, ENCODED.field("id"), pa.array([number for number, _ in rows]))
    run_ids = pa.array([run_id] * len(rows), pa.string())
    return made.set_column(ENCODED.get_field_index("run_id"), ENCODED.field("run_id"), run_ids)


@cache
def _all_encoded() -> pa.Table:
    """Of each image the row with its map; then, of each, the row of an attempt that has failed."""
    rows = [_row(uri, fails) for fails in (False, True) for uri in URIS]
    return pa.Table.from_pylist(rows, schema=ENCODED).combine_chunks()


def _classes(ids: np.ndarray) -> list[dict[str, object]]:
    counts = class_counts(ids, len(LABELS)).tolist()
    found = sorted((label for label, count in enumerate(counts) if count), key=lambda n: -counts[n])
    return [{"label": label, "name": LABELS[label], "pixels": counts[label]} for label in found]


def _row(uri: str, fails: bool) -> dict[str, object]:
    error = {
        "stage": "decode",
        "error_type": "truncated",
        "message": "the file ends early",
        "retryable": may_have_map(uri),
    }
    ids = _ids(uri)
    height, width = ids.shape
    return {
        "id": 0,
        "uri": uri,
        "height": height,
        "width": width,
        "map": None if fails else {"bytes": png(uri), "path": None},
        "classes": None if fails else _classes(ids),
        "confidence": None if fails else 0.5,
        "model": "model",
        "run_id": "",
        "error": error if fails else None,
    }
