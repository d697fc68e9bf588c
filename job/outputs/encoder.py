"""Encoder: class ids to PNGs and pixel counts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from job.cluster.metrics import StageTimer
from job.kernels.png import class_counts, encode_map
from job.redact import redact
from job.rows import ENCODED, reasons


class MapEncoder:
    """Turns predicted rows into rows of ``maps/``, with ``error`` still beside them.

    Args:
        names: class names by class id.
        palette: (classes, 3) uint8 colours, as the PNGs show them.
        model: name of the model, as every row carries it.
        run_id: name of the run, likewise.
        grayscale: PNGs without the palette.
        timer: where the seconds spent are reported.
    """

    def __init__(
        self,
        names: Sequence[str],
        palette: np.ndarray,
        *,
        model: str,
        run_id: str,
        grayscale: bool = False,
        timer: StageTimer | None = None,
    ) -> None:
        self._names = tuple(names)
        self._palette = palette
        self._model = model
        self._run_id = run_id
        self._grayscale = grayscale
        self._timer = timer or StageTimer()

    def __call__(self, batch: Any) -> pa.Table:
        """Encode a batch with ``id uri height width map confidence error``."""
        rows = len(batch["id"])
        errors = reasons(batch["error"])
        encoded: list[Any] = [None] * rows
        classes: list[Any] = [None] * rows
        with self._timer.stage("encode", rows):
            for row in range(rows):
                if errors[row] is None:
                    ids = np.asarray(batch["map"][row])
                    png = encode_map(ids, self._palette, grayscale=self._grayscale)
                    encoded[row] = {"bytes": png, "path": None}
                    classes[row] = self.classes(ids)
        self._timer.report()
        columns = {
            "id": batch["id"],
            "uri": [without_signature(str(uri)) for uri in batch["uri"]],
            "height": batch["height"],
            "width": batch["width"],
            "map": encoded,
            "classes": classes,
            "confidence": batch["confidence"],
            "model": [self._model] * rows,
            "run_id": [self._run_id] * rows,
            "error": errors,
        }
        return pa.table(columns, schema=ENCODED)

    def classes(self, ids: np.ndarray) -> list[dict[str, Any]]:
        """The classes of one map, largest first, each with its pixels."""
        counts = class_counts(ids, len(self._names))
        present = np.flatnonzero(counts)
        ordered = present[np.argsort(-counts[present], kind="stable")]
        return [
            {"label": int(label), "name": self._names[label], "pixels": int(counts[label])}
            for label in ordered
        ]


def without_signature(uri: str) -> str:
    """Only the URLs of web servers carry secrets; other URIs are kept as they are, to the byte."""
    return redact(uri) if uri.startswith(("http://", "https://")) else uri
