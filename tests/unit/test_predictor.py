"""Predictor: batches of every type in, predictions of the same type out; never pickled."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import ray
from ray.data.preprocessor import Preprocessor

from job import Checkpoint, Predictor, PredictorNotSerializableException


class AddOne(Preprocessor):
    _is_fittable = False

    def _transform_pandas(self, df: pd.DataFrame) -> pd.DataFrame:
        return df + 1


class AddOneNumpy(Preprocessor):
    _is_fittable = False

    def _transform_numpy(  # type: ignore[override]  # as Ray calls it with columns
        self, data: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        return {name: column + 1 for name, column in data.items()}


class Pandas(Predictor):
    """Doubles, in DataFrames."""

    seen: Any

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, **kwargs: object) -> "Pandas":
        return cls(checkpoint.get_preprocessor())

    def _predict_pandas(  # type: ignore[override]  # as AIR's users wrote it
        self, data: pd.DataFrame, plus: int = 0
    ) -> pd.DataFrame:
        assert isinstance(data, pd.DataFrame)
        self.seen = data
        return pd.DataFrame({"y": data.iloc[:, 0] * 2 + plus})


class Numpy(Pandas):
    """Doubles, in arrays."""

    def _predict_numpy(  # type: ignore[override]
        self, data: np.ndarray | dict[str, np.ndarray], plus: int = 0
    ) -> np.ndarray | dict[str, np.ndarray]:
        self.seen = data
        if isinstance(data, dict):
            return {"y": next(iter(data.values())) * 2 + plus}
        return data * 2 + plus


def built(predictor_cls: type[Predictor], preprocessor: Preprocessor | None = None) -> Any:
    checkpoint = Checkpoint.from_dict({})
    checkpoint.set_preprocessor(preprocessor)
    return predictor_cls.from_checkpoint(checkpoint)


@pytest.mark.parametrize("predictor_cls", [Pandas, Numpy])
def test_predictions_come_in_the_type_of_the_batch(predictor_cls: type[Predictor]) -> None:
    predictor = built(predictor_cls)
    frame = predictor.predict(pd.DataFrame({"x": [1, 2]}))
    assert isinstance(frame, pd.DataFrame)
    assert frame["y"].tolist() == [2, 4]
    table = predictor.predict(pa.table({"x": [1, 2]}))
    assert isinstance(table, pa.Table)
    assert table.to_pydict() == {"y": [2, 4]}
    arrays = predictor.predict({"x": np.array([1, 2])})
    assert isinstance(arrays, dict)
    assert arrays["y"].tolist() == [2, 4]


def test_a_bare_array_is_one_and_stays_one() -> None:
    found = built(Numpy).predict(np.array([[1, 2], [3, 4]]))
    assert isinstance(found, np.ndarray)
    assert found.tolist() == [[2, 4], [6, 8]]


def test_a_bare_array_reaches_a_pandas_predictor_as_one_column() -> None:
    predictor = built(Pandas)
    assert predictor.predict(np.array([1, 2]))["y"].tolist() == [2, 4]
    predictor.predict(np.ones((2, 3, 4)))
    assert predictor.seen.columns.tolist() == ["__value__"]
    assert predictor.seen["__value__"][0].shape == (3, 4)


def test_columns_of_equal_arrays_arrive_stacked_and_others_as_they_are() -> None:
    predictor = built(Numpy)
    equal, ragged = [np.zeros((2, 3))] * 2, [np.zeros(2), np.zeros(3)]
    predictor.predict(pd.DataFrame({"first": [1, 2], "equal": equal, "ragged": ragged}))
    assert predictor.seen["equal"].shape == (2, 2, 3)
    assert predictor.seen["ragged"].dtype == object
    assert [cell.shape for cell in predictor.seen["ragged"]] == [(2,), (3,)]


@pytest.mark.parametrize("predictor_cls", [Pandas, Numpy])
def test_a_batch_without_rows_is_a_batch(predictor_cls: type[Predictor]) -> None:
    found = built(predictor_cls).predict(pd.DataFrame({"x": np.empty(0, np.int64)}))
    assert len(found) == 0
    assert list(found.columns) == ["y"]


@pytest.mark.parametrize("predictor_cls", [Pandas, Numpy])
@pytest.mark.parametrize("preprocessor", [AddOne(), AddOneNumpy()])
def test_the_preprocessor_comes_first_whatever_its_type(
    predictor_cls: type[Predictor], preprocessor: Preprocessor
) -> None:
    predictor = built(predictor_cls, preprocessor)
    batch = pd.DataFrame({"x": [1, 2], "other": [0, 0]})
    assert predictor.get_preprocessor() is preprocessor
    assert predictor.predict(batch)["y"].tolist() == [4, 6]
    predictor.set_preprocessor(None)
    assert predictor.predict(batch)["y"].tolist() == [2, 4]


@pytest.mark.parametrize("predictor_cls", [Pandas, Numpy])
def test_keyword_arguments_reach_the_prediction(predictor_cls: type[Predictor]) -> None:
    assert built(predictor_cls).predict(pd.DataFrame({"x": [1]}), plus=5)["y"].tolist() == [7]


def test_the_batch_of_the_caller_is_left_as_it_is() -> None:
    frame = pd.DataFrame({"x": [1, 2]})
    built(Pandas, AddOne()).predict(frame)
    assert frame.to_dict("list") == {"x": [1, 2]}


def test_numpy_is_preferred_where_it_is_defined() -> None:
    assert Numpy.prefers_numpy()
    assert not Pandas.prefers_numpy()


@pytest.mark.parametrize("dumps", [pickle.dumps, ray.cloudpickle.dumps])
def test_pickling_a_predictor_raises_and_says_what_to_send_instead(
    dumps: Callable[[Predictor], bytes],
) -> None:
    with pytest.raises(
        PredictorNotSerializableException, match=r"Pandas holds .* Send the Checkpoint"
    ):
        dumps(built(Pandas))


def test_a_predictor_that_forgot_super_init_is_told() -> None:
    class Forgets(Pandas):
        def __init__(self) -> None:
            self.model = None

    with pytest.raises(RuntimeError, match=r"Forgets.__init__ has to call super\(\).__init__\(\)"):
        Forgets().predict(pd.DataFrame({"x": [1]}))


def test_a_predictor_without_a_prediction_is_told() -> None:
    class Nothing(Predictor):
        @classmethod
        def from_checkpoint(cls, checkpoint: Checkpoint, **kwargs: object) -> "Nothing":
            return cls()

    with pytest.raises(TypeError, match="Nothing has neither _predict_pandas nor _predict_numpy"):
        Nothing().predict(pd.DataFrame({"x": [1]}))


def test_a_predictor_without_from_checkpoint_cannot_be_made() -> None:
    class Unfinished(Predictor):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Unfinished()  # type: ignore[abstract]


@pytest.mark.parametrize("batch", [[1, 2], "text", 5, None])
@pytest.mark.parametrize("predictor_cls", [Pandas, Numpy])
def test_what_is_no_batch_is_named(predictor_cls: type[Predictor], batch: object) -> None:
    with pytest.raises(TypeError, match=f"not a batch: {type(batch).__name__}"):
        built(predictor_cls).predict(batch)


def test_a_prediction_that_is_no_batch_is_named() -> None:
    class Number(Pandas):
        def _predict_pandas(self, data: pd.DataFrame) -> int:  # type: ignore[override]
            return 5

    with pytest.raises(TypeError, match="not a batch: int"):
        built(Number).predict(pd.DataFrame({"x": [1]}))


def test_a_function_of_a_frame_is_a_predictor() -> None:
    predictor = Predictor.from_pandas_udf(lambda df, by: pd.DataFrame({"y": df["x"] * by}))
    assert predictor.predict(pd.DataFrame({"x": [1, 2]}), by=3)["y"].tolist() == [3, 6]
