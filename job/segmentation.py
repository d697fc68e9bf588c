"""Semantic segmentation: the predictor that turns pixels into maps."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from job.checkpoint import Checkpoint
from job.errors import ImageError, ModelError
from job.image_loader import failure, ragged
from job.labels import label_names
from job.model import ModelSize, load_model
from job.predictor import Predictor
from job.stopwatch import Stopwatch

if TYPE_CHECKING:
    import torch

# What stands in for the pixels of an image that could not be loaded.
_NO_MAP = np.zeros((1, 1), np.uint8)


class SemanticSegmentationPredictor(Predictor):
    """Predicts one map per image with any model of ``AutoModelForSemanticSegmentation``.

    Batches have ``image`` (uint8 RGB) and, when images come resized, ``height`` and ``width`` of
    the originals and optionally ``error``. Predictions have ``map`` ((height, width) class ids,
    uint8, or uint16 above 256 classes), ``confidence`` and ``error``.

    Args:
        model: the model, in evaluation mode, on the device to predict on.
        image_processor: the Hugging Face image processor that goes with it (Pillow backend).
        stopwatch: where the seconds spent are reported.
    """

    def __init__(
        self, model: Any, image_processor: Any, *, stopwatch: Stopwatch | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.image_processor = image_processor
        self.labels = label_names(model.config.id2label)
        self.device = model.device
        self._model_size = ModelSize.of(image_processor)
        self._levels = _normalised_levels(image_processor) if self._model_size else None
        self._stopwatch = stopwatch or Stopwatch()
        self._warm_up()

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        *,
        use_gpu: bool = False,
        threads: int | None = None,
        stopwatch: Stopwatch | None = None,
        **kwargs: Any,
    ) -> "SemanticSegmentationPredictor":
        """Build the model here, once.

        Args:
            checkpoint: a model's files, or a dict with ``model`` and ``image_processor``.
            use_gpu: predict on CUDA.
            threads: CPU threads for the model; None leaves torch's own choice.

        Raises:
            ModelError: the checkpoint is not a semantic-segmentation model, or there is no GPU.
        """
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        if use_gpu and not torch.cuda.is_available():
            raise ModelError(
                "a GPU was asked for, but this worker's torch sees none. Use --gpus-per-worker 0,"
                " or give the workers GPUs and a CUDA build of torch"
            )
        model, image_processor = load_model(checkpoint)
        model = model.to("cuda" if use_gpu else "cpu").eval()
        return cls(model, image_processor, stopwatch=stopwatch, **kwargs)

    def _predict_numpy(self, data: Any, **kwargs: Any) -> dict[str, np.ndarray]:
        pixels = list(data["image"])
        rows = len(pixels)
        sizes = _sizes(data, pixels)
        errors = [str(error) for error in data["error"]] if "error" in data else [""] * rows
        maps: list[np.ndarray] = [_NO_MAP] * rows
        confidence = np.full(rows, np.nan, np.float32)
        good = [row for row in range(rows) if not errors[row]]
        for row, outcome in zip(
            good,
            self._predict_or_fail([pixels[r] for r in good], [sizes[r] for r in good]),
            strict=True,
        ):
            if isinstance(outcome, ImageError):
                errors[row] = failure("predict", outcome)
            else:
                maps[row], confidence[row] = outcome
        self._stopwatch.report()
        return {
            "map": ragged(maps),
            "confidence": confidence,
            "error": np.array(errors, object),
        }

    def _predict_or_fail(
        self, pixels: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]
    ) -> list["tuple[np.ndarray, float] | ImageError"]:
        """Predict; halve a batch that does not fit; fail an image that can not be predicted on."""
        if not pixels:
            return []
        try:
            return self._predict_images(pixels, sizes)
        except (RuntimeError, MemoryError, ValueError) as error:
            memory = _is_out_of_memory(error)
            if not memory and not isinstance(error, ValueError):
                raise
            if len(pixels) == 1:
                if memory:
                    return [ImageError("out_of_memory", "the image does not fit into memory")]
                return [ImageError("not_predictable", f"the model refuses it ({error})")]
        self._release_memory()
        half = len(pixels) // 2
        return self._predict_or_fail(pixels[:half], sizes[:half]) + self._predict_or_fail(
            pixels[half:], sizes[half:]
        )

    def _predict_images(
        self, pixels: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]
    ) -> list["tuple[np.ndarray, float] | ImageError"]:
        import torch

        from job.kernels.upsample_argmax import upsample_argmax

        with torch.inference_mode():
            with self._stopwatch.stage("forward", len(pixels)):
                logits = [self._logits(self._pixel_values(image)) for image in pixels]
            with self._stopwatch.stage("upsample", len(pixels)):
                predictions: list[tuple[np.ndarray, float] | ImageError] = []
                for scores, size in zip(logits, sizes, strict=True):
                    maps, confidences = upsample_argmax(scores, [size])
                    predictions.append((maps[0], float(confidences[0])))
                return predictions

    def _pixel_values(self, image: np.ndarray) -> "torch.Tensor":
        """What the model takes for one image: (1, 3, height, width) float32 on the device."""
        import torch

        if self._model_size is None or self._levels is None:
            values = self.image_processor(images=[image], return_tensors="pt").pixel_values
            return values.to(self.device)
        if image.shape[:2] != (self._model_size.height, self._model_size.width):
            image = np.asarray(self._model_size.resize(Image.fromarray(image)))
        values = np.empty((1, 3, *image.shape[:2]), np.float32)
        for channel in range(3):
            np.take(self._levels[channel], image[:, :, channel], out=values[0, channel])
        return torch.from_numpy(values).to(self.device)

    def _logits(self, pixel_values: "torch.Tensor") -> "torch.Tensor":
        return self.model(pixel_values=pixel_values).logits

    def _warm_up(self) -> None:
        """Compile what is compiled on first use before the first image waits for it."""
        import torch

        from job.kernels.upsample_argmax import upsample_argmax

        upsample_argmax(torch.zeros(1, 2, 2, 2, device=self.device), [(4, 4)])

    def _release_memory(self) -> None:
        if self.device.type == "cuda":
            import torch

            torch.cuda.empty_cache()


def _normalised_levels(image_processor: Any) -> np.ndarray:
    """What the processor's rescale and normalise make of each byte, (3, 256) float32.

    Asking the processor itself makes a table lookup equal to it in every bit.
    """
    levels = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    values = image_processor(
        images=[Image.fromarray(levels)], do_resize=False, return_tensors="np"
    ).pixel_values
    return np.ascontiguousarray(values[0, :, 0, :], np.float32)


def _sizes(data: Any, pixels: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    if "height" in data and "width" in data:
        return [(int(h), int(w)) for h, w in zip(data["height"], data["width"], strict=True)]
    return [(image.shape[0], image.shape[1]) for image in pixels]


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate" in text
