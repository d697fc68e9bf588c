"""The BatchPredictor contract, as Ray AIR documented it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
from PIL import Image
from ray.data.preprocessor import Preprocessor
from ray.data.preprocessors import Chain, Concatenator, LabelEncoder, StandardScaler

from job import BatchPredictor, Checkpoint, Predictor
from job.errors import ConfigError
from job.predict.batch_predictor import _resources
from job.predict.scoring_worker import ScoringWorker
from tests.conftest import LABELS, make_model, picture

pytestmark = pytest.mark.usefixtures("ray_session")


class AddOne(Preprocessor):
    _is_fittable = False

    def _transform_pandas(self, df: pd.DataFrame) -> pd.DataFrame:
        return df.assign(x=df["x"] + 1)


class EvenTwice(Preprocessor):
    """Renames, makes, changes and drops columns; leaves out odd rows and doubles the others."""

    _is_fittable = False

    def _transform_pandas(self, df: pd.DataFrame) -> pd.DataFrame:
        df = df[df["raw"] % 2 == 0].rename(columns={"raw": "x"}).drop(columns="unused")
        df = df.assign(label=df["label"] + 1, made=df["x"] * 1000)
        return pd.concat([df, df], ignore_index=True)


class TimesPandas(Predictor):
    def __init__(self, factor: float, preprocessor: Preprocessor | None = None) -> None:
        super().__init__(preprocessor)
        self.factor = factor

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, **kwargs: float) -> "TimesPandas":
        factor = kwargs.get("factor", checkpoint.to_dict().get("factor", 1))
        return cls(factor, checkpoint.get_preprocessor())

    def _predict_pandas(  # type: ignore[override]  # as AIR's users wrote it
        self, data: pd.DataFrame, plus: float = 0
    ) -> pd.DataFrame:
        return pd.DataFrame({"y": data["x"] * self.factor + plus, "columns": len(data.columns)})


class TimesNumpy(TimesPandas):
    def _predict_numpy(  # type: ignore[override]
        self, data: dict[str, np.ndarray], plus: float = 0
    ) -> dict[str, np.ndarray]:
        assert isinstance(data, dict)
        return {"y": data["x"] * self.factor + plus}


class ReportsGpu(Predictor):
    def __init__(self, use_gpu: bool) -> None:
        super().__init__()
        self.use_gpu = use_gpu

    @classmethod
    def from_checkpoint(  # type: ignore[override]
        cls, checkpoint: Checkpoint, use_gpu: bool = False
    ) -> "ReportsGpu":
        return cls(use_gpu)

    def _predict_pandas(self, data: pd.DataFrame) -> pd.DataFrame:  # type: ignore[override]
        return pd.DataFrame({"use_gpu": [self.use_gpu] * len(data)})


def numbers(count: int = 6) -> "ray.data.Dataset":
    return ray.data.from_pandas(pd.DataFrame({"x": range(count), "label": range(100, 100 + count)}))


def column(dataset: "ray.data.Dataset", name: str) -> list[object]:
    return sorted(row[name] for row in dataset.take_all())


@pytest.mark.parametrize("predictor_cls", [TimesPandas, TimesNumpy])
def test_pandas_and_numpy_predictors_predict_on_every_row(predictor_cls: type[Predictor]) -> None:
    predictor = BatchPredictor(Checkpoint.from_dict({"factor": 3}), predictor_cls)
    assert column(predictor.predict(numbers(), batch_size=4), "y") == [0, 3, 6, 9, 12, 15]


def test_predictor_gets_only_the_feature_columns() -> None:
    predictor = BatchPredictor(Checkpoint.from_dict({}), TimesPandas)
    assert column(predictor.predict(numbers(2)), "columns") == [2, 2]
    assert column(predictor.predict(numbers(2), feature_columns=["x"]), "columns") == [1, 1]


@pytest.mark.parametrize("predictor_cls", [TimesPandas, TimesNumpy])
def test_kept_columns_stand_beside_their_own_predictions(predictor_cls: type[Predictor]) -> None:
    predictor = BatchPredictor(Checkpoint.from_dict({"factor": 2}), predictor_cls)
    result = predictor.predict(
        numbers(), feature_columns=["x"], keep_columns=["label"], batch_size=4
    )
    assert all(row["y"] == 2 * (row["label"] - 100) for row in result.take_all())


def test_predict_and_constructor_arguments_reach_the_predictor() -> None:
    predictor = BatchPredictor.from_checkpoint(Checkpoint.from_dict({}), TimesPandas, factor=10)
    assert column(predictor.predict(numbers(3), plus=1), "y") == [1, 11, 21]


@pytest.mark.parametrize("separate", [True, False])
def test_checkpoint_preprocessor_is_applied_exactly_once(separate: bool) -> None:
    checkpoint = Checkpoint.from_dict({"factor": 10, "_preprocessor": AddOne()})
    predictor = BatchPredictor(checkpoint, TimesPandas)
    assert isinstance(predictor.get_preprocessor(), AddOne)
    result = predictor.predict(numbers(3), separate_gpu_stage=separate)
    assert column(result, "y") == [10, 20, 30]


@pytest.mark.parametrize("separate", [True, False])
def test_set_preprocessor_replaces_the_checkpoints(separate: bool) -> None:
    class AddHundred(AddOne):
        def _transform_pandas(self, df: pd.DataFrame) -> pd.DataFrame:
            return df.assign(x=df["x"] + 100)

    checkpoint = Checkpoint.from_dict({"_preprocessor": AddOne()})
    predictor = BatchPredictor(checkpoint, TimesPandas)
    predictor.set_preprocessor(AddHundred())
    result = predictor.predict(numbers(2), separate_gpu_stage=separate)
    assert column(result, "y") == [100, 101]
    assert isinstance(checkpoint.get_preprocessor(), AddOne)


@pytest.mark.parametrize("predictor_cls", [TimesPandas, TimesNumpy])
@pytest.mark.parametrize("separate", [True, False])
def test_columns_are_those_that_the_preprocessor_leaves(
    predictor_cls: type[Predictor], separate: bool
) -> None:
    data = pd.DataFrame({"raw": range(5), "label": range(100, 105), "unused": 0})
    checkpoint = Checkpoint.from_dict({"factor": 3, "_preprocessor": EvenTwice()})
    result = BatchPredictor(checkpoint, predictor_cls).predict(
        ray.data.from_pandas(data),
        feature_columns=["x"],
        keep_columns=["label", "made"],
        separate_gpu_stage=separate,
    )
    found = sorted((row["y"], row["label"], row["made"]) for row in result.take_all())
    once = [(0, 101, 0), (6, 103, 2000), (12, 105, 4000)]
    assert found == sorted(once * 2)


@pytest.mark.parametrize("separate", [True, False])
def test_rays_own_preprocessors_come_first_as_well(separate: bool) -> None:
    data = ray.data.from_pandas(
        pd.DataFrame({"a": [0.0, 2.0], "b": [1.0, 3.0], "name": ["cat", "dog"]})
    )
    chain = Chain(
        StandardScaler(["a", "b"]),
        Concatenator(["a", "b"], output_column_name="both"),
        LabelEncoder("name"),
    )
    chain.fit(data)

    class Sums(TimesNumpy):
        def _predict_numpy(self, data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:  # type: ignore[override]
            assert list(data) == ["both"]
            return {"y": data["both"].sum(axis=1)}

    predictor = BatchPredictor(Checkpoint.from_dict({}), Sums)
    predictor.set_preprocessor(chain)
    result = predictor.predict(
        data, feature_columns=["both"], keep_columns=["name"], separate_gpu_stage=separate
    )
    assert sorted((row["name"], row["y"]) for row in result.take_all()) == [(0, -2), (1, 2)]


def test_preprocessor_of_bare_items_finds_them_under_airs_name() -> None:
    class Unpacks(Preprocessor):
        _is_fittable = False

        def _transform_pandas(self, df: pd.DataFrame) -> pd.DataFrame:
            return pd.DataFrame({"x": df["value"] + 1})

    checkpoint = Checkpoint.from_dict({"factor": 2, "_preprocessor": Unpacks()})
    predictor = BatchPredictor(checkpoint, TimesPandas)
    items = ray.data.from_items([1, 2, 3]).repartition(2)
    for separate in (True, False):
        assert column(predictor.predict(items, separate_gpu_stage=separate), "y") == [4, 6, 8]


def worker(predictor_cls: type[Predictor], **how: object) -> ScoringWorker:
    """A worker in this process: a Dataset that fails keeps its actors and CPUs for a while."""
    defaults: dict[str, Any] = {
        "predictor_kwargs": {},
        "own_preprocessor": False,
        "preprocessor": None,
        "feature_columns": [],
        "keep_columns": [],
        "predict_kwargs": {},
    }
    return ScoringWorker(ray.put(Checkpoint.from_dict({})), predictor_cls, **{**defaults, **how})


def test_a_column_that_the_preprocessor_does_not_leave_is_named() -> None:
    batch = pd.DataFrame({"raw": [2], "label": [1], "unused": [0]})
    left = r"no column 'raw' in the batch; it has \['x', 'label', 'made'\]"
    for argument in ("feature_columns", "keep_columns"):
        here = worker(TimesPandas, preprocessor=EvenTwice(), **{argument: ["raw"]})
        with pytest.raises(ConfigError, match=f"{argument}: {left}"):
            here(batch)
    ahead = worker(TimesPandas, feature_columns=["raw"])
    with pytest.raises(ConfigError, match=f"feature_columns: {left}"):
        ahead(EvenTwice()._transform_pandas(batch))


class _HalfFitted(Chain):
    def __init__(self) -> None:
        scaler = StandardScaler(["x"])
        scaler.stats_ = {"mean(x)": 0, "std(x)": 1}
        super().__init__(scaler, LabelEncoder("label"))


class _SaysNothing(Preprocessor):
    def _transform_pandas(self, df: pd.DataFrame) -> pd.DataFrame:
        return df


@pytest.mark.parametrize("separate", [True, False])
@pytest.mark.parametrize(
    ("preprocessor", "says"),
    [
        (StandardScaler(["x"]), r"StandardScaler has not been fitted; call its fit\(dataset\)"),
        (_HalfFitted(), "_HalfFitted has not been fitted"),
        (_SaysNothing(), "_is_fittable = False in class _SaysNothing"),
        (lambda batch: batch, r"got <lambda>.*predict\(dataset\.map_batches\(function\)\)"),
        (StandardScaler, "expected a fitted .*Preprocessor, got StandardScaler"),
        ("scaler", "got str"),
    ],
)
def test_what_cannot_preprocess_is_refused_at_once(
    preprocessor: object, says: str, separate: bool
) -> None:
    predictor = BatchPredictor(Checkpoint.from_dict({"_preprocessor": preprocessor}), TimesPandas)
    with pytest.raises(ConfigError, match=f"preprocessor: .*{says}"):
        predictor.predict(numbers(), separate_gpu_stage=separate)


def test_only_a_preprocessor_can_be_set_and_none_is_the_checkpoints() -> None:
    own, other = AddOne(), AddOne()
    predictor = BatchPredictor(Checkpoint.from_dict({"_preprocessor": own}), TimesPandas)
    with pytest.raises(ConfigError, match="preprocessor: expected"):
        predictor.set_preprocessor(lambda batch: batch)  # type: ignore[arg-type]
    predictor.set_preprocessor(other)
    assert predictor.get_preprocessor() is other
    predictor.set_preprocessor(None)
    assert predictor.get_preprocessor() is own


def test_a_preprocessor_of_the_predictors_own_is_kept_where_there_is_no_other() -> None:
    class Owns(TimesPandas):
        @classmethod
        def from_checkpoint(cls, checkpoint: Checkpoint, **kwargs: float) -> "Owns":
            return cls(1, AddOne())

    assert column(BatchPredictor(Checkpoint.from_dict({}), Owns).predict(numbers(2)), "y") == [1, 2]


@pytest.mark.parametrize("predictor_cls", [TimesPandas, TimesNumpy])
def test_columns_are_kept_only_beside_a_prediction_per_row(predictor_cls: type[Predictor]) -> None:
    class DropsRows(predictor_cls):  # type: ignore[misc, valid-type]
        def predict(self, data: object, **kwargs: object) -> object:
            found = super().predict(data, **kwargs)
            return found[:1] if isinstance(found, pd.DataFrame) else {"y": found["y"][:1]}

    batch = pd.DataFrame({"x": [1, 2, 3], "label": [4, 5, 6]})
    data = batch if predictor_cls is TimesPandas else dict(batch.items())
    assert list(worker(DropsRows)(data)["y"]) == [1]
    with pytest.raises(ConfigError, match="keep_columns: the predictor gave 1 rows for a batch of"):
        worker(DropsRows, keep_columns=["label"])(data)


def test_preprocessor_is_applied_for_a_predictor_that_ignores_the_checkpoints() -> None:
    class Ignores(TimesPandas):
        @classmethod
        def from_checkpoint(cls, checkpoint: Checkpoint, **kwargs: float) -> "Ignores":
            return cls(1)

    predictor = BatchPredictor(Checkpoint.from_dict({"_preprocessor": AddOne()}), Ignores)
    assert column(predictor.predict(numbers(2)), "y") == [1, 2]


def test_pandas_udf_gets_keyword_arguments() -> None:
    predictor = BatchPredictor.from_pandas_udf(lambda df, by: pd.DataFrame({"y": df["x"] * by}))
    assert column(predictor.predict(numbers(3), by=7), "y") == [0, 7, 14]


def test_use_gpu_is_passed_when_gpus_are_asked_for() -> None:
    checkpoint = Checkpoint.from_dict({})
    assert BatchPredictor(checkpoint, ReportsGpu)._kwargs_for(1) == {"use_gpu": True}
    assert BatchPredictor(checkpoint, ReportsGpu)._kwargs_for(0) == {}
    assert BatchPredictor(checkpoint, ReportsGpu, use_gpu=False)._kwargs_for(1)["use_gpu"] is False
    assert BatchPredictor(checkpoint, TimesPandas)._kwargs_for(1) == {}


def test_scoring_workers_bound_the_actor_pool() -> None:
    predictor = BatchPredictor(Checkpoint.from_dict({}), TimesPandas)
    result = predictor.predict(
        numbers(), min_scoring_workers=2, max_scoring_workers=2, num_cpus_per_worker=0.5
    )
    operator: Any = result._logical_plan.dag
    compute = operator.compute
    assert (compute.min_size, compute.max_size, compute.initial_size) == (2, 2, 2)
    assert column(result, "y") == list(range(6))


def test_callers_arguments_are_not_mutated() -> None:
    data = {"factor": 2}
    kwargs, remote_args, keep = {"factor": 3}, {"max_retries": 1}, ["label"]
    predictor = BatchPredictor(Checkpoint.from_dict(data), TimesPandas, **kwargs)
    predictor.predict(
        numbers(), keep_columns=keep, ray_remote_args=remote_args, num_gpus_per_worker=0
    )
    assert (data, kwargs, remote_args, keep) == (
        {"factor": 2},
        {"factor": 3},
        {"max_retries": 1},
        ["label"],
    )


def test_repr_fits_a_line() -> None:
    data = {f"a rather long key {number}": number for number in range(30)}
    text = repr(BatchPredictor(Checkpoint.from_dict(data), TimesPandas))
    assert "TimesPandas" in text
    assert len(text) < 160
    assert "\n" not in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"batch_size": 0}, "batch_size: expected a whole number above 0 or None, got 0"),
        ({"batch_size": "8"}, "batch_size"),
        ({"feature_columns": ["nope"]}, "feature_columns: no column 'nope'"),
        ({"keep_columns": ["nope"]}, "keep_columns: no column 'nope'"),
        ({"keep_columns": "label"}, r"\['label'\]"),
        ({"min_scoring_workers": 3, "max_scoring_workers": 2}, "max_scoring_workers: 2 is below 3"),
        ({"min_scoring_workers": 0}, "min_scoring_workers"),
        ({"max_scoring_workers": 1.5}, "max_scoring_workers: expected a whole number.*got 1.5"),
        ({"num_cpus_per_worker": -1}, "num_cpus_per_worker: expected a number of 0 or more"),
        ({"num_gpus_per_worker": "1"}, "num_gpus_per_worker: expected a number"),
        ({"ray_remote_args": {"batch_size": 8}}, "ray_remote_args: 'batch_size' is not for"),
    ],
)
def test_arguments_that_make_no_sense_are_named(arguments: dict[str, Any], says: str) -> None:
    predictor = BatchPredictor(Checkpoint.from_dict({}), TimesPandas)
    with pytest.raises(ConfigError, match=says.replace("is below 3", "is below min")):
        predictor.predict(numbers(), **arguments)


def test_workers_ask_for_what_is_said_by_name_or_else_in_the_remote_arguments() -> None:
    assert _resources(None, None, {}) == {"num_cpus": 1, "num_gpus": 0}
    assert _resources(None, 0.5, {}) == {"num_cpus": 0, "num_gpus": 0.5}
    assert _resources(None, None, {"num_gpus": 1}) == {"num_cpus": 0, "num_gpus": 1}
    assert _resources(2, 0, {"num_cpus": 3, "num_gpus": 1}) == {"num_cpus": 2, "num_gpus": 0}


def test_predict_pipelined_says_what_to_call() -> None:
    predictor = BatchPredictor(Checkpoint.from_dict({}), TimesPandas)
    with pytest.raises(ConfigError, match="Call predict with the same arguments, without blocks"):
        predictor.predict_pipelined(numbers(), blocks_per_window=2)


def test_what_is_no_dataset_checkpoint_or_predictor_is_refused() -> None:
    data = pd.DataFrame({"x": [1]})
    with pytest.raises(ConfigError, match=r"ray\.data\.from_pandas|from_items"):
        BatchPredictor(Checkpoint.from_dict({}), TimesPandas).predict(data)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="checkpoint: expected a Checkpoint, got dict"):
        BatchPredictor({}, TimesPandas)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="predictor_cls"):
        BatchPredictor(Checkpoint.from_dict({}), TimesPandas(1))  # type: ignore[arg-type]


def test_notebook_part_4_runs_with_its_two_imports_changed(tmp_path: Path) -> None:
    """The cells of the notebook's Part 4, over bare PIL images and a model that has been used."""
    from typing import Any

    import torch
    from transformers import SegformerForSemanticSegmentation
    from transformers.models.segformer.image_processing_pil_segformer import (
        SegformerImageProcessorPil,
    )

    from job import predict_sequential

    make_model(tmp_path, labels=LABELS)
    segformer = SegformerForSemanticSegmentation.from_pretrained(tmp_path)
    segformer_feature_extractor = SegformerImageProcessorPil.from_pretrained(tmp_path)
    data = [Image.fromarray(picture(seed, 40 + seed, 60)) for seed in range(5)]
    expected = predict_sequential(data, segformer, segformer_feature_extractor)

    class SemanticSegmentationPredictor(Predictor):
        def __init__(self, model: Any, feature_extractor: Any) -> None:
            super().__init__()
            self.model = model
            self.feature_extractor = feature_extractor

        def _predict_pandas(self, batch: Any) -> Any:  # type: ignore[override]
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            self.model.to(device)
            self.model.eval()
            batch = [batch["value"][0]]
            inputs = self.feature_extractor(images=batch, return_tensors="pt")
            with torch.no_grad():
                outputs = self.model(pixel_values=inputs.pixel_values.to(device))
            image_sizes = [image.size[::-1] for image in batch]
            segmentation_maps_postprocessed = (
                self.feature_extractor.post_process_semantic_segmentation(
                    outputs=outputs, target_sizes=image_sizes
                )
            )
            df = pd.DataFrame(columns=["segmentation_maps"])
            df.loc[0, "segmentation_maps"] = segmentation_maps_postprocessed
            return df

        @classmethod
        def from_checkpoint(
            self,  # noqa: N804 (as in the notebook)
            checkpoint: Checkpoint,
            **kwargs: Any,
        ) -> "SemanticSegmentationPredictor":
            checkpoint_data = checkpoint.to_dict()
            return SemanticSegmentationPredictor(
                model=checkpoint_data["model"],
                feature_extractor=checkpoint_data["feature_extractor"],
            )

    dataset = ray.data.from_items(data)
    batch_predictor = BatchPredictor(
        checkpoint=Checkpoint.from_dict(
            {"model": segformer, "feature_extractor": segformer_feature_extractor}
        ),
        predictor_cls=SemanticSegmentationPredictor,
    )
    predictions_dataset = batch_predictor.predict(data=dataset, batch_size=1)
    assert len(predictions_dataset.take(limit=1)) == 1
    found = [row["segmentation_maps"] for row in predictions_dataset.take_all()]
    found = [np.asarray(maps[0] if isinstance(maps, list) else maps) for maps in found]
    assert len(found) == len(expected)
    assert {array.shape for array in found} == {array.shape for array in expected}
    for array in expected:
        assert any(np.array_equal(array, other) for other in found)
