"""Map check: each PNG of maps/ decoded, and compared with what its row says of it."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from job import schema
from job.errors import StorageError
from job.images.map_png import decode_map
from job.images.pillow import UnidentifiedImageError
from job.outputs.dataset_card import LABELS, read_labels
from job.results.maps import UNREADABLE
from job.results.sound_rows import RowReader
from job.results.verdict import NO_LABELS, Verdict
from job.storage.location import Location
from job.wording import counted

_COLUMNS = pa.schema(
    [
        schema.MAPS.field(name).with_nullable(True)
        for name in ("id", "height", "width", "map", "classes")
    ]
)
# As Python has them rows take several times the memory.
_ROWS_AT_ONCE = 16


def check_maps(reader: RowReader, files: Sequence[str], verdict: Verdict) -> None:
    """Decode all maps of some files, a file at a time.

    Args:
        reader: of the OUTPUT.
        files: names of files of ``maps/``, from OUTPUT on; all that is not of the maps themselves
            was looked at.
        verdict: is told what is wrong.
    """
    names = _names_of_classes(reader.output, verdict) if files else None
    for file in files:
        rows = reader.read(file, _COLUMNS, verdict)
        for batch in rows.to_batches(_ROWS_AT_ONCE) if rows is not None else []:
            for row in batch.to_pylist():
                if None not in (row["id"], row["height"], row["width"]):
                    _check(row, f"image {row['id']} in {file}", names, verdict)


def _names_of_classes(output: Location, verdict: Verdict) -> list[str] | None:
    try:
        labels = read_labels(output)
    except StorageError as error:
        verdict.blame("damaged labels.json files", [str(error)])
        return None
    if labels is None:
        verdict.note(NO_LABELS, [LABELS])
        return None
    return [label["name"] for label in labels]


def _check(row: dict[str, Any], where: str, names: list[str] | None, verdict: Verdict) -> None:
    png = (row["map"] or {}).get("bytes")
    classes = row["classes"]
    if png is None:
        verdict.blame("values that are missing", [f"{where}: map"])
        return
    try:
        ids = decode_map(png)
    except UNREADABLE as error:
        is_unknown = isinstance(error, UnidentifiedImageError)
        said = "it is no PNG, or its beginning is damaged" if is_unknown else error
        verdict.blame("maps that do not decode", [f"{where}: {said}"])
        return
    height, width = ids.shape
    if (height, width) != (row["height"], row["width"]):
        said = f"{where}: {width} × {height}, not {row['width']} × {row['height']}"
        verdict.blame("maps of another size than their row says", [said])
    counts = np.bincount(ids.ravel())
    if names is not None and len(counts) > len(names):
        said = f"{where}: class {len(counts) - 1}, and there are {len(names)}"
        verdict.blame("maps with classes that labels.json does not have", [said])
    if classes is None or any(entry is None or None in entry.values() for entry in classes):
        verdict.blame("values that are missing", [f"{where}: classes"])
        return
    contradiction = next(_contradictions(classes, counts, names), None)
    if contradiction:
        verdict.blame("maps that contradict their classes", [f"{where}: {contradiction}"])


def _contradictions(
    classes: list[dict[str, Any]], counts: np.ndarray, names: list[str] | None
) -> Iterator[str]:
    """In what the classes of a row are not those of its map.

    Args:
        classes: each with ``label``, ``name`` and ``pixels``.
        counts: pixels of the map by class id.
        names: of the classes; None where they are not known.
    """
    told = {entry["label"]: entry["pixels"] for entry in classes}
    there = {int(label): int(counts[label]) for label in np.flatnonzero(counts)}
    if len(told) < len(classes):
        yield "a class is there twice"
    for label in sorted(told.keys() | there.keys()):
        if told.get(label) != there.get(label):
            pixels, found = told.get(label, 0), there.get(label, 0)
            yield f"class {label} has {counted(found, 'pixel')}, and {pixels:,} in classes"
    pixels = [entry["pixels"] for entry in classes]
    if pixels != sorted(pixels, reverse=True):
        yield "they are not the largest first"
    for entry in classes:
        label, name = entry["label"], entry["name"]
        if names is not None and 0 <= label < len(names) and name != names[label]:
            yield f"class {label} is called {name}, and {names[label]} in {LABELS}"
