"""Manifest: list the input, freeze it under OUTPUT, number every image once and for good."""

import io
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from job import schema
from job.errors import StorageError
from job.images import EXTENSIONS
from job.storage import Location, StorageOptions, StoredObject, list_objects, locate

_PART_ROWS = 1_000_000


@dataclass(frozen=True)
class Manifest:
    """The frozen list of a run's images.

    Attributes:
        files: the Parquet files it consists of, oldest first.
        images: rows in all of them.
        size: bytes of all listed images together.
        new: rows that this listing added.
        other_files: objects under INPUT that are no images by their names.
    """

    files: tuple[Location, ...]
    images: int
    size: int
    new: int
    other_files: int


def freeze(
    source: str, output: Location, options: StorageOptions, *, write: bool = True
) -> Manifest:
    """List the input and append what is not listed yet; ids of earlier images never change.

    Args:
        source: a folder, prefix, glob or single object.
        output: the run's OUTPUT.
        options: what fsspec needs for the input's storage.
        write: False to count only.

    Raises:
        StorageError: nothing to list, no images among it, or the input may not be read.
    """
    place = output / "manifest"
    files = tuple(place / name for name in place.names() if name.endswith(".parquet"))
    frozen = _read(files)
    listed, other_files = _listed(source, options, frozen.num_rows == 0)
    new = listed.filter(pc.invert(pc.is_in(listed["uri"], value_set=frozen["uri"])))
    first = frozen.num_rows
    new = new.add_column(0, schema.MANIFEST.field("id"), pa.array(range(first, first + len(new))))
    if write:
        files += tuple(_write_parts(place, new.cast(schema.MANIFEST)))
    size = sum(pc.sum(table["size"]).as_py() or 0 for table in (frozen, new))
    return Manifest(files, first + len(new), size, len(new), other_files)


def _listed(source: str, options: StorageOptions, needed: bool) -> tuple[pa.Table, int]:
    """The images under a source as (uri, size, etag), and how many other objects there are."""
    chosen_by_name = any(mark in source for mark in "*?[")
    place = locate(source, options)
    columns: dict[str, list[object]] = {"uri": [], "size": [], "etag": []}
    others = 0
    for found in list_objects(source, options):
        if not (chosen_by_name or found.path == place.path or _is_image_name(found)):
            others += 1
            continue
        columns["uri"].append(Location(place.fs, found.path).uri)
        columns["size"].append(found.size)
        columns["etag"].append(found.etag)
    if needed and not columns["uri"]:
        raise StorageError(
            f"INPUT {source}: {others} objects, none with the name of an image"
            f" ({' '.join(sorted(EXTENSIONS)[:6])} …). Give a glob to take them by another name"
        )
    fields = [schema.MANIFEST.field(name) for name in ("uri", "size", "etag")]
    return pa.table(columns, schema=pa.schema(fields)), others


def _is_image_name(found: StoredObject) -> bool:
    return posixpath.splitext(found.path)[1].lower() in EXTENSIONS


def _read(files: tuple[Location, ...]) -> pa.Table:
    tables = [pq.read_table(io.BytesIO(file.read_bytes())) for file in files]
    return pa.concat_tables([schema.MANIFEST.empty_table(), *tables])


def _write_parts(place: Location, rows: pa.Table) -> Iterator[Location]:
    for start in range(0, len(rows), _PART_ROWS):
        part = rows.slice(start, _PART_ROWS)
        file = place / f"part-{part['id'][0].as_py():012d}.parquet"
        buffer = io.BytesIO()
        pq.write_table(part, buffer, compression="zstd")
        file.write_bytes(buffer.getvalue())
        yield file
