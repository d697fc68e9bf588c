"""The image loader: rows of a manifest to rows with pixels, or with the reason why not."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.data.preprocessor import Preprocessor

from job import images, storage
from job.errors import ImageError
from job.model import ModelSize
from job.stopwatch import Stopwatch
from job.storage import Location


class ImageLoader(Preprocessor):
    """Fetches, decodes and resizes images: from rows of a manifest to rows a model can take.

    Input columns: ``id``, ``uri``. Output: ``id``, ``uri``, ``height``, ``width`` (of the upright
    image), ``image`` (uint8 RGB, at the model's size where that is exact, else at its own), and
    ``error`` (empty, or why there is no image, as :func:`failure` writes it).

    Args:
        place: any location on the storage that holds the images.
        model_size: what to resize to; None to leave images at their own size.
        fetch_concurrency: images fetched at the same time by one task.
        pixel_limit: the most pixels an image may have.
        num_cpus: CPUs that one task asks Ray for.
        stopwatch: where the seconds spent are reported.
    """

    _is_fittable = False

    def __init__(
        self,
        place: Location,
        model_size: ModelSize | None,
        *,
        fetch_concurrency: int = 32,
        pixel_limit: int = images.DEFAULT_PIXEL_LIMIT,
        num_cpus: float = 1,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        super().__init__()
        self._place = place
        self._model_size = model_size
        self._fetch_concurrency = fetch_concurrency
        self._pixel_limit = pixel_limit
        self._num_cpus = num_cpus
        self._stopwatch = stopwatch or Stopwatch()

    def _get_transform_config(self) -> dict[str, Any]:
        return {"batch_size": None, "num_cpus": self._num_cpus}

    def _transform_numpy(self, batch: Any) -> dict[str, np.ndarray]:
        uris = [str(uri) for uri in batch["uri"]]
        # Fetching waits on the network and decoding on the CPU: the next images arrive in threads
        # while this one is decoded here.
        with ThreadPoolExecutor(self._fetch_concurrency, "fetch") as pool:
            fetched = pool.map(self._fetch, uris)
            loaded = [self._decode(data) for data in fetched]
        self._stopwatch.report()
        return {
            "id": batch["id"],
            "uri": batch["uri"],
            "height": np.array([row.height for row in loaded], np.int32),
            "width": np.array([row.width for row in loaded], np.int32),
            "image": stack([row.pixels for row in loaded]),
            "error": np.array([row.error for row in loaded], object),
        }

    def _fetch(self, uri: str) -> bytes | ImageError:
        with self._stopwatch.stage("fetch"):
            try:
                return bytes(self._place.fs.cat_file(uri))
            except FileNotFoundError:
                return ImageError("missing", "the object is gone since it was listed")
            except PermissionError as error:
                return ImageError("forbidden", storage.explain(error))
            except storage.STORAGE_ERRORS as error:
                return ImageError("fetch_failed", storage.explain(error), retryable=True)

    def _decode(self, data: bytes | ImageError) -> "_Loaded":
        if isinstance(data, ImageError):
            return self._failed("fetch", data)
        with self._stopwatch.stage("decode"):
            try:
                image = images.decode(data, pixel_limit=self._pixel_limit)
            except ImageError as error:
                return self._failed("decode", error)
            resized = image if self._model_size is None else self._model_size.resize(image)
            return _Loaded(images.to_array(resized), image.height, image.width, "")

    def _failed(self, stage: str, error: ImageError) -> "_Loaded":
        # A picture of the model's size keeps the column a plain (rows, height, width, 3) tensor.
        size = self._model_size
        shape = (1, 1, 3) if size is None else (size.height, size.width, 3)
        return _Loaded(np.zeros(shape, np.uint8), 1, 1, failure(stage, error))


@dataclass(frozen=True)
class _Loaded:
    pixels: np.ndarray
    height: int
    width: int
    error: str


def failure(stage: str, error: ImageError) -> str:
    """Why an image has no map, as the ``error`` column carries it: a JSON object."""
    return json.dumps(
        {
            "stage": stage,
            "error_type": error.kind,
            "message": error.message,
            "retryable": error.retryable,
        }
    )


def stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """One array of equally shaped ones, an object array of others."""
    if len({array.shape for array in arrays}) == 1:
        return np.stack(arrays)
    return ragged(arrays)


def ragged(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """An object array of arrays of any shapes."""
    column = np.empty(len(arrays), object)
    for row, array in enumerate(arrays):
        column[row] = array
    return column
