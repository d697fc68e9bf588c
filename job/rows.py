"""Rows: what travels between the stages, in one place.

Each stage adds to a row, or takes away, until it is one of ``maps/`` or ``errors/``:

- listed: the columns of :data:`LISTED`;
- loaded: those of :data:`LOADED`; ``image`` is (height, width, 3) uint8 RGB, at the model's size
  where that is exact;
- predicted: those of :data:`PREDICTED`; ``map`` is (height, width) uint8, or uint16 above 256
  classes;
- encoded: those of :data:`job.schema.MAPS`, and ``error``.

``height`` and ``width`` are those of the upright image. ``error`` is null, or says why there is no
map: a struct of the type :data:`ERROR`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from job import schema
from job.errors import ConfigError, ImageError
from job.redact import redact

LISTED = tuple(schema.MANIFEST.names)
LOADED = ("id", "uri", "height", "width", "image", "error")
# Of those of a loaded row, what a predictor does not give back by itself.
KEPT = ("id", "uri", "height", "width")
PREDICTED = ("id", "uri", "height", "width", "map", "confidence", "error")

ERROR = pa.struct(
    [
        pa.field(name, schema.ERRORS.field(name).type)
        for name in ("stage", "error_type", "message", "retryable")
    ]
)
ENCODED = schema.MAPS.append(pa.field("error", ERROR))


@dataclass(frozen=True)
class Listed:
    """An image as a listing had it.

    Attributes:
        uri: of the image, or of what it is a part of.
        size: in bytes; None where that is not told.
        etag: what changes with it; None where nothing does.
        part: which part of the object it is; None for the whole object.
    """

    uri: str
    size: int | None
    etag: str | None
    part: str | None = None


@dataclass(frozen=True)
class Fault:
    """Why an image could not be read, when that says nothing about the image.

    Attributes:
        place: the storage that could not be read, as a person calls it.
        kind: see :data:`job.storage.refusals.Kind`.
        reason: a sentence, with what to do.
    """

    place: str
    kind: str
    reason: str


def failure(stage: str, error: ImageError) -> dict[str, Any]:
    """Why an image has no map, as the ``error`` column carries it.

    Args:
        stage: which one has failed: ``fetch``, ``decode`` or ``predict``.
        error: the reason.
    """
    return {
        "stage": stage,
        "error_type": error.kind,
        "message": redact(error.message),
        "retryable": error.retryable,
    }


def reasons(column: Iterable[Any]) -> list[dict[str, Any] | None]:
    """The ``error`` column of a batch, row by row.

    A block in which no image has failed has no struct in it, and comes from Ray as a column of NaN.

    Raises:
        ConfigError: a value is neither a struct nor nothing.
    """
    return [_reason(value) for value in column]


def _reason(value: Any) -> dict[str, Any] | None:
    if isinstance(value, Mapping):
        return dict(value)
    if value is None or value == "" or value != value:
        return None
    raise ConfigError(
        f"error: expected null or a struct of {', '.join(ERROR.names)}, got {str(value)[:60]!r}"
    )
