"""BatchPredictor: a Checkpoint and a Predictor class, run over a Ray Dataset by a pool of actors.

The interface is the one Ray AIR documented for ``ray.train.batch_predictor.BatchPredictor`` (Ray
2.3 to 2.6), on ``Dataset.map_batches`` and ``ActorPoolStrategy``.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NoReturn

import pandas as pd
import ray
from ray.data import ActorPoolStrategy, Dataset
from ray.data.preprocessor import Preprocessor

from job.errors import ConfigError
from job.models.checkpoint import Checkpoint
from job.predict.predictor import Predictor, udf_predictor_class
from job.predict.scoring_worker import ITEM, VALUE, ScoringWorker, listed, with_value_column

# Arguments of map_batches that predict() gives it itself.
_TAKEN = {"batch_size", "batch_format", "compute", "concurrency", "fn_constructor_kwargs"}


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
        if self._override_preprocessor is not None:
            return self._override_preprocessor
        return self._checkpoint.get_preprocessor()

    def set_preprocessor(self, preprocessor: Preprocessor | None) -> None:
        """Use this preprocessor in place of the checkpoint's; None for the checkpoint's again."""
        if preprocessor is not None:
            _check_preprocessor(preprocessor)
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
        separate_gpu_stage: bool = True,
        ray_remote_args: Mapping[str, Any] | None = None,
        **predict_kwargs: Any,
    ) -> Dataset:
        """Preprocess a Dataset and predict on every batch of it, lazily.

        The preprocessor comes first: columns are those that it leaves, and the predictor's own copy
        of it is switched off.

        Args:
            data: a Ray Dataset.
            feature_columns: the preprocessed columns that the predictor gets; None for all.
            keep_columns: preprocessed columns to carry into the result beside the predictions.
            batch_size: rows per batch; None for whole blocks.
            min_scoring_workers: actors to start with.
            max_scoring_workers: actors to grow to; None for no bound.
            num_cpus_per_worker: CPUs per actor; None for 1, or 0 beside a GPU.
            num_gpus_per_worker: GPUs per actor; a predictor whose ``from_checkpoint`` takes
                ``use_gpu`` is then told to use it, unless the caller has said otherwise.
            separate_gpu_stage: run the preprocessor over the Dataset, ahead of the actors; False
                runs it inside them, batch by batch. Where neither needs a GPU, Ray may run both in
                the actors.
            ray_remote_args: more arguments of ``map_batches``, left as they are.
            predict_kwargs: handed to the predictor with each batch.

        Returns:
            A Dataset of the predictions, with ``keep_columns`` beside them.

        Raises:
            ConfigError: an argument that makes no sense, named with what would. What only the
                preprocessed Dataset can tell is raised when the result is read.
        """
        _check_arguments(data, batch_size, min_scoring_workers, max_scoring_workers)
        resources = _resources(num_cpus_per_worker, num_gpus_per_worker, ray_remote_args or {})
        inside = self.get_preprocessor()
        if inside is None:
            _check_columns(data, feature_columns=feature_columns, keep_columns=keep_columns)
        else:
            _check_preprocessor(inside)
            _check_fitted(inside)
            if separate_gpu_stage:
                # Behind the preprocessor nothing tells which of the columns are bare items.
                data, inside = inside.transform(_with_values(data)), None
        scoring = {
            # One copy in the object store serves every actor.
            "checkpoint": ray.put(self._checkpoint),
            "predictor_cls": self._predictor_cls,
            "predictor_kwargs": self._kwargs_for(resources["num_gpus"]),
            "own_preprocessor": self.get_preprocessor() is None,
            "preprocessor": inside,
            "feature_columns": listed(feature_columns),
            "keep_columns": listed(keep_columns),
            "predict_kwargs": predict_kwargs,
        }
        at_once = self._predictor_cls.concurrent_batches
        return data.map_batches(
            ScoringWorker,
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
            **{**(ray_remote_args or {}), **resources},
        )

    def predict_pipelined(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: AIR's other way to predict went with Ray's DatasetPipeline.

        Raises:
            ConfigError: it says what to call.
        """
        raise ConfigError(
            "predict_pipelined: Ray has no DatasetPipeline any more, its Datasets stream. Call"
            " predict with the same arguments, without blocks_per_window and bytes_per_window"
        )

    def _kwargs_for(self, gpus: float) -> dict[str, Any]:
        takes_use_gpu = (
            "use_gpu" in inspect.signature(self._predictor_cls.from_checkpoint).parameters
        )
        automatic = {"use_gpu": True} if gpus > 0 and takes_use_gpu else {}
        return {**automatic, **self._predictor_kwargs}


def _with_values(data: Dataset) -> Dataset:
    """A Dataset of bare items with them under AIR's name as well; any other as it is."""
    schema = data.schema(fetch_if_missing=False)
    if schema is None or schema.names != [ITEM]:
        return data
    return data.map_batches(with_value_column, batch_format=None)


def _check_arguments(data: Any, batch_size: int | None, fewest: int, most: int | None) -> None:
    if not isinstance(data, Dataset):
        raise ConfigError(
            f"data: expected a ray.data.Dataset, got {type(data).__name__}; make one with"
            " ray.data.from_items, from_pandas or one of the read functions"
        )
    for name, value, none in (
        ("batch_size", batch_size, " or None"),
        ("min_scoring_workers", fewest, ""),
        ("max_scoring_workers", most, " or None"),
    ):
        if value is None and none:
            continue
        if not isinstance(value, Integral) or value < 1:
            raise ConfigError(f"{name}: expected a whole number above 0{none}, got {value!r}")
    if most is not None and most < fewest:
        raise ConfigError(f"max_scoring_workers: {most} is below min_scoring_workers, {fewest}")


def _resources(
    cpus: float | None, gpus: float | None, remote_args: Mapping[str, Any]
) -> dict[str, float]:
    """What each actor asks Ray for: the arguments by name, else what the remote arguments say."""
    for name, value in (("num_cpus_per_worker", cpus), ("num_gpus_per_worker", gpus)):
        if value is not None and (not isinstance(value, Real) or value < 0):
            raise ConfigError(f"{name}: expected a number of 0 or more, or None, got {value!r}")
    for name in sorted(_TAKEN & set(remote_args)):
        raise ConfigError(
            f"ray_remote_args: {name!r} is not for Ray's actors; predict has arguments of its own"
            " for the size of batches and the number of workers"
        )
    gpus = remote_args.get("num_gpus") or 0 if gpus is None else gpus
    cpus = remote_args.get("num_cpus") if cpus is None else cpus
    return {"num_cpus": (0 if gpus else 1) if cpus is None else cpus, "num_gpus": gpus}


def _check_preprocessor(preprocessor: Any) -> None:
    if isinstance(preprocessor, Preprocessor):
        return
    name = getattr(preprocessor, "__name__", None) or type(preprocessor).__name__
    raise ConfigError(
        f"preprocessor: expected a fitted ray.data.preprocessor.Preprocessor, got {name}. A plain"
        " function of a batch needs none: predict(dataset.map_batches(function))"
    )


def _check_fitted(preprocessor: Preprocessor) -> None:
    status = Preprocessor.FitStatus
    if preprocessor.fit_status() not in (status.NOT_FITTED, status.PARTIALLY_FITTED):
        return
    name = type(preprocessor).__name__
    if type(preprocessor)._fit is Preprocessor._fit:
        raise ConfigError(
            f"preprocessor: {name} says that it has to be fitted and has no _fit; set"
            f" _is_fittable = False in class {name}"
        )
    raise ConfigError(
        f"preprocessor: {name} has not been fitted; call its fit(dataset), with the data that the"
        " model was trained on, before predict"
    )


def _check_columns(data: Dataset, **arguments: Sequence[str] | None) -> None:
    """Refuse columns that a Dataset whose schema is known does not have, before it runs."""
    schema = data.schema(fetch_if_missing=False)
    if schema is None:
        return
    known = [*schema.names, *([VALUE] if schema.names == [ITEM] else [])]
    for argument, columns in arguments.items():
        for name in listed(columns):
            if name not in known:
                raise ConfigError(f"{argument}: no column {name!r} in the dataset; it has {known}")
