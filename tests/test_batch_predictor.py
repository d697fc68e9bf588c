"""The BatchPredictor contract, as Ray AIR documented it."""

import numpy as np
import pandas as pd
import pytest
import ray
from PIL import Image
from ray.data.preprocessor import Preprocessor

from job import BatchPredictor, Checkpoint, Predictor
from job.errors import ConfigError
from tests.conftest import LABELS, make_model, picture

pytestmark = pytest.mark.usefixtures("ray_session")


class AddOne(Preprocessor):
    _is_fittable = False

    def _transform_pandas(self, df: pd.DataFrame) -> pd.DataFrame:
        return df.assign(x=df["x"] + 1)


class TimesPandas(Predictor):
    def __init__(self, factor: float, preprocessor: Preprocessor | None = None) -> None:
        super().__init__(preprocessor)
        self.factor = factor

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, **kwargs: float) -> "TimesPandas":
        factor = kwargs.get("factor", checkpoint.to_dict().get("factor", 1))
        return cls(factor, checkpoint.get_preprocessor())

    def _predict_pandas(self, data: pd.DataFrame, plus: float = 0) -> pd.DataFrame:
        return pd.DataFrame({"y": data["x"] * self.factor + plus, "columns": len(data.columns)})


class TimesNumpy(TimesPandas):
    def _predict_numpy(self, data: dict[str, np.ndarray], plus: float = 0) -> dict[str, np.ndarray]:
        assert isinstance(data, dict)
        return {"y": data["x"] * self.factor + plus}


class ReportsGpu(Predictor):
    def __init__(self, use_gpu: bool) -> None:
        super().__init__()
        self.use_gpu = use_gpu

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, use_gpu: bool = False) -> "ReportsGpu":
        return cls(use_gpu)

    def _predict_pandas(self, data: pd.DataFrame) -> pd.DataFrame:
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


@pytest.mark.parametrize("separate", [None, True, False])
def test_checkpoint_preprocessor_is_applied_exactly_once(separate: bool | None) -> None:
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
    compute = result._logical_plan.dag.compute
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
    ],
)
def test_arguments_that_make_no_sense_are_named(arguments: dict[str, object], says: str) -> None:
    predictor = BatchPredictor(Checkpoint.from_dict({}), TimesPandas)
    with pytest.raises(ConfigError, match=says.replace("is below 3", "is below min")):
        predictor.predict(numbers(), **arguments)


def test_what_is_no_dataset_checkpoint_or_predictor_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ray\.data\.from_pandas|from_items"):
        BatchPredictor(Checkpoint.from_dict({}), TimesPandas).predict(pd.DataFrame({"x": [1]}))
    with pytest.raises(ConfigError, match="checkpoint: expected a Checkpoint, got dict"):
        BatchPredictor({}, TimesPandas)
    with pytest.raises(ConfigError, match="predictor_cls"):
        BatchPredictor(Checkpoint.from_dict({}), TimesPandas(1))


def test_notebook_part_4_runs_with_its_two_imports_changed(tmp_path: object) -> None:
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

        def _predict_pandas(self, batch: pd.DataFrame) -> pd.DataFrame:
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
