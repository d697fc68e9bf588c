"""Column names and Arrow schemas of everything the job writes."""

import json
from typing import Any

import pyarrow as pa

MANIFEST = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size", pa.int64()),
        pa.field("etag", pa.string()),
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


def _huggingface_feature(kind: pa.DataType) -> Any:
    """The ``datasets`` feature of an Arrow type, as it stands in a schema's metadata."""
    if pa.types.is_list(kind):
        return {"feature": _huggingface_feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {field.name: _huggingface_feature(field.type) for field in kind}
    names = {pa.float32(): "float32", pa.float64(): "float64"}
    return {"dtype": names.get(kind, str(kind)), "_type": "Value"}


def _with_huggingface_metadata(schema: pa.Schema, images: set[str]) -> pa.Schema:
    """The schema with the metadata by which ``datasets.load_dataset`` decodes ``images``."""
    features = {
        field.name: {"_type": "Image"} if field.name in images else _huggingface_feature(field.type)
        for field in schema
    }
    metadata = json.dumps({"info": {"features": features}})
    return schema.with_metadata({"huggingface": metadata})


MAPS = _with_huggingface_metadata(
    pa.schema(
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
    ),
    images={"map"},
)
