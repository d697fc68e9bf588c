"""Architectures: the ways of batch inference that the job is compared with, each as it is taught.

Every one calls the same sequential prediction or the same Hugging Face parts; they differ in how
the work is handed out. Each takes encoded images and yields (number of the image, map) as maps
arrive.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import ray
from PIL import Image

from job.images.decode import decode, to_array
from job.models.checkpoint import Checkpoint
from job.models.families import family_of
from job.models.loading import load_model
from job.models.processors import fixed_size
from job.predict.batch_predictor import BatchPredictor
from job.predict.predictor import Predictor
from job.predict.segmentation import SemanticSegmentationPredictor
from job.predict.sequential import post_process, predict_sequential

if TYPE_CHECKING:
    from job.models.forward import Precision

Maps = Iterator[tuple[int, np.ndarray]]

_IMAGES_PER_TASK = 8
_CAREFUL_BATCH = 16


def sequential(files: Sequence[bytes], checkpoint: Checkpoint) -> Maps:
    """One image after another, in this process: the notebook's Part 3."""
    model, image_processor = load_model(checkpoint)
    for number, data in enumerate(files):
        (segmented,) = predict_sequential([decode(data)], model, image_processor)
        yield number, segmented


def ray_tasks(files: Sequence[bytes], checkpoint: Checkpoint) -> Maps:
    """A Ray task for every few images; each loads the model anew."""
    shipped = ray.put(checkpoint)

    @ray.remote
    def segment(part: list[bytes], checkpoint: Checkpoint) -> list[np.ndarray]:
        model, image_processor = load_model(checkpoint)
        return predict_sequential([decode(data) for data in part], model, image_processor)

    starts = range(0, len(files), _IMAGES_PER_TASK)
    tasks = {
        segment.remote(list(files[start : start + _IMAGES_PER_TASK]), shipped): start
        for start in starts
    }
    yield from _as_they_come(tasks)


def ray_actors(files: Sequence[bytes], checkpoint: Checkpoint) -> Maps:
    """A pool of Ray actors, one per CPU; each loads the model once."""
    shipped = ray.put(checkpoint)

    @ray.remote
    class Segmenter:
        def __init__(self, checkpoint: Checkpoint) -> None:
            self.model, self.image_processor = load_model(checkpoint)

        def segment(self, part: list[bytes]) -> list[np.ndarray]:
            images = [decode(data) for data in part]
            return predict_sequential(images, self.model, self.image_processor)

    workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
    pool = [Segmenter.remote(shipped) for _ in range(workers)]  # type: ignore[attr-defined]
    tasks = {}
    for turn, start in enumerate(range(0, len(files), _IMAGES_PER_TASK)):
        part = list(files[start : start + _IMAGES_PER_TASK])
        tasks[pool[turn % workers].segment.remote(part)] = start
    yield from _as_they_come(tasks)


def _as_they_come(tasks: dict[Any, int]) -> Maps:
    waiting = list(tasks)
    while waiting:
        (ready,), waiting = ray.wait(waiting)
        for offset, segmented in enumerate(ray.get(ready)):
            yield tasks[ready] + offset, segmented


class _NotebookPredictor(Predictor):
    """The predictor of the notebook's Part 4: one image to a batch, everything in the actor."""

    def __init__(self, model: Any, feature_extractor: Any) -> None:
        super().__init__()
        self.model = model
        self.feature_extractor = feature_extractor

    def _predict_pandas(self, data: pd.DataFrame, **kwargs: Any) -> pd.DataFrame:
        image = data["image"].iloc[0]
        maps = predict_sequential([image], self.model, self.feature_extractor)
        return pd.DataFrame({"number": data["number"], "segmentation_maps": maps})

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, **kwargs: Any) -> "_NotebookPredictor":
        data = checkpoint.to_dict()
        return cls(data["model"], data["feature_extractor"])


def notebook_batch_predictor(files: Sequence[bytes], checkpoint: Checkpoint) -> Maps:
    """BatchPredictor over a Dataset of decoded images, batch size 1: the notebook's Part 4."""
    model, feature_extractor = load_model(checkpoint)
    predictor = BatchPredictor(
        Checkpoint.from_dict({"model": model, "feature_extractor": feature_extractor}),
        _NotebookPredictor,
    )
    dataset = ray.data.from_items(
        [{"number": number, "image": decode(data)} for number, data in enumerate(files)]
    )
    for row in predictor.predict(data=dataset, batch_size=1).iter_rows():
        yield int(row["number"]), np.asarray(row["segmentation_maps"])


class _Careful:
    """The stock processor, model and post-processing on a batch, the model loaded once."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.model, self.image_processor = load_model(checkpoint)
        self.model.eval()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        import torch

        images = [Image.fromarray(np.asarray(image)) for image in batch["image"]]
        inputs = self.image_processor(images=images, return_tensors="pt")
        with torch.inference_mode():
            outputs = self.model(pixel_values=inputs.pixel_values.to(self.model.device))
        sizes = [(image.height, image.width) for image in images]
        maps = post_process(outputs, family_of(self.model.config), self.image_processor, sizes)
        column = np.empty(len(maps), object)
        for row, segmented in enumerate(maps):
            column[row] = segmented.to(torch.uint8).cpu().numpy()
        return {"number": batch["number"], "map": column}


def map_batches(files: Sequence[bytes], checkpoint: Checkpoint) -> Maps:
    """Ray Data's ``map_batches`` as a careful user writes it: decode, then batches of 16."""

    def decoded(row: dict[str, Any]) -> dict[str, Any]:
        return {"number": row["number"], "image": np.asarray(decode(row["data"]))}

    dataset = ray.data.from_items(
        [{"number": number, "data": data} for number, data in enumerate(files)]
    ).map(decoded)
    segmented = dataset.map_batches(
        _Careful,
        fn_constructor_args=(checkpoint,),
        batch_size=_CAREFUL_BATCH,
        compute=ray.data.ActorPoolStrategy(size=1),
    )
    for row in segmented.iter_rows():
        yield int(row["number"]), np.asarray(row["map"])


def prediction_alone(
    files: Sequence[bytes], checkpoint: Checkpoint, precision: "Precision", workers: int
) -> Maps:
    """This job's predictors on images that are decoded already: what the rest can keep up with."""
    _, image_processor = load_model(checkpoint)
    size = fixed_size(image_processor)
    rows = []
    for number, data in enumerate(files):
        image = decode(data)
        pixels = to_array(size.resize(image) if size else image)
        shape = {"height": image.height, "width": image.width}
        rows.append({"number": number, "image": pixels, **shape})
    dataset = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // _IMAGES_PER_TASK))
    predictor = BatchPredictor(
        checkpoint, SemanticSegmentationPredictor, threads=1, precision=precision
    )
    segmented = predictor.predict(
        dataset.materialize(),
        feature_columns=["image", "height", "width"],
        keep_columns=["number"],
        batch_size=_IMAGES_PER_TASK,
        min_scoring_workers=workers,
        max_scoring_workers=workers,
        num_cpus_per_worker=0.5,
    )
    for row in segmented.iter_rows():
        yield int(row["number"]), np.asarray(row["map"])
