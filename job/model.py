"""A Hugging Face segmentation model's files: what they say of it, and the model they make."""

import json
import pickle
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from safetensors import SafetensorError

from job.checkpoint import Checkpoint, Origin
from job.errors import ModelError
from job.labels import label_names
from job.model_files import PREPROCESSOR
from job.wording import counted

# What transformers raises on settings of the wrong kind.
_ODD_SETTINGS = (
    *(ValueError, LookupError, TypeError, AttributeError, RecursionError, ArithmeticError),
    StrictDataclassError,
)
# And on files that ask for what is not there, or are not what they are called.
_ODD_FILES = (OSError, RuntimeError, ImportError, SafetensorError, pickle.UnpicklingError)
# Far above what any model takes, far below what would fill a worker's memory.
_LONGEST_SIDE = 16_384
# From twice as many pixels, says Pillow's documentation, resizing gives close to what it gives from
# all of them.
_REDUCING_GAP = 2


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

    @property
    def reduced_side(self) -> int:
        """Pixels that an image keeps along each side when it is reduced before it is resized.

        The same for both: which is which is known only when the image is upright.
        """
        return _REDUCING_GAP * max(self.height, self.width)

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
        preprocessing: which image processor prepares images.
    """

    origin: Origin
    labels: tuple[str, ...]
    size: ModelSize | None
    preprocessing: str

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
            preprocessing=type(image_processor).__name__,
        )


def load_model(checkpoint: Checkpoint) -> tuple[Any, Any]:
    """The model and the image processor (Pillow backend) of a checkpoint.

    Safetensors only, no code from the checkpoint, and every weight of the model must be in it.

    Raises:
        ModelError: it is not a complete semantic-segmentation model.
    """
    from transformers import AutoModelForSemanticSegmentation

    quiet_transformers()
    if checkpoint.is_dict:
        return _from_objects(checkpoint)
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
        except (*_ODD_FILES, *_ODD_SETTINGS) as error:
            raise ModelError(f"{checkpoint!r} cannot be loaded: {_first_line(error)}") from error
        missing = sorted(loading["missing_keys"])
        if missing:
            raise ModelError(
                f"{checkpoint!r} lacks {counted(len(missing), 'weight')} that semantic"
                f" segmentation needs, {missing[0]} among them; use a checkpoint fine-tuned for"
                " segmentation"
            )
        return model, load_image_processor(directory)


def on_device(model: Any, use_gpu: bool) -> Any:
    """The model in evaluation mode, on this machine's GPU or its CPU.

    Raises:
        ModelError: torch sees no GPU here, or the GPU does not take the model; names the machine.
    """
    import torch

    if not use_gpu:
        return model.to("cpu").eval()
    if not torch.cuda.is_available():
        raise ModelError(
            f"a GPU was asked for, but torch {torch.__version__} sees none on {platform.node()}."
            " Give the workers a GPU, a driver that is new enough and a CUDA build of torch, or use"
            " --gpus-per-worker 0"
        )
    try:
        return model.to("cuda").eval()
    except RuntimeError as error:  # torch's errors of CUDA are of this kind
        raise ModelError(
            f"the model cannot be put on the GPU of {platform.node()}: {_first_line(error)}. Free"
            " the GPU, mend its driver, or use --gpus-per-worker 0"
        ) from error


def _from_objects(checkpoint: Checkpoint) -> tuple[Any, Any]:
    data = checkpoint.to_dict()
    image_processor = data.get("image_processor", data.get("feature_extractor"))
    if "model" not in data or image_processor is None:
        raise ModelError(
            f"{checkpoint!r}: expected 'model' and 'image_processor' (or 'feature_extractor')"
        )
    return data["model"], image_processor


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
            image_processor = AutoImageProcessor.from_pretrained(
                renamed if name.endswith("FeatureExtractor") else directory,
                backend="pil",
                trust_remote_code=False,
                local_files_only=True,
            )
        _check_preprocessing(image_processor)
        return image_processor
    except (OSError, ImportError, *_ODD_SETTINGS) as error:
        raise ModelError(f"the image processor cannot be loaded: {_first_line(error)}") from error


def _check_preprocessing(image_processor: Any) -> None:
    """Try it on a small picture, so that settings that make no sense come to light here.

    Raises:
        ValueError: naming the setting; or whatever the processor runs into.
    """
    for side, pixels in dict(image_processor.size or {}).items():
        if pixels is not None and not 0 < pixels <= _LONGEST_SIDE:
            raise ValueError(f"size: {side} is {pixels!r}, not a number from 1 to {_LONGEST_SIDE}")
    picture = Image.new("RGB", (8, 8), (9, 99, 199))
    values = image_processor(images=[picture], return_tensors="np").pixel_values
    if not np.isfinite(values).all():
        raise ValueError("it makes numbers of a picture that are not finite; look at image_std")


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
        label_names(config.id2label)
    except (OSError, *_ODD_SETTINGS) as error:
        raise ModelError(f"{checkpoint!r}: {_first_line(error)}") from error
    known = MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING
    expected: str | None = (
        getattr(known[type(config)], "__name__", None) if type(config) in known else None
    )
    found = (config.architectures or ["a model of unknown class"])[0]
    if expected is None or found != expected:
        raise ModelError(
            f"{checkpoint!r} is not a semantic-segmentation model: it holds {found}. Use one such"
            " as nvidia/segformer-b0-finetuned-ade-512-512"
        )
    return config


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
