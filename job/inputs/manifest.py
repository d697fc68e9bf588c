"""Manifest: list the input, freeze it under OUTPUT, number every image once and for good."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from job import schema
from job.errors import StorageError
from job.image_names import EXTENSIONS, is_image_name
from job.inputs.left_out import LeftOut
from job.inputs.listing import list_objects
from job.rows import Listed
from job.storage import parquet
from job.storage.location import Location, StorageOptions, locate
from job.storage.s3 import DEFAULT_RETRY_POLICY, RetryPolicy
from job.storage.web import plain

_PART_ROWS = 1_000_000


@dataclass(frozen=True)
class Manifest:
    """The frozen list of a run's images.

    Attributes:
        rows: ``id``, ``uri``, ``size`` and ``etag`` of every image.
        size: bytes of all listed images together.
        listed: ``uri``, ``size`` and ``etag`` of what is there now.
        new: rows that this listing added.
        left_out: what lies under INPUT and is no image of the user's.
    """

    rows: pa.Table
    size: int
    listed: pa.Table
    new: int
    left_out: LeftOut

    @property
    def images(self) -> int:
        """Images in the manifest."""
        return len(self.rows)

    @property
    def witnesses(self) -> tuple[Listed, ...]:
        """A few images that are there now: the first, one in the middle, the last."""
        last = len(self.listed) - 1
        places = sorted({0, last // 2, last}) if last >= 0 else []
        return tuple(Listed(**row) for row in self.listed.take(places).to_pylist())

    def without(self, done: np.ndarray) -> pa.Table:
        """The rows whose ids are not among those that are done (sorted int64)."""
        return self.rows.filter(pc.invert(pc.is_in(self.rows["id"], value_set=pa.array(done))))

    def as_listed_now(self, rows: pa.Table) -> pa.Table:
        """Some of the rows, with the size and tag of what has taken a listed object's place."""
        places = pc.index_in(rows["uri"], value_set=self.listed["uri"])
        now = self.listed.take(places)
        for name in ("size", "etag"):
            known = pc.if_else(pc.is_valid(places), now[name], rows[name])
            rows = rows.set_column(rows.column_names.index(name), name, known)
        return rows


def freeze(
    source: str,
    output: Location,
    options: StorageOptions,
    retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY,
    *,
    write: bool = True,
) -> Manifest:
    """List the input and append what is not listed yet; ids of earlier images never change.

    Args:
        source: a folder, prefix, glob or single object.
        output: the run's OUTPUT.
        options: what fsspec needs for the input's storage.
        retry_policy: how long to try with it.
        write: False to count only.

    Raises:
        StorageError: nothing to list, no images among it, or the input may not be read.
    """
    place = output / "manifest"
    files = tuple(place / name for name in place.names() if name.endswith(".parquet"))
    frozen = _read(files)
    listed, left_out = list_images(source, options, retry_policy, needed=frozen.num_rows == 0)
    new = listed.filter(pc.invert(pc.is_in(listed["uri"], value_set=frozen["uri"])))
    first = frozen.num_rows
    new = new.add_column(
        0, schema.MANIFEST.field("id"), pa.array(range(first, first + len(new)), pa.int64())
    )
    if write:
        _write_parts(place, new.cast(schema.MANIFEST))
    rows = pa.concat_tables([frozen, new.cast(schema.MANIFEST)])
    return Manifest(rows, pc.sum(rows["size"]).as_py() or 0, listed, len(new), left_out)


def list_images(
    source: str,
    options: StorageOptions | None = None,
    retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY,
    *,
    needed: bool = True,
) -> tuple[pa.Table, LeftOut]:
    """The images under a source as (uri, size, etag), and what else is there.

    Raises:
        StorageError: nothing to list, or no image among it where one is needed.
    """
    place = locate(source, options, retry_policy)
    columns: dict[str, list[object]] = {"uri": [], "size": [], "etag": []}
    left_out = LeftOut()
    for found in list_objects(source, options, retry_policy, left_out):
        if not (found.is_named or is_image_name(plain(found.path))):
            left_out.add("no_image", found.path)
            continue
        columns["uri"].append(place.at(found.path).uri)
        columns["size"].append(found.size)
        columns["etag"].append(found.etag)
    if needed and not columns["uri"]:
        raise StorageError(
            f"INPUT {source}: no image is there"
            f" ({' '.join(sorted(EXTENSIONS)[:6])} …). Left out: {left_out}. Give a glob to take"
            " objects by another name"
        )
    fields = [schema.MANIFEST.field(name) for name in ("uri", "size", "etag")]
    return pa.table(columns, schema=pa.schema(fields)), left_out


def _read(files: tuple[Location, ...]) -> pa.Table:
    tables = [parquet.read(file) for file in files]
    return pa.concat_tables([schema.MANIFEST.empty_table(), *tables])


def _write_parts(place: Location, rows: pa.Table) -> None:
    for start in range(0, len(rows), _PART_ROWS):
        part = rows.slice(start, _PART_ROWS)
        first = part["id"][0].as_py()
        (place / f"part-{first:012d}.parquet").write_bytes(parquet.to_bytes(part))
