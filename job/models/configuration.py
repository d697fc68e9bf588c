"""Configuration: a model's config.json, refused where no maps can be made by it."""

import json
import os
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from job.errors import ModelError
from job.models.checkpoint import Checkpoint
from job.models.families import (
    refuse_other_channels,
    refuse_other_families,
    refuse_other_formats,
    refuse_quantised,
)
from job.models.files import CONFIG
from job.models.labels import class_names

# What transformers raises on settings of the wrong kind.
ODD_SETTINGS = (
    *(ValueError, LookupError, TypeError, AttributeError, RecursionError, ArithmeticError),
    StrictDataclassError,
)


def load_config(checkpoint: Checkpoint, directory: str) -> Any:
    """The Hugging Face configuration of a model that can be predicted with.

    Args:
        checkpoint: what the model is called by in a message.
        directory: its files.

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
    except (OSError, *ODD_SETTINGS) as error:
        raise ModelError(f"{checkpoint!r}: {reason_of(error, directory, checkpoint)}") from error
    refuse_other_channels(repr(checkpoint), config)
    return config


def quiet_transformers() -> None:
    """Keep loading bars and advice that a user can do nothing about out of the log."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def reason_of(error: BaseException, directory: str, checkpoint: Checkpoint) -> str:
    """What an error says of a checkpoint's files, without the folder they were put into."""
    name = checkpoint.origin.name if checkpoint.origin else "the checkpoint"
    return first_line(error).replace(f"{directory}/", "").replace(directory, name)


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the error's kind when it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
