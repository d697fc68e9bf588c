"""A Hugging Face segmentation model's files: what they say of it, and the model they make."""

import json
import os
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

from job.errors import ModelError
from job.models.checkpoint import Checkpoint, Origin, in_float32
from job.models.families import (
    refuse_other_channels,
    refuse_other_families,
    refuse_other_formats,
    refuse_quantised,
)
from job.models.files import CONFIG, PREPROCESSOR, PROCESSOR, preprocessing
from job.models.labels import label_names, palette
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
class ModelInfo:
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

    @property
    def classes(self) -> tuple[tuple[str, ...], np.ndarray]:
        """The labels, and their colours: (classes, 3) uint8."""
        return self.labels, palette(self.labels)

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "ModelInfo":
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
            labels=class_names(config),
            size=ModelSize.of(image_processor),
            preprocessing=type(image_processor).__name__,
        )


def class_names(config: Any) -> tuple[str, ...]:
    """Names by the class ids of maps.

    A model of one class has one score per pixel, and says by its sigmoid whether the pixel is of
    that class: its maps have 1 for the class and 0 for the background.

    Raises:
        ModelError: the configuration names no classes, or leaves numbers out: transformers counts
            the names, and takes the model to have as many classes.
    """
    names = label_names(config.id2label)
    if len(config.id2label) == 1:
        return "background", names[-1]
    if len(config.id2label) < len(names):
        raise ModelError(
            f"the model's id2label names {len(config.id2label)} classes and counts up to"
            f" {len(names) - 1}: which of its scores are whose is not known. Number the classes"
            " from 0 on in its config.json, and leave none out"
        )
    return names


def load_model(checkpoint: Checkpoint) -> tuple[Any, Any]:
    """The model, in float32, and the image processor (Pillow backend) of a checkpoint.

    Safetensors only, no code from the checkpoint, and every weight of the model must be in it.
    Whatever precision the weights were saved in, they become float32: pixels are.

    Raises:
        ModelError: it is not a complete semantic-segmentation model.
    """
    import torch
    from transformers import AutoModelForSemanticSegmentation

    quiet_transformers()
    if checkpoint.is_dict:
        return _from_objects(checkpoint)
    with checkpoint.as_directory() as directory:
        check_model_config(checkpoint, directory)
        try:
            model, loading = AutoModelForSemanticSegmentation.from_pretrained(
                directory,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                # What is mismatched is refused below, by name.
                ignore_mismatched_sizes=True,
            )
        except (*_ODD_FILES, *_ODD_SETTINGS) as error:
            reason = _reason(error, directory, checkpoint)
            raise ModelError(f"{checkpoint!r} cannot be loaded: {reason}") from error
        _refuse_random_weights(checkpoint, loading)
        return model, load_image_processor(directory)


def _refuse_random_weights(checkpoint: Checkpoint, loading: dict[str, Any]) -> None:
    """Refuse a model some of whose weights are not in the files, and therefore random."""
    mismatched = sorted(loading["mismatched_keys"], key=str)
    if mismatched:
        name, saved, expected = mismatched[0]
        raise ModelError(
            f"{checkpoint!r} cannot be loaded: {len(mismatched)} of its weights have another shape"
            f" than config.json asks for; {name} is {tuple(saved)}, not {tuple(expected)}. Use the"
            " config.json that the weights were saved with"
        )
    missing = sorted(key for key in loading["missing_keys"] if not _is_unused(key))
    if missing:
        raise ModelError(
            f"{checkpoint!r} lacks {counted(len(missing), 'weight')} that semantic segmentation"
            f" needs, {missing[0]} among them; use a checkpoint fine-tuned for segmentation"
        )


def _is_unused(key: str) -> bool:
    """Whether predictions do not depend on a weight: it serves training alone."""
    return key.startswith("auxiliary_head.") or key.endswith("num_batches_tracked")


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
    return in_float32(data["model"]), image_processor


def quiet_transformers() -> None:
    """Keep loading bars and advice that a user can do nothing about out of the log."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def load_image_processor(directory: str) -> Any:
    """The image processor of a model's directory, as its Pillow backend: the reference.

    Raises:
        ModelError: its settings are missing, name none that is known, or make no sense.
    """
    from transformers import AutoImageProcessor

    here = Path(directory)
    try:
        files = {
            name: (here / name).read_bytes()
            for name in (PREPROCESSOR, PROCESSOR)
            if (here / name).is_file()
        }
        settings = preprocessing(files)
        if settings is None:
            raise ValueError(f"there is no {PREPROCESSOR}")
        # Published before transformers 5, and not recognised by it any more.
        name = settings.get("image_processor_type", settings.get("feature_extractor_type"))
        if isinstance(name, str):
            name = name.replace("FeatureExtractor", "ImageProcessor")
            settings = {**settings, "image_processor_type": name}
        with tempfile.TemporaryDirectory() as alone:
            (Path(alone) / PREPROCESSOR).write_text(json.dumps(settings))
            if (here / CONFIG).is_file():  # tells the processor when the settings do not
                (Path(alone) / CONFIG).write_bytes((here / CONFIG).read_bytes())
            try:
                image_processor = AutoImageProcessor.from_pretrained(
                    alone, backend="pil", trust_remote_code=False, local_files_only=True
                )
            except ValueError as error:
                if not str(error).startswith("Unrecognized image processor"):
                    raise
                # What follows is the name of our folder, and all that transformers has.
                found = f"no image processor {str(name)[:60]!r}" if name else "none for this model"
                raise ValueError(f"transformers has {found}") from error
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
    if np.ndim(values) != 4 or values.shape[1] != 3:
        raise ValueError(f"it makes a picture of shape {np.shape(values)}, and not 3 channels")
    if not np.isfinite(values).all():
        raise ValueError("it makes numbers of a picture that are not finite; look at image_std")


def check_model_config(checkpoint: Checkpoint, directory: str) -> Any:
    """Refuse what is not a semantic-segmentation model, from its configuration alone.

    Returns:
        The model's Hugging Face configuration.

    Raises:
        ModelError: naming what the checkpoint holds instead.
    """
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    refuse_other_formats(repr(checkpoint), os.listdir(directory))
    try:
        settings = json.loads((Path(directory) / CONFIG).read_text())
        if not isinstance(settings, dict):
            raise ValueError(f"{CONFIG} holds no JSON object")
        refuse_other_families(repr(checkpoint), settings, CONFIG_MAPPING)
        refuse_quantised(repr(checkpoint), settings)
        config = AutoConfig.from_pretrained(
            directory, trust_remote_code=False, local_files_only=True
        )
        class_names(config)
    except (OSError, *_ODD_SETTINGS) as error:
        raise ModelError(f"{checkpoint!r}: {_reason(error, directory, checkpoint)}") from error
    refuse_other_channels(repr(checkpoint), config)
    return config


def _reason(error: BaseException, directory: str, checkpoint: Checkpoint) -> str:
    """The first line of an error, without the folder that the files were put into for loading."""
    name = checkpoint.origin.name if checkpoint.origin else "the checkpoint"
    return _first_line(error).replace(f"{directory}/", "").replace(directory, name)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
