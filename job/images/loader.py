"""The image loader: rows of a manifest to rows with pixels, or with the reason why not."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.data.preprocessor import Preprocessor

from job.cluster.guard import TASK_RETRIES, Guard, StoppingError
from job.cluster.metrics import StageTimer
from job.cluster.outage_ending import end_if_due, this_node
from job.cluster.tracker import Tracker
from job.errors import ImageError
from job.images import decode
from job.images.resize import ModelSize
from job.inputs.base import Input
from job.inputs.fetching import Doubt, Fetcher
from job.limits import DEFAULT_PIXEL_LIMIT
from job.rows import Fault, Listed, failure

# A worker has one core: of two images that are decoded at once each would take as long as both, by
# its timeout as well, and need their memory together.
_decoding = threading.Lock()


class ImageLoader(Preprocessor):
    """Fetches, decodes and resizes images: from rows of a manifest to rows a model can take.

    Input columns: :data:`job.rows.LISTED`. Output: :data:`job.rows.LOADED`. Images that could not
    be read through no fault of theirs are left out, and reported to the tracker.

    Args:
        source: what the images are fetched from.
        model_size: what to resize to; None to leave images at their own size.
        reduced_side: pixels that reduced JPEGs have at least along each side, see
            :func:`job.images.decode.decode_reduced`; None to decode all of them in full.
        fetch_concurrency: images fetched at the same time by one task.
        pixel_limit: the most pixels an image may have.
        byte_limit: the most bytes its file may have.
        timeout: seconds that decoding an image may take.
        fetch_timeout: seconds that fetching one may take, retries included; by default the same.
        witnesses: images that the driver has just listed, see :mod:`job.inputs.fetching`.
        num_cpus: CPUs that one task asks Ray for.
        timer: where the seconds spent are reported.
        tracker: the run's tracker, for :class:`job.cluster.guard.Guard`.
    """

    _is_fittable = False

    def __init__(
        self,
        source: Input,
        model_size: ModelSize | None,
        *,
        reduced_side: int | None = None,
        fetch_concurrency: int = 32,
        pixel_limit: int = DEFAULT_PIXEL_LIMIT,
        byte_limit: int = 2**29,
        timeout: float = 300.0,
        fetch_timeout: float | None = None,
        witnesses: Sequence[Listed] = (),
        num_cpus: float = 1,
        timer: StageTimer | None = None,
        tracker: Tracker | None = None,
    ) -> None:
        super().__init__()
        self._model_size = model_size
        self._reduced_side = reduced_side
        self._fetch_concurrency = fetch_concurrency
        self._pixel_limit = pixel_limit
        self._fetch_timeout = timeout if fetch_timeout is None else fetch_timeout
        self._num_cpus = num_cpus
        self._timer = timer or StageTimer()
        self._tracker = tracker
        self._guard = Guard("decode", tracker, timeout, stops=True)
        self._fetcher = Fetcher(
            source,
            witnesses=witnesses,
            timeout=self._fetch_timeout,
            threads=fetch_concurrency,
            byte_limit=byte_limit,
        )

    def _get_transform_config(self) -> dict[str, Any]:
        return {
            "batch_size": None,
            # The same as the read's, or Ray would run the two in different tasks.
            "num_cpus": self._num_cpus,
            "max_retries": TASK_RETRIES,
        }

    def _transform_numpy(self, batch: Any) -> dict[str, np.ndarray]:
        objects = [
            _Object(int(number), Listed(str(uri), _known(size), etag, part))
            for number, uri, part, size, etag in zip(
                *(batch[name] for name in ("id", "uri", "part", "size", "etag")), strict=True
            )
        ]
        try:
            ids = [found.id for found in objects]
            outcomes = self._guard.over(ids, lambda some: self._load([objects[i] for i in some]))
        except StoppingError:
            if self._tracker is not None:  # nobody else says that the run is ending
                end_if_due(self._tracker)
            objects, outcomes = [], []
        faults: dict[int, Fault] = {}
        loaded: list[_Loaded] = []
        read: list[_Object] = []
        for found, outcome in zip(objects, outcomes, strict=True):
            if isinstance(outcome, Fault):
                faults[found.id] = outcome
            if isinstance(outcome, ImageError):
                outcome = self._failed("decode", outcome)
            if isinstance(outcome, _Loaded):
                loaded.append(outcome)
                read.append(found)
        self._report([found.id for found in read], faults)
        self._timer.report()
        return {
            "id": np.array([found.id for found in read], np.int64),
            "uri": np.array([found.listed.uri for found in read], object),
            "height": np.array([row.height for row in loaded], np.int32),
            "width": np.array([row.width for row in loaded], np.int32),
            "image": stack([row.pixels for row in loaded]),
            "error": ragged([row.error for row in loaded]),
        }

    def _report(self, read: list[int], faults: dict[int, Fault]) -> None:
        if self._tracker is not None and (read or faults):
            self._tracker.read.remote(this_node(), read, faults)

    def _load(self, objects: Sequence["_Object"]) -> list["_Loaded | Fault"]:
        # Fetching waits on the network and decoding on the CPU: the next images arrive in threads
        # while this one is decoded here.
        pool = ThreadPoolExecutor(self._fetch_concurrency, "fetch")
        rounds = -(-len(objects) // self._fetch_concurrency)
        deadline = time.monotonic() + rounds * self._fetch_timeout
        outcomes: list[_Loaded | Fault] = []
        doubts: dict[int, tuple[Listed, Doubt]] = {}
        try:
            arriving = deque(pool.submit(self._fetch, found.listed) for found in objects)
            for number, found in enumerate(objects):
                # Each is let go of when it is decoded: files may be large.
                data = self._arrived(arriving.popleft(), deadline)
                if isinstance(data, Doubt):
                    doubts[number] = found.listed, data
                    data = ImageError("doubted", data.reason)
                outcomes.append(self._decode(found, data))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        if doubts:
            for number, settled in self._fetcher.settle(doubts).items():
                outcomes[number] = (
                    settled
                    if isinstance(settled, Fault)
                    else self._decode(objects[number], settled)
                )
        return outcomes

    def _arrived(
        self, arriving: "Future[bytes | ImageError | Doubt]", deadline: float
    ) -> bytes | ImageError | Doubt:
        try:
            return arriving.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            return self._fetcher.late()

    def _fetch(self, listed: Listed) -> bytes | ImageError | Doubt:
        with self._timer.stage("fetch"):
            return self._fetcher.fetch(listed)

    def _decode(self, found: "_Object", data: bytes | ImageError) -> "_Loaded":
        if isinstance(data, ImageError):
            return self._failed("fetch", data)
        watching = self._guard.watching([found.id], found.listed.uri)
        with _decoding, self._timer.stage("decode"), watching:
            try:
                image, divisor = decode.decode_reduced(
                    data, self._reduced_side, pixel_limit=self._pixel_limit
                )
            except ImageError as error:
                return self._failed("decode", error)
            resized = image if self._model_size is None else self._model_size.resize(image)
            height, width = image.height * divisor, image.width * divisor
            return _Loaded(decode.to_array(resized), height, width, None)

    def _failed(self, stage: str, error: ImageError) -> "_Loaded":
        # A picture of the model's size keeps the column a plain (rows, height, width, 3) tensor.
        size = self._model_size
        shape = (1, 1, 3) if size is None else (size.height, size.width, 3)
        return _Loaded(np.zeros(shape, np.uint8), 1, 1, failure(stage, error))


def _known(size: Any) -> int | None:
    # A column of numbers of which some are not known comes as floats.
    return None if size is None or size != size else int(size)


@dataclass(frozen=True)
class _Object:
    id: int
    listed: Listed


@dataclass(frozen=True)
class _Loaded:
    pixels: np.ndarray
    height: int
    width: int
    error: dict[str, Any] | None


def stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """One array of equally shaped ones, an object array of others."""
    if len({array.shape for array in arrays}) == 1:
        return np.stack(arrays)
    return ragged(arrays)


def ragged(values: Sequence[Any]) -> np.ndarray:
    """An object array of arrays of any shapes, or of other objects."""
    column = np.empty(len(values), object)
    for row, value in enumerate(values):
        column[row] = value
    return column
