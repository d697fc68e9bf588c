"""Batch segmentation on Ray Data: images in storage in, one segmentation map per image out."""

import importlib
from typing import TYPE_CHECKING, Any

from job.versions import __version__ as __version__

if TYPE_CHECKING:
    from job.config import JobConfig
    from job.errors import JobError
    from job.models.checkpoint import Checkpoint
    from job.pipeline import run
    from job.planning import plan
    from job.predict.batch_predictor import BatchPredictor
    from job.predict.predictor import Predictor, PredictorNotSerializableException
    from job.predict.segmentation import SemanticSegmentationPredictor
    from job.predict.sequential import predict_sequential

__all__ = [
    "BatchPredictor",
    "Checkpoint",
    "JobConfig",
    "JobError",
    "Predictor",
    "PredictorNotSerializableException",
    "SemanticSegmentationPredictor",
    "plan",
    "predict_sequential",
    "run",
]

# Looked up on first use: `import job` loads neither torch nor Ray.
_MODULES = {
    "BatchPredictor": "job.predict.batch_predictor",
    "Checkpoint": "job.models.checkpoint",
    "JobConfig": "job.config",
    "JobError": "job.errors",
    "Predictor": "job.predict.predictor",
    "PredictorNotSerializableException": "job.predict.predictor",
    "SemanticSegmentationPredictor": "job.predict.segmentation",
    "plan": "job.planning",
    "predict_sequential": "job.predict.sequential",
    "run": "job.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'job' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, *globals()]
