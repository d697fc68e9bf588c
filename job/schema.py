"""Column names and Arrow schemas of everything the job writes."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

MANIFEST = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size", pa.int64()),
        pa.field("etag", pa.string()),
        # Last, so that readers who go by the first file read what format 1 has left as well.
        pa.field("part", pa.string()),
    ]
)

CLASSES = pa.list_(
    pa.struct([("label", pa.int32()), ("name", pa.string()), ("pixels", pa.int64())])
)

ERRORS = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("error_type", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("retryable", pa.bool_(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
    ]
)


_MAPS = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("map", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        pa.field("classes", CLASSES),
        pa.field("confidence", pa.float32()),
        pa.field("model", pa.string(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
    ]
)


def described(names: Sequence[str], colours: np.ndarray) -> list[dict[str, Any]]:
    """The classes as ``labels.json`` and the metadata of ``maps/`` have them."""
    return [
        {"id": label, "name": name, "color": colour}
        for label, (name, colour) in enumerate(zip(names, colours.tolist(), strict=True))
    ]


def _huggingface_feature(kind: pa.DataType) -> Any:
    """The ``datasets`` feature of an Arrow type, in the form that every release of it reads."""
    if pa.types.is_list(kind):
        # Not {"_type": "List"}, which releases before 4 do not know.
        return [_huggingface_feature(kind.value_type)]
    if pa.types.is_struct(kind):
        return {field.name: _huggingface_feature(field.type) for field in kind}
    names = {pa.float32(): "float32", pa.float64(): "float64"}
    return {"dtype": names.get(kind, str(kind)), "_type": "Value"}


def maps(names: Sequence[str] = (), colours: np.ndarray | None = None) -> pa.Schema:
    """The schema of ``maps/``, with what readers look for in its metadata.

    ``huggingface`` makes ``datasets.load_dataset`` decode the maps; ``labels`` is JSON with the
    id, name and color of each class.

    Args:
        names: class names by class id.
        colours: (classes, 3) uint8, of each class; None leaves the labels out.
    """
    features = {
        field.name: {"_type": "Image"} if field.name == "map" else _huggingface_feature(field.type)
        for field in _MAPS
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    if colours is not None:
        metadata["labels"] = json.dumps(described(names, colours), ensure_ascii=False)
    return _MAPS.with_metadata(metadata)


MAPS = maps()
