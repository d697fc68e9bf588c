"""Processors: a model's image processor, which prepares images for it, as its Pillow backend."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from job.errors import ModelError
from job.images.resize import ModelSize
from job.models.configuration import ODD_SETTINGS, first_line
from job.models.files import CONFIG, PREPROCESSOR, PROCESSOR, preprocessing

# Far above what any model takes, far below what would fill a worker's memory.
_LONGEST_SIDE = 16_384


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
    except (OSError, ImportError, *ODD_SETTINGS) as error:
        raise ModelError(f"the image processor cannot be loaded: {first_line(error)}") from error


def fixed_size(image_processor: Any) -> ModelSize | None:
    """The one size that a processor resizes every image to, before it rescales and normalises.

    Returns:
        None when the processor crops, pads or keeps the aspect ratio: then it runs whole.
    """
    size = dict(image_processor.size or {})
    others = (getattr(image_processor, f"do_{step}", None) for step in ("center_crop", "pad"))
    if not _is_plain(image_processor) or any(others) or not image_processor.do_resize:
        return None
    if not (size.get("height") and size.get("width")):
        return None
    return ModelSize(size["height"], size["width"], int(image_processor.resample))


def _is_plain(image_processor: Any) -> bool:
    """Whether a processor has no steps but those that :func:`fixed_size` asks about.

    Classes made from these two may have others.
    """
    from transformers.models.segformer.image_processing_pil_segformer import (
        SegformerImageProcessorPil,
    )

    # The other backend takes torchvision: whoever made a processor of it has loaded it.
    other = sys.modules.get("transformers.models.segformer.image_processing_segformer")
    plain = SegformerImageProcessorPil, getattr(other, "SegformerImageProcessor", None)
    return type(image_processor) in plain


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
