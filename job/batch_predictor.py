"""BatchPredictor: a Checkpoint and a Predictor class, run over a Ray Dataset by a pool of actors.

The interface is the one Ray AIR documented for ``ray.train.batch_predictor.BatchPredictor`` (Ray
2.3), on ``Dataset.map_batches`` and ``ActorPoolStrategy``.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import ray
from ray.data import ActorPoolStrategy, Dataset
from ray.data.preprocessor import Preprocessor

from job.checkpoint import Checkpoint
from job.errors import ConfigError, JobError
from job.predictor import Predictor, udf_predictor_class

# A Dataset made of bare items has one column, which Ray calls "item" and AIR called "value".
_ITEM, _VALUE = "item", "value"


class BatchPredictor:
    """Predicts on Datasets with models that are built once per actor.

    Args:
        checkpoint: the model to predict with.
        predictor_cls: its ``from_checkpoint`` runs on the workers.
        predictor_kwargs: handed to ``from_checkpoint``.
    """

    def __init__(
        self, checkpoint: Checkpoint, predictor_cls: type[Predictor], **predictor_kwargs: Any
    ) -> None:
        if not isinstance(checkpoint, Checkpoint):
            raise ConfigError(f"checkpoint: expected a Checkpoint, got {type(checkpoint).__name__}")
        if not (inspect.isclass(predictor_cls) and issubclass(predictor_cls, Predictor)):
            raise ConfigError(f"predictor_cls: expected a subclass of Predictor: {predictor_cls!r}")
        self._checkpoint = checkpoint
        self._predictor_cls = predictor_cls
        self._predictor_kwargs = dict(predictor_kwargs)
        self._override_preprocessor: Preprocessor | None = None

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(checkpoint={self._checkpoint!r},"
            f" predictor_cls={self._predictor_cls.__name__})"
        )

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, predictor_cls: type[Predictor], **kwargs: Any
    ) -> "BatchPredictor":
        """The same as the constructor."""
        return cls(checkpoint, predictor_cls, **kwargs)

    @classmethod
    def from_pandas_udf(cls, pandas_udf: Callable[..., pd.DataFrame]) -> "BatchPredictor":
        """A BatchPredictor around a function of a DataFrame.

        Keyword arguments given to :meth:`predict` beyond its own reach the function.
        """
        return cls(Checkpoint.from_dict({}), udf_predictor_class(pandas_udf))

    def get_preprocessor(self) -> Preprocessor | None:
        """The preprocessor that was set here, else the checkpoint's own."""
        return self._override_preprocessor or self._checkpoint.get_preprocessor()

    def set_preprocessor(self, preprocessor: Preprocessor) -> None:
        """Use this preprocessor in place of the checkpoint's."""
        self._override_preprocessor = preprocessor

    def predict(
        self,
        data: Dataset,
        *,
        feature_columns: Sequence[str] | None = None,
        keep_columns: Sequence[str] | None = None,
        batch_size: int | None = 4096,
        min_scoring_workers: int = 1,
        max_scoring_workers: int | None = None,
        num_cpus_per_worker: float | None = None,
        num_gpus_per_worker: float | None = None,
        separate_gpu_stage: bool | None = None,
        ray_remote_args: Mapping[str, Any] | None = None,
        **predict_kwargs: Any,
    ) -> Dataset:
        """Predict on every batch of a Dataset, lazily.

        Args:
            data: a Ray Dataset.
            feature_columns: the columns the predictor gets; None for all.
            keep_columns: input columns to carry into the result beside the predictions.
            batch_size: rows per batch; None for whole blocks.
            min_scoring_workers: actors to start with.
            max_scoring_workers: actors to grow to; None for no bound.
            num_cpus_per_worker: CPUs per actor; None for 1, or 0 beside a GPU.
            num_gpus_per_worker: GPUs per actor; a predictor whose ``from_checkpoint`` takes
                ``use_gpu`` is then told to use it, unless the caller has said otherwise.
            separate_gpu_stage: run the preprocessor in CPU tasks ahead of the actors rather than
                inside them; None for when GPUs are asked for.
            ray_remote_args: more arguments of ``map_batches``, left as they are.
            predict_kwargs: handed to the predictor with each batch.

        Returns:
            A Dataset of the predictions, with ``keep_columns`` beside them.

        Raises:
            ConfigError: an argument that makes no sense, named with what would.
        """
        _check_arguments(data, batch_size, min_scoring_workers, max_scoring_workers)
        gpus = num_gpus_per_worker or 0
        cpus = num_cpus_per_worker if num_cpus_per_worker is not None else (0 if gpus else 1)
        preprocessor = self.get_preprocessor()
        ahead = preprocessor is not None and (
            gpus > 0 if separate_gpu_stage is None else separate_gpu_stage
        )
        if preprocessor is not None and ahead:
            data = preprocessor.transform(data)
        else:
            _check_columns(data, feature_columns=feature_columns, keep_columns=keep_columns)
        scoring = {
            # One copy in the object store serves every actor.
            "checkpoint": ray.put(self._checkpoint),
            "predictor_cls": self._predictor_cls,
            "predictor_kwargs": self._kwargs_for(gpus),
            "preprocessor": preprocessor,
            "preprocessed": ahead,
            "feature_columns": _listed(feature_columns),
            "keep_columns": _listed(keep_columns),
            "predict_kwargs": predict_kwargs,
        }
        at_once = self._predictor_cls.concurrent_batches
        remote_args = {"num_cpus": cpus, "num_gpus": gpus, **(ray_remote_args or {})}
        return data.map_batches(
            _ScoringWorker,
            fn_constructor_kwargs=scoring,
            batch_size=batch_size,
            batch_format="numpy" if self._predictor_cls.prefers_numpy() else "pandas",
            compute=ActorPoolStrategy(
                min_size=min_scoring_workers,
                max_size=max_scoring_workers,
                initial_size=min_scoring_workers,
                # What waits for a busy worker is lost to one that comes later.
                max_tasks_in_flight_per_actor=max(2, at_once),
                max_concurrent_calls_per_actor=at_once,
                enable_true_multi_threading=at_once > 1,
            ),
            **remote_args,
        )

    def _kwargs_for(self, gpus: float) -> dict[str, Any]:
        takes_use_gpu = (
            "use_gpu" in inspect.signature(self._predictor_cls.from_checkpoint).parameters
        )
        automatic = {"use_gpu": True} if gpus > 0 and takes_use_gpu else {}
        return {**automatic, **self._predictor_kwargs}


class _ScoringWorker:
    """Lives on an actor: one predictor, called batch after batch."""

    def __init__(
        self,
        checkpoint: "ray.ObjectRef[Checkpoint]",
        predictor_cls: type[Predictor],
        predictor_kwargs: dict[str, Any],
        preprocessor: Preprocessor | None,
        preprocessed: bool,
        feature_columns: list[str],
        keep_columns: list[str],
        predict_kwargs: dict[str, Any],
    ) -> None:
        self._broken: JobError | None = None
        try:
            self._predictor = predictor_cls.from_checkpoint(ray.get(checkpoint), **predictor_kwargs)
        except JobError as error:
            # What a constructor raises reaches the driver as text only, behind Ray's own. The first
            # batch raises it in its place, as itself.
            self._broken = error
            return
        # The preprocessor runs here or ahead of here, never both.
        if preprocessed:
            self._predictor.set_preprocessor(None)
        elif preprocessor is not None:
            self._predictor.set_preprocessor(preprocessor)
        self._feature_columns = feature_columns
        self._keep_columns = keep_columns
        self._predict_kwargs = predict_kwargs

    def __call__(self, batch: Any) -> Any:
        if self._broken is not None:
            raise self._broken
        batch = _with_value_column(batch)
        features = _select(batch, self._feature_columns) if self._feature_columns else batch
        prediction: Any = self._predictor.predict(features, **self._predict_kwargs)
        if not self._keep_columns:
            return prediction
        if isinstance(prediction, np.ndarray):
            prediction = {"predictions": prediction}
        kept = _select(batch, self._keep_columns)
        if isinstance(prediction, pd.DataFrame):
            return prediction.reset_index(drop=True).assign(**kept.reset_index(drop=True))
        return {**prediction, **kept}


def _with_value_column(batch: Any) -> Any:
    if list(batch) != [_ITEM]:
        return batch
    if isinstance(batch, pd.DataFrame):
        return batch.assign(**{_VALUE: batch[_ITEM]})
    return {**batch, _VALUE: batch[_ITEM]}


def _select(batch: Any, columns: list[str]) -> Any:
    missing = [name for name in columns if name not in batch]
    if missing:
        raise ConfigError(f"no column {missing[0]!r} in the batch; it has {list(batch)}")
    if isinstance(batch, pd.DataFrame):
        return batch[columns]
    return {name: batch[name] for name in columns}


def _listed(columns: Sequence[str] | None) -> list[str]:
    if isinstance(columns, str):
        raise ConfigError(f"columns are given as a list, not as one string: [{columns!r}]")
    return list(columns or ())


def _check_arguments(data: Any, batch_size: int | None, fewest: int, most: int | None) -> None:
    if not isinstance(data, Dataset):
        raise ConfigError(
            f"data: expected a ray.data.Dataset, got {type(data).__name__}; make one with"
            " ray.data.from_items, from_pandas or one of the read functions"
        )
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise ConfigError(
            f"batch_size: expected a whole number above 0 or None, got {batch_size!r}"
        )
    if fewest < 1:
        raise ConfigError(f"min_scoring_workers: expected at least 1, got {fewest}")
    if most is not None and most < fewest:
        raise ConfigError(f"max_scoring_workers: {most} is below min_scoring_workers, {fewest}")


def _check_columns(data: Dataset, **arguments: Sequence[str] | None) -> None:
    """Refuse columns that a Dataset whose schema is known does not have, before it runs."""
    schema = data.schema(fetch_if_missing=False)
    if schema is None:
        return
    known = [*schema.names, *([_VALUE] if schema.names == [_ITEM] else [])]
    for argument, columns in arguments.items():
        for name in _listed(columns):
            if name not in known:
                raise ConfigError(f"{argument}: no column {name!r} in the dataset; it has {known}")
