"""Scoring worker: what an actor of a BatchPredictor does with a batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import ray
from ray.data.preprocessor import Preprocessor

from job.errors import ConfigError, JobError
from job.models.checkpoint import Checkpoint
from job.predict.predictor import Predictor, as_pandas

# A Dataset made of bare items has one column, which Ray calls "item" and AIR called "value".
ITEM, VALUE = "item", "value"


class ScoringWorker:
    """Lives on an actor: one predictor, called batch after batch.

    Args:
        own_preprocessor: the predictor keeps a preprocessor that it may have made for itself.
        preprocessor: what to apply here, ahead of everything else.
    """

    def __init__(
        self,
        checkpoint: "ray.ObjectRef[Checkpoint]",
        predictor_cls: type[Predictor],
        predictor_kwargs: dict[str, Any],
        own_preprocessor: bool,
        preprocessor: Preprocessor | None,
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
        if not own_preprocessor:
            self._predictor.set_preprocessor(None)
        self._preprocessor = preprocessor
        self._feature_columns = feature_columns
        self._keep_columns = keep_columns
        self._predict_kwargs = predict_kwargs

    def __call__(self, batch: Any) -> Any:
        if self._broken is not None:
            raise self._broken
        batch = with_value_column(batch)
        if self._preprocessor is not None:
            batch = self._preprocessor.transform_batch(batch)
            if isinstance(batch, pa.Table):
                batch = as_pandas(batch)
        features = _select(batch, self._feature_columns, "feature_columns")
        prediction: Any = self._predictor.predict(features, **self._predict_kwargs)
        if not self._keep_columns:
            return prediction
        return _beside(prediction, _select(batch, self._keep_columns, "keep_columns"))


def _beside(prediction: Any, kept: Any) -> Any:
    """Predictions with the columns that are kept, row by row."""
    if isinstance(prediction, np.ndarray):
        prediction = {"predictions": prediction}
    elif not isinstance(prediction, Mapping):
        prediction = as_pandas(prediction)
    found, expected = _rows(prediction), _rows(kept)
    if found != expected:
        raise ConfigError(
            f"keep_columns: the predictor gave {found} rows for a batch of {expected}, so that"
            " nothing tells which row belongs to which; keep no columns, or give one prediction"
            " per row"
        )
    if isinstance(prediction, pd.DataFrame):
        return prediction.reset_index(drop=True).assign(**_columns(kept))
    return {**prediction, **_columns(kept)}


def _rows(batch: Any) -> int:
    return len(batch) if isinstance(batch, pd.DataFrame) else len(next(iter(batch.values()), ()))


def _columns(batch: Any) -> dict[str, Any]:
    if isinstance(batch, pd.DataFrame):
        return {str(name): column for name, column in batch.reset_index(drop=True).items()}
    return dict(batch)


def with_value_column(batch: Any) -> Any:
    """A batch of bare items with them under AIR's name as well; any other as it is."""
    if isinstance(batch, pa.Table):
        if batch.column_names != [ITEM]:
            return batch
        return batch.append_column(VALUE, batch[ITEM])
    if list(batch) != [ITEM]:
        return batch
    if isinstance(batch, pd.DataFrame):
        return batch.assign(**{VALUE: batch[ITEM]})
    return {**batch, VALUE: batch[ITEM]}


def _select(batch: Any, columns: list[str], argument: str) -> Any:
    if not columns:
        return batch
    known = list(batch) if isinstance(batch, pd.DataFrame | Mapping) else []
    missing = [name for name in columns if name not in known]
    if missing:
        raise ConfigError(f"{argument}: no column {missing[0]!r} in the batch; it has {known}")
    if isinstance(batch, pd.DataFrame):
        return batch[columns]
    return {name: batch[name] for name in columns}


def listed(columns: Sequence[str] | None) -> list[str]:
    """Names of columns; none for None.

    Raises:
        ConfigError: one name in place of a list.
    """
    if isinstance(columns, str):
        raise ConfigError(f"columns are given as a list, not as one string: [{columns!r}]")
    return list(columns or ())
