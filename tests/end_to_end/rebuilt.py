"""The job with images that fail at first: ``python -m tests.end_to_end.rebuilt run …``.

Images are loaded, and maps encoded, in tasks of their own (``apart.py``). An image whose name ends
in an odd digit cannot be had the first time that it is asked for. One block of maps is encoded; the
others lie where they were predicted until there is a note ``go``. A note ``node`` has the number of
the process that runs that node, and each batch that was predicted leaves one.
"""

import os
import sys
import uuid
from pathlib import Path
from typing import Any

from tests.end_to_end.apart import load_apart
from tests.end_to_end.hooked import note, run_hooked, wait_for_note


def fails_at_first(name: str) -> bool:
    """Whether an image cannot be had the first time.

    Args:
        name: of its file, without the ending.
    """
    return name[-1] in "13579"


def fail_at_first() -> None:
    """Have this worker process do so."""
    from job.errors import ImageError
    from job.inputs.listed_files import ListedFiles
    from job.outputs.encoder import MapEncoder
    from job.predict.segmentation import SemanticSegmentationPredictor

    fetch, encode = ListedFiles.fetch, MapEncoder.__call__
    predict = SemanticSegmentationPredictor.predict

    def fetch_or_fail(self: Any, row: Any, limit: int | None = None) -> bytes:
        name = Path(row.uri).stem
        if fails_at_first(name) and not note(f"failed-{name}").exists():
            note(f"failed-{name}").touch()
            raise ImageError("fetch_failed", "not at first", retryable=True)
        return fetch(self, row, limit)

    def predict_and_note(self: Any, *arguments: Any, **options: Any) -> Any:
        note("node").write_text(str(os.getppid()))
        predicted = predict(self, *arguments, **options)
        note(f"predicted-{uuid.uuid4().hex}").touch()
        return predicted

    def encode_first(self: Any, batch: Any) -> Any:
        if note("encoded").exists():
            wait_for_note("go")
        note("encoded").touch()
        return encode(self, batch)

    ListedFiles.fetch = fetch_or_fail  # type: ignore[method-assign]
    SemanticSegmentationPredictor.predict = predict_and_note  # type: ignore[method-assign]
    MapEncoder.__call__ = encode_first  # type: ignore[method-assign]


if __name__ == "__main__":
    load_apart()
    sys.exit(run_hooked(fail_at_first))
