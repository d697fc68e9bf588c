"""One image's way in milliseconds, step by step, as the stock pattern goes it and as the job does.

    python -m benchmarks.steps IMAGES MODEL [--precision bfloat16] [--decode reduced] [--count 12]

On one core. The two take turns, image by image, so that a noisy machine is noisy for both. The
last line is JSON.
"""

import argparse
import io
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from job.images.decode import decode_reduced, to_array
from job.inputs.listing import list_objects
from job.kernels.png import class_counts, encode_map
from job.models.checkpoint import Checkpoint
from job.models.labels import label_names
from job.models.loading import load_model
from job.models.normalise import Normaliser
from job.models.processors import fixed_size
from job.outputs.palette import palette
from job.storage.opening import locate

if TYPE_CHECKING:
    from job.models.forward import Precision

NAMES = ("decode", "resize", "normalise", "forward", "upsample", "encode")
ROUNDS = 5


def measure(
    files: Sequence[bytes], checkpoint: Checkpoint, precision: "Precision", reduced: bool
) -> dict[str, dict[str, float]]:
    """Milliseconds per image of every step on one core, the median of a few rounds.

    The stock processor resizes and normalises in one go, which counts as its ``normalise``.
    """
    import torch

    torch.set_num_threads(1)
    model, image_processor = load_model(checkpoint)
    model.eval()
    ways = {
        "stock": _stock(model, image_processor),
        "this job": _ours(model, image_processor, precision, reduced),
    }
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):
        clocks = {name: _Clock() for name in ways}
        for data in files[: 1 if turn == 0 else None]:
            for name, way in ways.items():
                clocks[name].start()
                way(data, clocks[name])
        if turn:  # the first is to warm up
            for name, clock in clocks.items():
                rounds[name].append({step: clock.spent[step] / len(files) for step in NAMES})
    return {
        name: {step: float(np.median([one[step] for one in found])) for step in NAMES}
        for name, found in rounds.items()
    }


class _Clock:
    """Adds up the milliseconds between its calls to steps."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._last = 0.0

    def start(self) -> None:
        self._last = time.perf_counter()

    def __call__(self, step: str) -> None:
        now = time.perf_counter()
        self.spent[step] += 1000 * (now - self._last)
        self._last = now


_Way = Callable[[bytes, _Clock], Any]


def _stock(model: Any, image_processor: Any) -> _Way:
    import torch

    def way(data: bytes, clock: _Clock) -> None:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        clock("decode")
        inputs = image_processor(images=[image], return_tensors="pt")
        clock("normalise")
        with torch.inference_mode():
            outputs = model(pixel_values=inputs.pixel_values)
            clock("forward")
            (segmented,) = image_processor.post_process_semantic_segmentation(
                outputs=outputs, target_sizes=[image.size[::-1]]
            )
        clock("upsample")
        Image.fromarray(segmented.numpy().astype(np.uint16)).save(io.BytesIO(), "PNG")
        np.unique(segmented.numpy(), return_counts=True)
        clock("encode")

    return way


def _ours(model: Any, image_processor: Any, precision: "Precision", reduced: bool) -> _Way:
    import torch

    from job.kernels.upsample_argmax import upsample_argmax
    from job.models.forward import fast, keep_freed_memory

    keep_freed_memory()  # as a predictor does; here the stock way has the good of it, too
    size = fixed_size(image_processor)
    forward = fast(model, precision)
    normaliser = Normaliser(image_processor, torch.device("cpu"), forward.takes)
    names = label_names(model.config.id2label)
    colours = palette(names)
    if reduced and size is None:
        raise SystemExit("--decode reduced: this model does not resize every image to one size")
    side = size.reduced_side if size and reduced else None

    def way(data: bytes, clock: _Clock) -> None:
        image, divisor = decode_reduced(data, side)
        clock("decode")
        pixels = to_array(size.resize(image) if size else image)
        clock("resize")
        values = normaliser([pixels])
        clock("normalise")
        with torch.inference_mode():
            logits = forward.scores(values)
            clock("forward")
            full = (image.height * divisor, image.width * divisor)
            (segmented,), _ = upsample_argmax(logits, [full])
        clock("upsample")
        encode_map(segmented, colours)
        class_counts(segmented, len(names))
        clock("encode")

    return way


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", help="folder of images")
    parser.add_argument("model", help="as --model of a run")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--decode", choices=("exact", "reduced"), default="exact")
    parser.add_argument("--count", type=int, default=12, help="images to take")
    arguments = parser.parse_args()
    place = locate(arguments.images)
    paths = [found.path for found in list_objects(place)][: arguments.count]
    files = [place.fetch(path, None, None) for path in paths]
    checkpoint = Checkpoint.from_model(arguments.model)
    result = measure(files, checkpoint, arguments.precision, arguments.decode == "reduced")
    for step in (*NAMES, "all"):
        figures = [way.get(step, sum(way.values())) for way in result.values()]
        print(f"{step:10}" + "".join(f"{figure:10.1f} ms" for figure in figures))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
