"""Segmentation: the predictor equals sequential inference, whatever image, processor or model."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from fsspec.spec import AbstractFileSystem
from PIL import Image
from transformers import (
    AutoModelForSemanticSegmentation,
    SegformerConfig,
    SegformerForImageClassification,
    SegformerForSemanticSegmentation,
    SegformerModel,
)
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

from job import Checkpoint, SemanticSegmentationPredictor, predict_sequential
from job.errors import ModelError
from job.images.loader import ImageLoader
from job.images.resize import ModelSize
from job.inputs.listed_files import ListedFiles
from job.inputs.listing import list_objects
from job.limits import RetryPolicy
from job.models.forward import Forward, stock
from job.models.info import ModelInfo
from job.models.loading import load_model
from job.models.processors import fixed_size, load_image_processor
from job.storage.opening import locate
from tests.conftest import LABELS, PHOTOS, make_model, needs_photos, picture
from tests.tiny_models import BUILDS

SIZES = [(1, 1), (1, 300), (300, 1), (96, 96), (95, 97), (24, 24), (57, 183), (400, 30), (2, 2)]


@pytest.fixture(scope="module")
def loaded(model_dir: Path) -> tuple[Any, Any]:
    return load_model(Checkpoint.from_directory(model_dir))


@pytest.fixture
def folder(model_dir: Path, tmp_path: Path) -> Path:
    """A model's directory that a test may change."""
    return shutil.copytree(model_dir, tmp_path / "model")


def pictures(sizes: list[tuple[int, int]]) -> list[np.ndarray]:
    return [picture(seed, *size).copy() for seed, size in enumerate(sizes)]


def sequential(images: list[np.ndarray], model: Any, processor: Any) -> list[np.ndarray]:
    """The maps of the reference, of Pillow images as the notebook has them."""
    return predict_sequential([Image.fromarray(image) for image in images], model, processor)


def batch(images: list[np.ndarray], **columns: Any) -> dict[str, np.ndarray]:
    column = np.empty(len(images), object)
    for row, image in enumerate(images):
        column[row] = image
    return {"image": column, **columns}


def check_equal(found: Any, expected: list[np.ndarray]) -> None:
    """Every map has the pixels of the reference."""
    assert list(found["error"]) == [None] * len(expected)
    for ids, reference in zip(found["map"], expected, strict=True):
        assert ids.dtype == np.uint8
        assert ids.shape == reference.shape
        assert np.array_equal(ids, reference), f"{(ids != reference).sum()} of {ids.shape}"


# Equal to sequential inference


@pytest.mark.parametrize("reference", [True, False])
def test_maps_equal_sequential_inference_in_every_pixel(
    loaded: tuple[Any, Any], reference: bool
) -> None:
    images = pictures(SIZES)
    predictor = SemanticSegmentationPredictor(*loaded, reference=reference)
    found = predictor.predict(batch(images))
    check_equal(found, sequential(images, *loaded))
    assert ((found["confidence"] > 0.2) & (found["confidence"] <= 1)).all()
    assert found["confidence"].dtype == np.float32


@pytest.mark.parametrize("images_at_once", [2, 3, 16])
def test_several_images_in_one_pass_give_the_maps_of_each_alone(
    loaded: tuple[Any, Any], images_at_once: int
) -> None:
    images = pictures(SIZES)
    predictor = SemanticSegmentationPredictor(*loaded, images_at_once=images_at_once)
    check_equal(predictor.predict(batch(images)), sequential(images, *loaded))


def listed(uris: list[str]) -> dict[str, np.ndarray]:
    """Rows of a manifest that knows nothing but where images are."""
    unknown = np.full(len(uris), None, object)
    return {
        "id": np.arange(len(uris)),
        "uri": np.array(uris, object),
        "part": unknown,
        "size": unknown,
        "etag": unknown,
    }


def test_objects_that_are_too_large_are_not_even_fetched(tmp_path: Path) -> None:
    loader = ImageLoader(ListedFiles(str(tmp_path)), ModelSize(8, 8, 2), byte_limit=1000)
    rows = listed([str(tmp_path / "nowhere.png")])
    rows["size"] = np.array([1001])
    (reason,) = loader.transform_batch(rows)["error"]
    assert (reason["stage"], reason["error_type"]) == ("fetch", "too_large")
    assert "1,001 bytes, over the limit of 1,000; raise --byte-limit" in reason["message"]


def test_an_object_that_was_replaced_since_it_was_listed_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(pictures([(4, 4)])[0]).save(path)
    (found,) = list_objects(locate(str(path)))
    rows = listed([str(path)])
    rows["size"], rows["etag"] = np.array([found.size]), np.array([found.etag], object)
    loader = ImageLoader(ListedFiles(str(tmp_path)), ModelSize(8, 8, 2))
    assert list(loader.transform_batch(rows)["error"]) == [None]
    Image.fromarray(pictures([(6, 5)])[0]).save(path)
    (reason,) = loader.transform_batch(rows)["error"]
    assert (reason["stage"], reason["error_type"]) == ("fetch", "changed")


def test_sizes_of_which_some_are_unknown_are_those_that_are_known(tmp_path: Path) -> None:
    for name in "ab":
        Image.fromarray(pictures([(4, 4)])[0]).save(tmp_path / f"{name}.png")
    rows = listed([str(tmp_path / "a.png"), str(tmp_path / "b.png")])
    rows["size"] = np.array([np.nan, 2000.0])  # as Ray makes it of a column with a null
    loader = ImageLoader(ListedFiles(str(tmp_path)), ModelSize(8, 8, 2), byte_limit=1000)
    first, second = loader.transform_batch(rows)["error"]
    assert first is None
    assert second["error_type"] == "too_large"


class Stuck(AbstractFileSystem):
    """A storage that does not answer."""

    protocol = "stuck"

    def cat_file(self, path: str, **options: Any) -> bytes:
        time.sleep(20)
        return b""


def test_a_fetch_that_hangs_is_given_up() -> None:
    fsspec.register_implementation(Stuck.protocol, Stuck, clobber=True)
    loader = ImageLoader(ListedFiles("stuck://in"), ModelSize(8, 8, 2), timeout=0.5)
    started = time.monotonic()
    rows = loader.transform_batch(listed(["stuck://in/a.png", "stuck://in/b.png"]))
    assert time.monotonic() - started < 10
    for reason in rows["error"]:
        assert (reason["error_type"], reason["retryable"]) == ("timed_out", True)


def test_images_that_the_loader_has_resized_give_the_same_maps(
    loaded: tuple[Any, Any], tmp_path: Path
) -> None:
    images = pictures(SIZES)
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    (tmp_path / "zero.png").write_bytes(b"")
    names = [*(f"{number}.png" for number in range(len(images))), "zero.png", "gone.png"]
    loader = ImageLoader(ListedFiles(str(tmp_path)), fixed_size(loaded[1]))
    rows = loader.transform_batch(listed([str(tmp_path / name) for name in names]))
    assert rows["image"].shape == (len(names), 96, 96, 3)
    reasons = list(rows["error"][-2:])
    assert [reason["error_type"] for reason in reasons] == ["empty", "missing"]
    assert [reason["stage"] for reason in reasons] == ["decode", "fetch"]
    found = arrays(SemanticSegmentationPredictor(*loaded).predict(rows))
    assert list(found["error"][-2:]) == list(rows["error"][-2:]), "passed on as they are"
    assert np.isnan(found["confidence"][-2:]).all()
    good = {name: column[:-2] for name, column in found.items()}
    check_equal(good, sequential(images, *loaded))


def arrays(batch: object) -> dict[str, np.ndarray]:
    """A batch that has to be columns of arrays."""
    assert isinstance(batch, dict)
    return batch


def test_a_storage_that_stops_to_answer_leaves_images_undone() -> None:
    options = {"endpoint_url": "http://127.0.0.1:1", "key": "k", "secret": "s"}
    source = ListedFiles("s3://bucket/in", options, RetryPolicy(attempts=2, timeout=2))
    loader = ImageLoader(source, ModelSize(8, 8, 2))
    rows = arrays(loader.transform_batch(listed(["s3://bucket/in/a.jpg", "s3://bucket/in/b.jpg"])))
    assert [len(column) for column in rows.values()] == [0] * 6


def test_a_batch_of_equal_images_or_of_none_is_a_batch(loaded: tuple[Any, Any]) -> None:
    predictor = SemanticSegmentationPredictor(*loaded)
    stacked = np.stack(pictures([(20, 30)] * 2))
    check_equal(predictor.predict({"image": stacked}), sequential(list(stacked), *loaded))
    nothing = arrays(predictor.predict({"image": np.empty((0, 96, 96, 3), np.uint8)}))
    assert [len(column) for column in nothing.values()] == [0, 0, 0]


@needs_photos
def test_the_published_processor_of_ade20k_loads_and_is_exact(
    model_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(model_dir, tmp_path / "model")
    shutil.copy(PHOTOS / "segformer" / "preprocessor_config.json", tmp_path / "model")
    model, processor = load_model(Checkpoint.from_directory(tmp_path / "model"))
    assert type(processor).__name__ == "SegformerImageProcessorPil"
    assert fixed_size(processor) == ModelSize(512, 512, 2)
    images = pictures([(40, 60)])
    predictor = SemanticSegmentationPredictor(model, processor)
    check_equal(predictor.predict(batch(images)), sequential(images, model, processor))


@pytest.mark.parametrize(
    ("options", "known"),
    [
        ({"size": {"height": 96, "width": 64}}, True),
        ({"size": {"height": 64, "width": 96}, "resample": 3}, True),
        ({"size": {"height": 64, "width": 64}, "resample": 1}, True),
        ({"size": {"height": 64, "width": 64}, "resample": 0}, True),
        ({"size": {"height": 64, "width": 64}, "do_rescale": False}, True),
        ({"size": {"height": 64, "width": 64}, "do_normalize": False}, True),
        ({"size": {"height": 64, "width": 64}, "rescale_factor": 0.5}, True),
        ({"size": {"height": 64, "width": 64}, "image_mean": [0.1, 0.2, 0.3]}, True),
        ({"size": {"shortest_edge": 64}}, False),
        ({"do_resize": False}, False),
        ({"size": {"height": 64, "width": 64}, "do_pad": True, "pad_size": None}, False),
        (
            {
                "size": {"height": 80, "width": 80},
                "do_center_crop": True,
                "crop_size": {"height": 64, "width": 64},
            },
            False,
        ),
    ],
    ids=str,
)
def test_any_settings_of_the_processor_give_the_maps_of_sequential_inference(
    loaded: tuple[Any, Any], options: dict[str, Any], known: bool
) -> None:
    processor = SegformerImageProcessorPil(**options)
    assert (fixed_size(processor) is not None) == known
    images = pictures([(64, 64), (70, 90), (121, 64)])
    predictor = SemanticSegmentationPredictor(loaded[0], processor, reference=True)
    expected = sequential(images, loaded[0], processor)
    check_equal(predictor.predict(batch(images)), expected)


def test_a_processor_of_the_callers_own_class_is_run_as_it_is() -> None:
    class Careful(SegformerImageProcessorPil):
        """May do anything besides."""

    assert fixed_size(SegformerImageProcessorPil()) == ModelSize(512, 512, 2)
    assert fixed_size(Careful()) is None


@pytest.mark.parametrize("height", [1, 2, 3, 4])
def test_a_few_rows_of_pixels_are_not_taken_for_channels(
    loaded: tuple[Any, Any], height: int
) -> None:
    """A (3, width, 3) array has its channels last, whatever a processor may guess."""
    processor = SegformerImageProcessorPil(size={"shortest_edge": 48})
    images = pictures([(height, 40)])
    predictor = SemanticSegmentationPredictor(loaded[0], processor, reference=True)
    check_equal(predictor.predict(batch(images)), sequential(images, loaded[0], processor))


@pytest.mark.parametrize("family", ["beit", "mobilevit"])
def test_other_architectures_predict_what_sequential_inference_gives(
    family: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    configured, settings = BUILDS[family]
    model = AutoModelForSemanticSegmentation.from_config(configured(5))
    model.eval().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    checkpoint = Checkpoint.from_model(str(tmp_path))
    card = ModelInfo.of(checkpoint)
    assert len(card.labels) == 5
    assert card.size is None
    images = pictures([(64, 64), (33, 80), (90, 41)])
    expected = sequential(images, *load_model(checkpoint))
    predictor = SemanticSegmentationPredictor.from_checkpoint(checkpoint, images_at_once=4)
    check_equal(predictor.predict(batch(images)), expected)


# What goes wrong


def predictor_with(
    loaded: tuple[Any, Any], before: Callable[[torch.Tensor], None], images_at_once: int = 8
) -> SemanticSegmentationPredictor:
    """A predictor whose model first does something with what it is given."""
    model, processor = loaded

    def scores(pixels: torch.Tensor) -> torch.Tensor:
        before(pixels)
        return model(pixel_values=pixels).logits

    return SemanticSegmentationPredictor(
        model, processor, forward=Forward(scores, "float32"), images_at_once=images_at_once
    )


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("out of memory"),
        MemoryError(),
    ],
)
def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    loaded: tuple[Any, Any], error: BaseException
) -> None:
    tried = []

    def only_two_fit(pixels: torch.Tensor) -> None:
        tried.append(len(pixels))
        if len(pixels) > 2:
            raise error

    images = pictures(SIZES[:8])
    predictor = predictor_with(loaded, only_two_fit)
    assert tried == [1], "it has tried itself out"
    found = predictor.predict(batch(images))
    check_equal(found, sequential(images, *loaded))
    assert tried[1:] == [8, 4, 2, 2, 4, 2, 2]


def test_compiled_code_gives_way_when_a_full_batch_does_not_fit(loaded: tuple[Any, Any]) -> None:
    model, image_processor = loaded
    plain, tried = stock(model), []

    def compiled(pixels: torch.Tensor) -> torch.Tensor:
        tried.append(len(pixels))
        if len(tried) > 1:  # the first is the predictor trying itself out
            raise torch.OutOfMemoryError("out of memory")
        return plain.scores(pixels)

    forward = replace(plain, scores=compiled, uncompiled=plain)
    images = pictures(SIZES[:6])
    predictor = SemanticSegmentationPredictor(
        model, image_processor, forward=forward, images_at_once=4
    )
    check_equal(predictor.predict(batch(images)), sequential(images, *loaded))
    assert tried == [4, 4], "padded to full batches, and not tried again"


def test_one_image_that_does_not_fit_fails_alone(loaded: tuple[Any, Any]) -> None:
    images = pictures([(50, 50)] * 5)
    images[2][:] = 255

    def white_does_not_fit(pixels: torch.Tensor) -> None:
        if any(image.min() > 2 for image in pixels):
            raise RuntimeError("out of memory")

    found = predictor_with(loaded, white_does_not_fit).predict(batch(images))
    assert [bool(error) for error in found["error"]] == [False, False, True, False, False]
    reason = found["error"][2]
    assert (reason["stage"], reason["error_type"]) == ("predict", "out_of_memory")
    assert found["map"][2].shape == (1, 1)
    assert np.isnan(found["confidence"][2])
    for row, expected in enumerate(sequential(images, *loaded)):
        assert row == 2 or np.array_equal(found["map"][row], expected)


def test_an_image_that_the_model_refuses_fails_alone(loaded: tuple[Any, Any]) -> None:
    images = pictures([(50, 50)] * 3)
    images[0][:] = 0

    def no_black(pixels: torch.Tensor) -> None:
        if any(image.max() < -1 for image in pixels):
            raise ValueError("black is no colour")

    found = predictor_with(loaded, no_black).predict(batch(images))
    assert [bool(error) for error in found["error"]] == [True, False, False]
    reason = found["error"][0]
    assert reason["error_type"] == "not_predictable"
    assert "black is no colour" in reason["message"]


def test_an_image_too_small_for_a_processor_that_keeps_its_size_fails_alone(
    loaded: tuple[Any, Any],
) -> None:
    processor = SegformerImageProcessorPil(do_resize=False)
    images = pictures([(64, 64), (1, 1), (70, 64)])
    found = SemanticSegmentationPredictor(loaded[0], processor).predict(batch(images))
    assert [bool(error) for error in found["error"]][::2] == [False, False]


def test_another_error_of_the_model_ends_the_run(loaded: tuple[Any, Any]) -> None:
    tried = []

    def broken(pixels: torch.Tensor) -> None:
        tried.append(pixels)
        if len(tried) > 1:  # the first is the predictor trying itself out
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        predictor_with(loaded, broken).predict(batch(pictures([(5, 5)])))


def test_a_model_that_refuses_a_plain_picture_is_refused_when_it_is_loaded(
    loaded: tuple[Any, Any],
) -> None:
    def broken(pixels: torch.Tensor) -> None:
        raise TypeError("expected 4 channels")

    with pytest.raises(ModelError, match=r"plain grey picture \(expected 4 channels\)") as refused:
        predictor_with(loaded, broken)
    assert refused.value.exit_code == 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda logits: logits[:, :4], "scores for 4 classes, and its id2label names 5"),
        (lambda logits: logits[:, :1], "scores for 1 classes, and its id2label names 5"),
        (lambda logits: logits * torch.inf, r"not finite, in float32\. Its weights are damaged$"),
    ],
)
def test_scores_that_do_not_fit_the_labels_are_found_when_the_model_is_loaded(
    loaded: tuple[Any, Any], change: Callable[[torch.Tensor], torch.Tensor], says: str
) -> None:
    plain = stock(loaded[0])
    forward = replace(plain, scores=lambda pixels: change(plain.scores(pixels)))
    with pytest.raises(ModelError, match=says):
        SemanticSegmentationPredictor(*loaded, forward=forward)


def test_scores_that_overflow_in_half_precision_may_not_in_float32(
    loaded: tuple[Any, Any],
) -> None:
    plain = stock(loaded[0])
    scores = lambda pixels: plain.scores(pixels) * torch.inf  # noqa: E731
    forward = replace(plain, scores=scores, precision="bfloat16")
    with pytest.raises(ModelError, match=r"in bfloat16.* or overflow.*--precision float32$"):
        SemanticSegmentationPredictor(*loaded, forward=forward)


def test_the_reference_takes_one_image_at_a_time(loaded: tuple[Any, Any]) -> None:
    plain, taken = stock(loaded[0]), []

    def scores(pixels: torch.Tensor) -> torch.Tensor:
        taken.append(len(pixels))
        return plain.scores(pixels)

    images = pictures(SIZES[:4])
    for reference, expected in ((True, [1, 1, 1, 1]), (False, [4])):
        predictor = SemanticSegmentationPredictor(
            *loaded, forward=replace(plain, scores=scores), reference=reference, images_at_once=4
        )
        taken.clear()
        predictor.predict(batch(images))
        assert taken == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a torch that sees no GPU")
def test_a_gpu_that_is_not_there_is_a_model_error(model_dir: Path) -> None:
    checkpoint = Checkpoint.from_directory(model_dir)
    with pytest.raises(ModelError, match=r"sees none on .*, or use --gpus-per-worker 0"):
        SemanticSegmentationPredictor.from_checkpoint(checkpoint, use_gpu=True)


# Models


def test_a_dict_of_model_and_processor_is_a_checkpoint_too(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    checkpoint = Checkpoint.from_dict({"model": model, "image_processor": processor})
    images = pictures([(30, 40)])
    found = SemanticSegmentationPredictor.from_checkpoint(checkpoint).predict(batch(images))
    check_equal(found, sequential(images, model, processor))


def test_a_card_tells_labels_size_and_origin(model_dir: Path) -> None:
    checkpoint = Checkpoint.from_model(str(model_dir))
    card = ModelInfo.of(checkpoint)
    assert card.labels == tuple(name.strip() for name in LABELS)
    assert card.size == ModelSize(96, 96, 2)
    assert card.origin == checkpoint.origin
    with pytest.raises(ModelError, match=r"was not made by Checkpoint\.from_model"):
        ModelInfo.of(Checkpoint.from_directory(model_dir))


def tiny_config() -> SegformerConfig:
    return SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], num_attention_heads=[1, 1, 2, 4]
    )


@pytest.mark.parametrize("kind", [SegformerForImageClassification, SegformerModel])
def test_a_model_that_is_not_for_segmentation_is_refused(kind: type[Any], folder: Path) -> None:
    kind(tiny_config()).save_pretrained(folder)
    checkpoint = Checkpoint.from_model(str(folder))
    for use in (ModelInfo.of, load_model):
        with pytest.raises(ModelError, match=f"not a semantic-segmentation .*{kind.__name__}"):
            use(checkpoint)


def test_weights_of_another_model_under_the_right_name_are_refused(folder: Path) -> None:
    wanted = json.loads((folder / "config.json").read_text())
    SegformerForImageClassification(tiny_config()).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(wanted))
    with pytest.raises(ModelError, match=r"lacks \d+ weights .*decode_head"):
        load_model(Checkpoint.from_model(str(folder)))


def test_weights_of_other_shapes_are_refused(folder: Path, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other", labels=("a", "b", "c"))
    shutil.copy(other / "model.safetensors", folder)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(Checkpoint.from_model(str(folder)))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_weights_that_are_cut_short_are_a_model_error(folder: Path, share: float) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: int(len(weights) * share)])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(Checkpoint.from_model(str(folder)))


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "no-such-type"},
        {"model_type": None},
        {"model_type": "bert", "architectures": ["BertModel"]},
        {"architectures": None},
        {"architectures": "SegformerForSemanticSegmentation!"},
        {"depths": "many"},
        {"id2label": {"first": "wall"}},
        {"id2label": 5},
    ],
    ids=str,
)
def test_a_configuration_that_makes_no_sense_is_a_model_error(
    folder: Path, changes: dict[str, Any]
) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, **changes}))
    with pytest.raises(ModelError):
        load_model(Checkpoint.from_model(str(folder)))


@pytest.mark.parametrize("content", ["[]", "5"])
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_json_that_is_no_object_is_a_model_error(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(ModelError):
        load_model(Checkpoint.from_model(str(folder)))


def test_no_code_of_a_checkpoint_is_run(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    settings.update(model_type="own", auto_map={"AutoConfig": "own.Own", "AutoModel": "own.Model"})
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    with pytest.raises(ModelError):
        ModelInfo.of(Checkpoint.from_model(str(folder)))
    with pytest.raises(ModelError):
        load_model(Checkpoint.from_directory(folder))
    assert not (folder / "ran").exists()


# Image processors


@pytest.mark.parametrize(
    "name", ["SegformerFeatureExtractor", "SegformerImageProcessor", "SegformerImageProcessorFast"]
)
def test_processors_of_every_age_load_as_their_pillow_backend(folder: Path, name: str) -> None:
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings["image_processor_type"] = name
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    assert type(load_image_processor(str(folder))).__name__ == "SegformerImageProcessorPil"


def test_a_processor_that_is_not_named_is_that_of_the_model(folder: Path) -> None:
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    del settings["image_processor_type"]
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    assert type(load_image_processor(str(folder))).__name__ == "SegformerImageProcessorPil"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("NoSuchImageProcessor", "transformers has no image processor 'NoSuchImageProcessor'"),
        ("", "transformers has none for this model"),
    ],
)
def test_a_processor_of_an_unknown_name_is_a_model_error(
    folder: Path, name: str, says: str
) -> None:
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "config.json").unlink()
    settings["image_processor_type"] = name
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=f"image processor cannot be loaded: {says}$"):
        load_image_processor(str(folder))


def test_a_size_resizes_as_the_processor_does() -> None:
    for resample in range(6):
        processor = SegformerImageProcessorPil(
            size={"height": 40, "width": 30},
            resample=resample,
            do_rescale=False,
            do_normalize=False,
        )
        size = fixed_size(processor)
        assert size is not None
        for image in pictures([(7, 90), (40, 30), (121, 64), (1, 1)]):
            upright = Image.fromarray(image)
            (expected,) = processor(images=[upright], return_tensors="np").pixel_values
            found = np.asarray(size.resize(upright))
            assert np.array_equal(found.transpose(2, 0, 1), expected)


def test_a_model_of_segformer_keeps_its_classes() -> None:
    model = SegformerForSemanticSegmentation(tiny_config())
    assert SemanticSegmentationPredictor(
        model.eval(), SegformerImageProcessorPil(size={"height": 32, "width": 32})
    ).labels == ("LABEL_0", "LABEL_1")
