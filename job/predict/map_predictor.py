"""Map predictor: images in, encoded maps out, in one worker that needs nothing else to go on."""

import threading
from collections.abc import Callable
from typing import Any, Self

import pyarrow as pa

from job.models.checkpoint import Checkpoint
from job.predict.segmentation import SemanticSegmentationPredictor

# Predicted rows (job.rows.PREDICTED) to encoded ones (job.rows.ENCODED).
Encode = Callable[[dict[str, Any]], pa.Table]


class MapPredictor(SemanticSegmentationPredictor):
    """Predicts and encodes, in the worker that has loaded the images (its preprocessor).

    Where predictors run on CPUs this is the whole way from rows of the manifest to rows of
    ``maps/``: loading takes a hundredth of the time there, and a predictor whose images are loaded
    elsewhere would wait for a CPU that another job may hold.

    It may be called from several threads: images of one batch arrive while the batch before is
    predicted on. Only one predicts at a time.
    """

    concurrent_batches = 2

    _encode: Encode
    _predicting: threading.Lock

    @classmethod
    def from_checkpoint(  # type: ignore[override]
        cls, checkpoint: Checkpoint, *, encoder: Encode, **kwargs: Any
    ) -> Self:
        """The same as the parent's, with what makes rows of ``maps/`` of predicted ones."""
        predictor = super().from_checkpoint(checkpoint, **kwargs)
        predictor._encode = encoder
        predictor._predicting = threading.Lock()
        return predictor

    def predict(self, data: Any, **kwargs: Any) -> Any:
        """Loaded images to rows of ``maps/`` with ``error`` beside them, an Arrow table.

        Rows that are not begun, because the run is coming to an end, are not among them.
        """
        with self._predicting:
            return self._encode({**data, **self._predict_numpy(data)})
