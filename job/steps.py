"""Steps: one image's way in milliseconds, as the stock pattern goes it and as the job does."""

import io
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from job.checkpoint import Checkpoint
from job.images import decode, to_array
from job.kernels.png import class_counts, encode_map
from job.labels import label_names, palette
from job.model import ModelSize, load_model
from job.normalise import Normaliser

if TYPE_CHECKING:
    from job.forward import Precision

# Step by step, what each way does; a step that a way has not takes no time there.
NAMES = ("decode", "resize", "normalise", "forward", "upsample", "encode")
ROUNDS = 3


def measure(
    files: Sequence[bytes],
    checkpoint: Checkpoint,
    *,
    precision: "Precision" = "float32",
    compiled: bool = False,
    threads: int = 1,
) -> dict[str, dict[str, float]]:
    """Milliseconds per image of every step on one core, the median of a few rounds.

    Args:
        files: encoded images.
        checkpoint: the model.
        precision: of our way's forward pass.
        compiled: whether to compile it.
        threads: CPU threads that torch may use.

    Returns:
        ``{"stock": {step: milliseconds}, "ours": {step: milliseconds}}``; the stock processor
        resizes and normalises in one go, which counts as its ``normalise``.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model, image_processor = load_model(checkpoint)
        model.eval()
        ways = {
            "stock": _stock(model, image_processor),
            "ours": _ours(model, image_processor, precision, compiled),
        }
        return {name: _median(way, files) for name, way in ways.items()}
    finally:
        torch.set_num_threads(before)


class _Clock:
    """Adds up the milliseconds between its calls to steps."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def __call__(self, step: str) -> None:
        now = time.perf_counter()
        self.spent[step] += 1000 * (now - self._last)
        self._last = now


_Way = Callable[[bytes, _Clock], Any]


def _median(way: _Way, files: Sequence[bytes]) -> dict[str, float]:
    way(files[0], _Clock())  # warm up
    rounds = []
    for _ in range(ROUNDS):
        clock = _Clock()
        for data in files:
            way(data, clock)
        rounds.append({name: clock.spent[name] / len(files) for name in NAMES})
    return {name: float(np.median([one[name] for one in rounds])) for name in NAMES}


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


def _ours(model: Any, image_processor: Any, precision: "Precision", compiled: bool) -> _Way:
    import torch

    from job.forward import fast
    from job.kernels.upsample_argmax import upsample_argmax

    size = ModelSize.of(image_processor)
    normaliser = Normaliser(image_processor, torch.device("cpu"))
    shape = (1, 3, size.height, size.width) if compiled and size else None
    forward = fast(model, precision, compiled_for=shape)
    names = label_names(model.config.id2label)
    colours = palette(names)

    def way(data: bytes, clock: _Clock) -> None:
        image = decode(data)
        clock("decode")
        pixels = to_array(size.resize(image) if size else image)
        clock("resize")
        values = normaliser([pixels])
        clock("normalise")
        with torch.inference_mode():
            logits = forward.scores(values)
            clock("forward")
            (segmented,), _ = upsample_argmax(logits, [(image.height, image.width)])
        clock("upsample")
        encode_map(segmented, colours)
        class_counts(segmented, len(names))
        clock("encode")

    return way
