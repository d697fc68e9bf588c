"""Predictor: the contract that whatever turns a batch into predictions fulfils.

The interface is the one Ray AIR documented for ``ray.train.predictor.Predictor`` (Ray 2.3).
"""

import abc
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from job.models.checkpoint import Checkpoint

if TYPE_CHECKING:
    from ray.data.preprocessor import Preprocessor

Batch: TypeAlias = pd.DataFrame | pa.Table | Mapping[str, np.ndarray] | np.ndarray

# What AIR called the one column of a batch that is a bare array.
ARRAY_COLUMN = "__value__"


class PredictorNotSerializableException(RuntimeError):  # noqa: N818 (the name AIR gave it)
    """A Predictor was about to be pickled; ship its Checkpoint instead."""


class Predictor(abc.ABC):
    """Loads a model from a Checkpoint and predicts on batches.

    A subclass gives ``from_checkpoint`` and one of ``_predict_numpy`` or ``_predict_pandas``, and
    calls ``super().__init__()``.

    Args:
        preprocessor: applied to each batch ahead of the prediction; a Ray Data ``Preprocessor``.
    """

    # Batches that one worker may be in the midst of, in threads of its own.
    concurrent_batches: ClassVar[int] = 1

    def __init__(self, preprocessor: "Preprocessor | None" = None) -> None:
        self._preprocessor = preprocessor

    @classmethod
    @abc.abstractmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, **kwargs: Any) -> "Predictor":
        """Build the predictor on the worker, from a Checkpoint."""

    @classmethod
    def from_pandas_udf(cls, pandas_udf: Callable[..., pd.DataFrame]) -> "Predictor":
        """A predictor that calls a function of a DataFrame, keyword arguments passed through."""
        return udf_predictor_class(pandas_udf).from_checkpoint(Checkpoint.from_dict({}))

    def get_preprocessor(self) -> "Preprocessor | None":
        """The preprocessor applied ahead of the prediction, if any."""
        return self._preprocessor

    def set_preprocessor(self, preprocessor: "Preprocessor | None") -> None:
        """Replace the preprocessor; None means batches arrive ready to predict on."""
        self._preprocessor = preprocessor

    @classmethod
    def prefers_numpy(cls) -> bool:
        """Whether batches should arrive as a dict of arrays rather than as a DataFrame."""
        return cls._predict_numpy is not Predictor._predict_numpy

    def predict(self, data: Batch, **kwargs: Any) -> Batch:
        """Preprocess a batch, predict on it, and answer in the type the batch came in.

        Args:
            data: a DataFrame, an Arrow table, a dict of arrays, or one array.
            kwargs: handed to ``_predict_numpy`` or ``_predict_pandas`` as they are.

        Raises:
            RuntimeError: the subclass never called ``super().__init__()``.
            TypeError: a batch, or a prediction, of a type that is not a batch.
        """
        if not hasattr(self, "_preprocessor"):
            raise RuntimeError(f"{type(self).__name__}.__init__ has to call super().__init__()")
        batch: Any = data
        if self._preprocessor is not None:
            batch = self._preprocessor.transform_batch(batch)
        if self.prefers_numpy():
            prediction: Any = self._predict_numpy(_as_numpy(batch), **kwargs)
        else:
            prediction = self._predict_pandas(as_pandas(batch), **kwargs)
        return _as_type_of(data, prediction)

    def _predict_pandas(self, data: pd.DataFrame, **kwargs: Any) -> pd.DataFrame:
        raise TypeError(
            f"{type(self).__name__} has neither _predict_pandas nor _predict_numpy; define one"
        )

    def _predict_numpy(
        self, data: np.ndarray | dict[str, np.ndarray], **kwargs: Any
    ) -> np.ndarray | dict[str, np.ndarray]:
        raise TypeError(
            f"{type(self).__name__} has neither _predict_pandas nor _predict_numpy; define one"
        )

    def __reduce__(self) -> NoReturn:
        raise PredictorNotSerializableException(
            f"{type(self).__name__} holds a loaded model and is not sent between processes. Send"
            " the Checkpoint and build the Predictor there with from_checkpoint"
        )


def udf_predictor_class(pandas_udf: Callable[..., pd.DataFrame]) -> type[Predictor]:
    """A Predictor class around a function of a DataFrame."""

    class PandasUDFPredictor(Predictor):
        @classmethod
        def from_checkpoint(cls, checkpoint: Checkpoint, **kwargs: Any) -> "PandasUDFPredictor":
            return cls()

        def _predict_pandas(self, data: pd.DataFrame, **kwargs: Any) -> pd.DataFrame:
            return pandas_udf(data, **kwargs)

    return PandasUDFPredictor


def as_pandas(batch: Any) -> pd.DataFrame:
    """A batch of any type as a DataFrame; a column of arrays holds one array per row."""
    if isinstance(batch, pd.DataFrame):
        return batch
    if isinstance(batch, pa.Table):
        return batch.to_pandas()
    if isinstance(batch, np.ndarray):
        batch = {ARRAY_COLUMN: batch}
    if isinstance(batch, Mapping):
        return pd.DataFrame(
            {
                name: column if np.ndim(column) == 1 else list(column)
                for name, column in batch.items()
            }
        )
    raise TypeError(f"not a batch: {type(batch).__name__}; expected a DataFrame, table or arrays")


def _as_numpy(batch: Any) -> np.ndarray | dict[str, np.ndarray]:
    if isinstance(batch, np.ndarray):
        return batch
    if isinstance(batch, pa.Table):
        batch = batch.to_pandas()
    if isinstance(batch, pd.DataFrame):
        return {str(name): _stacked(batch[name].to_numpy()) for name in batch.columns}
    if isinstance(batch, Mapping):
        return dict(batch)
    raise TypeError(f"not a batch: {type(batch).__name__}; expected a DataFrame, table or arrays")


def _stacked(column: np.ndarray) -> np.ndarray:
    """A column of equally shaped arrays as one array; anything else as it is."""
    if column.dtype != object or not all(isinstance(cell, np.ndarray) for cell in column):
        return column
    return np.stack(list(column)) if len({cell.shape for cell in column}) == 1 else column


def _as_type_of(data: Batch, prediction: Any) -> Batch:
    if isinstance(data, pd.DataFrame):
        return as_pandas(prediction)
    if isinstance(data, pa.Table):
        return pa.Table.from_pandas(as_pandas(prediction), preserve_index=False)
    if isinstance(data, np.ndarray) and isinstance(prediction, np.ndarray):
        return prediction
    return _as_numpy(prediction)
