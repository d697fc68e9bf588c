"""Semantic segmentation: the image loader that feeds a model, and the predictor that runs it."""

import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from ray.data.preprocessor import Preprocessor

from job import images, storage
from job.checkpoint import Checkpoint, Origin
from job.errors import ImageError, ModelError
from job.labels import label_names
from job.model_files import PREPROCESSOR
from job.predictor import Predictor
from job.stopwatch import Stopwatch
from job.storage import Location

if TYPE_CHECKING:
    import torch

# What stands in for the pixels of an image that could not be loaded.
_NO_MAP = np.zeros((1, 1), np.uint8)


@dataclass(frozen=True)
class ModelSize:
    """The one size a model's processor resizes every image to, when it does nothing else."""

    height: int
    width: int
    resample: int

    @classmethod
    def of(cls, image_processor: Any) -> "ModelSize | None":
        """None when the processor crops, pads or keeps the aspect ratio: then it runs whole."""
        size = dict(image_processor.size or {})
        others = (getattr(image_processor, f"do_{step}", None) for step in ("center_crop", "pad"))
        plain = type(image_processor).__name__.startswith("SegformerImageProcessor")
        if not plain or any(others) or not image_processor.do_resize:
            return None
        if not (size.get("height") and size.get("width")):
            return None
        return cls(size["height"], size["width"], int(image_processor.resample))

    def resize(self, image: Image.Image) -> Image.Image:
        """As the processor's Pillow backend does it, to the bit."""
        return image.resize((self.width, self.height), resample=Image.Resampling(self.resample))


@dataclass(frozen=True)
class ModelCard:
    """What is to know of a model without loading its weights.

    Attributes:
        origin: where it came from.
        labels: class names by class id.
        size: what images are resized to, when that is all that is done to them.
        settings: everything beside the model's files that decides what its maps are.
    """

    origin: Origin
    labels: tuple[str, ...]
    size: ModelSize | None
    settings: dict[str, Any]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "ModelCard":
        """Read it from a checkpoint made by ``Checkpoint.from_model``.

        Raises:
            ModelError: the checkpoint is not a semantic-segmentation model.
        """
        if checkpoint.origin is None:
            raise ModelError(f"{checkpoint!r} was not made by Checkpoint.from_model")
        quiet_transformers()
        with checkpoint.as_directory() as directory:
            config = check_model_config(checkpoint, directory)
            image_processor = load_image_processor(directory)
        return cls(
            origin=checkpoint.origin,
            labels=label_names(config.id2label),
            size=ModelSize.of(image_processor),
            settings={
                "precision": "float32",
                "preprocessing": type(image_processor).__name__,
            },
        )


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

    def _transform_numpy(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
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
            except (OSError, TimeoutError, ValueError) as error:
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
            "map": _ragged(maps),
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
                predictions = []
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


def load_model(checkpoint: Checkpoint) -> tuple[Any, Any]:
    """The model and the image processor (Pillow backend) of a checkpoint.

    Safetensors only, no code from the checkpoint, and every weight of the model must be in it.

    Raises:
        ModelError: it is not a complete semantic-segmentation model.
    """
    from transformers import AutoModelForSemanticSegmentation

    quiet_transformers()
    with checkpoint.as_directory() as directory:
        check_model_config(checkpoint, directory)
        try:
            model, loading = AutoModelForSemanticSegmentation.from_pretrained(
                directory,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"{checkpoint!r} cannot be loaded: {_first_line(error)}") from error
        missing = sorted(loading["missing_keys"])
        if missing:
            raise ModelError(
                f"{checkpoint!r} lacks {len(missing)} weights that semantic segmentation needs,"
                f" {missing[0]} among them; use a checkpoint fine-tuned for segmentation"
            )
        return model, load_image_processor(directory)


def quiet_transformers() -> None:
    """Keep loading bars and advice that a user can do nothing about out of the log."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def load_image_processor(directory: str) -> Any:
    """The image processor of a model's directory, as its Pillow backend: the reference.

    Raises:
        ModelError: its ``preprocessor_config.json`` is missing, or names none that is known.
    """
    from transformers import AutoImageProcessor

    try:
        settings = json.loads((Path(directory) / PREPROCESSOR).read_text())
        # Published before transformers 5, and not recognised by it any more.
        name = str(settings.get("image_processor_type", ""))
        settings["image_processor_type"] = name.replace("FeatureExtractor", "ImageProcessor")
        with tempfile.TemporaryDirectory() as renamed:
            (Path(renamed) / PREPROCESSOR).write_text(json.dumps(settings))
            return AutoImageProcessor.from_pretrained(
                renamed if name.endswith("FeatureExtractor") else directory,
                backend="pil",
                trust_remote_code=False,
                local_files_only=True,
            )
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"the image processor cannot be loaded: {_first_line(error)}") from error


def check_model_config(checkpoint: Checkpoint, directory: str) -> Any:
    """Refuse what is not a semantic-segmentation model, from its configuration alone.

    Returns:
        The model's Hugging Face configuration.

    Raises:
        ModelError: naming what the checkpoint holds instead.
    """
    from transformers import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING, AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            directory, trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{checkpoint!r}: {_first_line(error)}") from error
    known = MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING
    expected = known[type(config)].__name__ if type(config) in known else None
    found = (config.architectures or ["a model of unknown class"])[0]
    if expected is None or found != expected:
        raise ModelError(
            f"{checkpoint!r} is not a semantic-segmentation model: it holds {found}. Use one such"
            " as nvidia/segformer-b0-finetuned-ade-512-512"
        )
    return config


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


def stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """One array of equally shaped ones, an object array of others."""
    if len({array.shape for array in arrays}) == 1:
        return np.stack(arrays)
    return _ragged(arrays)


def _ragged(arrays: Sequence[np.ndarray]) -> np.ndarray:
    column = np.empty(len(arrays), object)
    for row, array in enumerate(arrays):
        column[row] = array
    return column


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate" in text


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
