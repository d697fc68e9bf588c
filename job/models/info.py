"""Info: what is to know of a model without loading its weights."""

from dataclasses import dataclass

from job.errors import ModelError
from job.images.resize import ModelSize
from job.models.checkpoint import Checkpoint, Origin
from job.models.configuration import load_config, quiet_transformers
from job.models.labels import class_names
from job.models.processors import fixed_size, load_image_processor


@dataclass(frozen=True)
class ModelInfo:
    """What a model's files say of it.

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
    def of(cls, checkpoint: Checkpoint) -> "ModelInfo":
        """Read it from a checkpoint made by ``Checkpoint.from_model``.

        Raises:
            ModelError: the checkpoint is not a semantic-segmentation model.
        """
        if checkpoint.origin is None:
            raise ModelError(f"{checkpoint!r} was not made by Checkpoint.from_model")
        quiet_transformers()
        with checkpoint.as_directory() as directory:
            config = load_config(checkpoint, directory)
            image_processor = load_image_processor(directory)
        return cls(
            origin=checkpoint.origin,
            labels=class_names(config),
            size=fixed_size(image_processor),
            preprocessing=type(image_processor).__name__,
        )
