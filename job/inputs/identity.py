"""Identity: which image a row of a manifest is, and what number it has."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from job.storage.canonical import Canonical

NOWHERE = -1


def places(rows: pa.Table, among: pa.Table) -> np.ndarray:
    """Where the image of each row is among other rows, :data:`NOWHERE` where it is not; int64.

    The same text is the same image. Only where a row's is not there, URIs are compared by the
    places that they lead to: an earlier version wrote them as INPUT was written.
    """
    found = _index_in(_keys(rows), _keys(among))
    lost = np.flatnonzero(found == NOWHERE)
    if len(lost) and len(among):
        canonical = Canonical()
        found[lost] = _index_in(
            _keys(_placed(rows.take(lost), canonical)), _keys(_placed(among, canonical))
        )
    return found


def once(rows: pa.Table) -> pa.Table:
    """Each image once: its first row."""
    keys = _keys(rows)
    distinct = pc.unique(keys)
    if len(distinct) == len(rows):
        return rows
    _, first = np.unique(_index_in(keys, distinct), return_index=True)
    return rows.take(np.sort(first))


def next_id(rows: pa.Table) -> int:
    """The number of the image that comes after all of a manifest's."""
    highest = pc.max(rows["id"]).as_py()
    return 0 if highest is None else int(highest) + 1


def contradictions(rows: pa.Table) -> list[str]:
    """What must not be in a manifest, in words: a number of two images, an image of two numbers."""
    ids = rows["id"].to_numpy()
    keys = _keys(rows)
    codes = _index_in(keys, pc.unique(keys))

    def name(row: int) -> str:
        uri, *part = str(keys[row].as_py()).split("\0")
        return f"{uri} ({part[0]})" if part else uri

    found = []
    for one, other in _equal(ids):
        if codes[one] == codes[other]:
            found.append(f"{name(one)} is listed twice as image {ids[one]}")
        else:
            found.append(f"image {ids[one]} is both {name(one)} and {name(other)}")
    found += [
        f"{name(one)} is both image {ids[one]} and image {ids[other]}"
        for one, other in _equal(codes)
        if ids[one] != ids[other]
    ]
    return found


def _equal(values: np.ndarray) -> Iterator[tuple[int, int]]:
    """Each pair of neighbours among the places of one value."""
    order = np.argsort(values, kind="stable")
    for place in np.flatnonzero(values[order[1:]] == values[order[:-1]]):
        yield int(order[place]), int(order[place + 1])


def _keys(rows: pa.Table) -> pa.ChunkedArray:
    """What tells an image from every other: where it is, and which part of what is there."""
    uris = rows["uri"]
    if "part" not in rows.column_names or rows["part"].null_count == len(rows):
        return uris
    # No storage has a URI with a NUL in it.
    return pc.coalesce(pc.binary_join_element_wise(uris, rows["part"], "\0"), uris)


def _placed(rows: pa.Table, canonical: Canonical) -> pa.Table:
    """Rows by the places that their URIs lead to."""
    column = rows.column_names.index("uri")
    uris = pa.array([canonical(uri) for uri in rows["uri"].to_pylist()], pa.string())
    return rows.set_column(column, rows.schema.field(column), uris)


def _index_in(keys: pa.ChunkedArray, among: pa.ChunkedArray | pa.Array) -> np.ndarray:
    found = pc.fill_null(pc.index_in(keys, value_set=among), NOWHERE)
    return np.array(found.to_numpy(), np.int64)
