"""Loading: a model's weights, all of them and nothing else, onto a device."""

import pickle
import platform
from typing import Any

from safetensors import SafetensorError

from job.errors import ModelError
from job.models.checkpoint import Checkpoint, in_float32
from job.models.configuration import (
    ODD_SETTINGS,
    first_line,
    load_config,
    quiet_transformers,
    reason_of,
)
from job.models.families import family_of
from job.models.processors import load_image_processor
from job.wording import counted

# What transformers raises on files that ask for what is not there, or are not what they are called.
_ODD_FILES = (OSError, RuntimeError, ImportError, SafetensorError, pickle.UnpicklingError)


def load_model(checkpoint: Checkpoint) -> tuple[Any, Any]:
    """The model, in float32, and the image processor (Pillow backend) of a checkpoint.

    Safetensors only, no code from the checkpoint, and every weight of the model must be in it.
    Whatever precision the weights were saved in, they become float32: pixels are.

    Raises:
        ModelError: it is not a complete semantic-segmentation model.
    """
    import torch

    quiet_transformers()
    if checkpoint.is_dict:
        return _from_objects(checkpoint)
    with checkpoint.as_directory() as directory:
        family = family_of(load_config(checkpoint, directory))
        try:
            model, loading = family.model_class().from_pretrained(
                directory,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                # What is mismatched is refused below, by name.
                ignore_mismatched_sizes=True,
            )
        except (*_ODD_FILES, *ODD_SETTINGS) as error:
            reason = reason_of(error, directory, checkpoint)
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
            f"the model cannot be put on the GPU of {platform.node()}: {first_line(error)}. Free"
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
