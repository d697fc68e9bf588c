"""Semantic segmentation: the predictor that turns pixels into maps."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from job.cluster.guard import Guard
from job.cluster.metrics import StageTimer
from job.errors import ImageError, ModelError
from job.images.loader import ragged
from job.models.checkpoint import Checkpoint
from job.models.labels import class_names
from job.models.loading import load_model, on_device
from job.models.processors import fixed_size
from job.predict.predictor import Predictor
from job.rows import failure, reasons
from job.wording import counted

if TYPE_CHECKING:
    import torch

    from job.models.forward import Forward, Precision

# What stands in for the pixels of an image that could not be loaded.
_NO_MAP = np.zeros((1, 1), np.uint8)


class SemanticSegmentationPredictor(Predictor):
    """Predicts one map per image with any semantic-segmentation model.

    Batches have ``image`` (uint8 RGB) and, when images come resized, ``height`` and ``width`` of
    the originals and optionally ``error``. Predictions have ``map`` ((height, width) class ids,
    uint8, or uint16 above 256 classes), ``confidence`` and ``error``.

    Args:
        model: the model, in evaluation mode, on the device to predict on.
        image_processor: the Hugging Face image processor that goes with it (Pillow backend).
        forward: how to run the model; by default folded, in float32.
        reference: the stock model and post-processing instead of the fast ones.
        images_at_once: images in one forward pass; the reference takes one, for the sums of several
            may be rounded in another order.
        timer: where the seconds spent are reported.
        guard: what ends a batch that kills or hangs the process; needs ``id`` and ``uri`` columns.

    Raises:
        ModelError: the model cannot predict on a plain grey picture, or not what it says.
    """

    def __init__(
        self,
        model: Any,
        image_processor: Any,
        *,
        forward: "Forward | None" = None,
        reference: bool = False,
        images_at_once: int = 1,
        timer: StageTimer | None = None,
        guard: Guard | None = None,
    ) -> None:
        from job.kernels.upsample_argmax import upsample_argmax, upsample_argmax_reference
        from job.models.forward import fast, stock
        from job.models.normalise import Normaliser

        super().__init__()
        self.labels = class_names(model.config)
        self.device = model.device
        self._forward = forward or (stock(model) if reference else fast(model))
        self._normaliser = Normaliser(image_processor, model.device, self._forward.takes)
        self._upsample = upsample_argmax_reference if reference else upsample_argmax
        one_by_one = reference or self._normaliser.size is None
        self._images_at_once = 1 if one_by_one else images_at_once
        self._grey = np.full((*_plain_size(model.config, image_processor), 3), 128, np.uint8)
        self._timer = StageTimer()
        self._guard = guard or Guard("predict")
        # This also compiles what is compiled on first use, before an image, and its timeout, wait
        # for it.
        self._refuse_unfit(len(model.config.id2label))
        self._timer = timer or self._timer

    @classmethod
    def from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint: Checkpoint,
        *,
        use_gpu: bool = False,
        threads: int | None = None,
        precision: "Precision" = "float32",
        compiled: bool = False,
        reference: bool = False,
        images_at_once: int = 1,
        timer: StageTimer | None = None,
        guard: Guard | None = None,
    ) -> Self:
        """Build the model here, once.

        Args:
            checkpoint: a model's files, or a dict with ``model`` and ``image_processor``.
            use_gpu: predict on CUDA.
            threads: CPU threads for the model; None leaves torch's own choice.
            precision: what matrix products are computed in.
            compiled: compile the model here, for images of its size.
            reference: the stock model and post-processing, whatever else is asked for.
            images_at_once: images in one forward pass; 1 for the reference.
            timer: where the seconds spent are reported.
            guard: what ends a batch that kills or hangs the process.

        Raises:
            ModelError: the checkpoint is not a semantic-segmentation model, there is no GPU, or
                the model does not take a plain picture.
        """
        if guard is not None:
            guard.arrive()
        import torch

        from job.models.forward import fast, keep_freed_memory

        keep_freed_memory()
        if threads is not None:
            torch.set_num_threads(threads)
        model, image_processor = load_model(checkpoint)
        model = on_device(model, use_gpu)
        forward = None
        if not reference:
            size = fixed_size(image_processor) if compiled else None
            shape = (images_at_once, 3, size.height, size.width) if size else None
            forward = fast(model, precision, compiled_for=shape)
        timer = timer or StageTimer()
        for note in forward.notes if forward else ():
            timer.note(note)
        return cls(
            model,
            image_processor,
            forward=forward,
            reference=reference,
            images_at_once=images_at_once,
            timer=timer,
            guard=guard,
        )

    def _predict_numpy(self, data: Any, **kwargs: Any) -> dict[str, np.ndarray]:
        pixels = list(data["image"])
        rows = len(pixels)
        sizes = _sizes(data, pixels)
        errors = reasons(data.get("error", [None] * rows))
        maps: list[np.ndarray] = [_NO_MAP] * rows
        confidence = np.full(rows, np.nan, np.float32)
        good = [row for row in range(rows) if not errors[row]]
        ids = [int(data["id"][row]) if "id" in data else row for row in good]

        def predict(some: Sequence[int]) -> list[Any]:
            chosen = [good[position] for position in some]
            name = _name_of(data, chosen)
            with self._guard.watching([ids[position] for position in some], name):
                return self._predict_or_fail(
                    [pixels[row] for row in chosen], [sizes[row] for row in chosen]
                )

        for row, outcome in zip(good, self._guard.over(ids, predict), strict=True):
            if isinstance(outcome, ImageError):
                errors[row] = failure("predict", outcome)
            else:
                maps[row], confidence[row] = outcome
        self._timer.report()
        return {
            "map": ragged(maps),
            "confidence": confidence,
            "error": ragged(errors),
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
            if not memory and not self._works_otherwise():
                raise
            if len(pixels) == 1:
                if memory:
                    message = "the image does not fit into memory"
                    return [ImageError("out_of_memory", message, retryable=True)]
                return [ImageError("not_predictable", f"the model refuses it ({error})")]
        self._release_memory()
        # Compiled code takes full batches only.
        self._forward = self._forward.uncompiled or self._forward
        half = len(pixels) // 2
        self._timer.note(f"a batch of {len(pixels)} images did not fit or failed: halved")
        return self._predict_or_fail(pixels[:half], sizes[:half]) + self._predict_or_fail(
            pixels[half:], sizes[half:]
        )

    def _refuse_unfit(self, classes: int) -> None:
        """Refuse a model that cannot predict on any picture, before it fails on each of them."""
        import torch

        try:
            with torch.inference_mode():
                logits = self._logits([self._grey])
                self._upsample(logits, [(8, 8)])
        except Exception as error:  # whatever a stranger's model raises, it is of no use here
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise ModelError(
                f"the model cannot predict even on a plain grey picture ({reason}). Check that its"
                " config.json and its image processor fit together, or use another model"
            ) from error
        if logits.shape[1] != classes:
            raise ModelError(
                f"the model gives scores for {logits.shape[1]} classes, and its id2label names"
                f" {classes}. Correct id2label in its config.json"
            )
        if not torch.isfinite(logits).all():
            precision = self._forward.precision
            overflow = ", or overflow in this precision: try --precision float32"
            raise ModelError(
                f"the model gives a plain grey picture scores that are not finite, in {precision}."
                f" Its weights are damaged{overflow if precision != 'float32' else ''}"
            )

    def _works_otherwise(self) -> bool:
        """Whether a plain grey picture gets a map: then a failure was the images', not ours."""
        try:
            self._predict_images([self._grey], [(8, 8)])
        except (RuntimeError, MemoryError, ValueError):
            return False
        return True

    def _predict_images(
        self, pixels: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]
    ) -> list["tuple[np.ndarray, float] | ImageError"]:
        import torch

        predictions: list[tuple[np.ndarray, float] | ImageError] = []
        with torch.inference_mode():
            for start in range(0, len(pixels), self._images_at_once):
                part = slice(start, start + self._images_at_once)
                logits = self._logits(pixels[part])
                with self._timer.stage("upsample", len(logits)):
                    maps, confidences = self._upsample(logits, sizes[part])
                predictions += zip(maps, confidences.tolist(), strict=True)
        return predictions

    def _logits(self, images: Sequence[np.ndarray]) -> "torch.Tensor":
        """Class scores of some images, (B, classes, h, w) on the device."""
        import torch

        with self._timer.stage("normalise", len(images)):
            values = self._normaliser(images)
        with self._timer.stage("forward", len(images)):
            missing = self._images_at_once - len(images)
            if missing and self._forward.uncompiled:
                values = torch.cat([values, values.new_zeros(missing, *values.shape[1:])])
            logits = self._forward.scores(values)[: len(images)]
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            return logits

    def _release_memory(self) -> None:
        if self.device.type == "cuda":
            import torch

            torch.cuda.empty_cache()


def _plain_size(config: Any, image_processor: Any) -> tuple[int, int]:
    """(height, width) of a picture that any sound model takes: some have one size and no resize."""
    own = getattr(config, "image_size", None)
    if getattr(image_processor, "do_resize", True) or not own:
        return 256, 256
    height, width = (own, own) if isinstance(own, int) else own
    return height, width


def _name_of(data: Any, rows: Sequence[int]) -> str:
    if len(rows) == 1 and "uri" in data:
        return str(data["uri"][rows[0]])
    return f"a batch of {counted(len(rows), 'image')}"


def _sizes(data: Any, pixels: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    if "height" in data and "width" in data:
        return [(int(h), int(w)) for h, w in zip(data["height"], data["width"], strict=True)]
    return [(image.shape[0], image.shape[1]) for image in pixels]


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate" in text
