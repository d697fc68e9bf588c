"""Manifest: list the input, freeze it under OUTPUT, number every image once and for good."""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from job import schema
from job.errors import StorageError
from job.image_names import EXTENSIONS
from job.inputs.base import Input
from job.inputs.identity import NOWHERE, contradictions, next_id, once, places
from job.inputs.left_out import LeftOut
from job.rows import Listed
from job.storage import parquet
from job.storage.location import Location

_PART_ROWS = 1_000_000


@dataclass(frozen=True)
class Manifest:
    """The frozen list of a run's images.

    Attributes:
        rows: the columns of :data:`job.schema.MANIFEST`, of every image.
        listed: the same without ``id``, of what is there now.
        new: the rows that this listing has added, which are the last ones.
        left_out: what lies under INPUT and is no image of the user's.
    """

    rows: pa.Table
    listed: pa.Table
    new: pa.Table
    left_out: LeftOut

    @property
    def images(self) -> int:
        """Images in the manifest."""
        return len(self.rows)

    @property
    def size(self) -> int | None:
        """Bytes of all images of known size together; None when none is known."""
        total: int | None = pc.sum(self.rows["size"]).as_py()
        return total

    @property
    def unknown_sizes(self) -> int:
        """Images whose size is not known."""
        return int(self.rows["size"].null_count)

    @property
    def witnesses(self) -> tuple[Listed, ...]:
        """A few images that are there now: the first, one in the middle, the last."""
        last = len(self.listed) - 1
        chosen = sorted({0, last // 2, last}) if last >= 0 else []
        return tuple(Listed(**row) for row in self.listed.take(chosen).to_pylist())

    @property
    def new_parts(self) -> list[pa.Table]:
        """The new rows, as many together as a file of the manifest has."""
        return [self.new.slice(start, _PART_ROWS) for start in range(0, len(self.new), _PART_ROWS)]

    def without(self, done: np.ndarray) -> pa.Table:
        """The rows whose ids are not among those that are done (sorted int64)."""
        return self.rows.filter(pc.invert(pc.is_in(self.rows["id"], value_set=pa.array(done))))

    def as_listed_now(self, rows: pa.Table) -> pa.Table:
        """Some of the rows, with the size and tag of what has taken a listed object's place."""
        found = places(rows, self.listed)
        is_there = pa.array(found != NOWHERE)
        now = self.listed.take(pa.array(found, mask=found == NOWHERE))
        for name in ("size", "etag"):
            known = pc.if_else(is_there, now[name], rows[name])
            rows = rows.set_column(rows.column_names.index(name), name, known)
        return rows


def freeze(source: Input, files: Sequence[Location]) -> Manifest:
    """List the input and append what is not listed yet; ids of earlier images never change.

    Args:
        source: the input.
        files: those of the manifest as it was.

    Raises:
        StorageError: nothing to list, no images among it, or the input may not be read; or a
            manifest in which one image has two ids, or one id two images.
    """
    frozen = _read(files)
    _refuse_contradictions(frozen, files)
    listed, left_out = list_images(source, needed=frozen.num_rows == 0)
    new = listed.filter(pa.array(places(listed, frozen) == NOWHERE))
    first = next_id(frozen)
    new = new.add_column(
        0, schema.MANIFEST.field("id"), pa.array(range(first, first + len(new)), pa.int64())
    )
    new = new.cast(schema.MANIFEST)
    return Manifest(pa.concat_tables([frozen, new]), listed, new, left_out)


def list_images(source: Input, *, needed: bool = True) -> tuple[pa.Table, LeftOut]:
    """The images of an input, as rows of a manifest without ``id``, and what else is there.

    An image that an input lists twice is one row.

    Raises:
        StorageError: nothing to list, or no image among it where one is needed.
    """
    fields = pa.schema([field for field in schema.MANIFEST if field.name != "id"])
    columns: dict[str, list[object]] = {name: [] for name in fields.names}
    left_out = LeftOut()
    for found in source.list(left_out):
        for name, column in columns.items():
            column.append(getattr(found, name))
    if needed and not columns["uri"]:
        raise StorageError(
            f"INPUT {source.name}: no image is there"
            f" ({' '.join(sorted(EXTENSIONS)[:6])} …). Left out: {left_out}. Give a glob to take"
            " objects by another name"
        )
    return once(pa.table(columns, schema=fields)), left_out


def _refuse_contradictions(rows: pa.Table, files: Sequence[Location]) -> None:
    found = contradictions(rows)
    if found:
        more = f", and {len(found) - 1:,} more" if len(found) > 1 else ""
        raise StorageError(
            f"the manifest in {posixpath.dirname(files[0].uri)} contradicts itself: {found[0]}"
            f"{more}. See python -m job verify OUTPUT. Get the folder back from a copy, or use"
            " another OUTPUT"
        )


def _read(files: Sequence[Location]) -> pa.Table:
    tables = [_with_parts(parquet.read(file)) for file in files]
    return pa.concat_tables([schema.MANIFEST.empty_table(), *tables])


def _with_parts(rows: pa.Table) -> pa.Table:
    """Rows also of a manifest from before there were parts: all whole objects."""
    if "part" in rows.column_names:
        return rows
    place = schema.MANIFEST.get_field_index("part")
    nothing = pa.nulls(len(rows), pa.string())
    return rows.add_column(place, schema.MANIFEST.field("part"), nothing)
