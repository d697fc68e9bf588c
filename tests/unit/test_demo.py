"""The demo's scenes are exact and varied, and the shipped model has learnt them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from job.demo.scenes import LABELS, TRAINING_SEED, Scene, scene, write_scenes

MODEL = Path(__file__).parents[2] / "job" / "demo" / "model"
ORIENTATION_TAG = 0x0112


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Scene]:
    return write_scenes(tmp_path_factory.mktemp("scenes"), 36, seed=500_000)


def test_a_seed_always_gives_the_same_scene() -> None:
    first, again, other = scene(3, 120, 160), scene(3, 120, 160), scene(4, 120, 160)
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[1], other[1])


def test_a_scene_has_the_asked_size_and_only_known_classes() -> None:
    for seed, height, width in ((0, 225, 300), (1, 301, 203), (2, 64, 64), (3, 97, 410)):
        picture, truth = scene(seed, height, width)
        assert picture.shape == (height, width, 3)
        assert truth.shape == (height, width)
        assert picture.dtype == truth.dtype == np.uint8
        assert truth.max() < len(LABELS)
        assert len(np.unique(truth)) >= 3


def test_every_class_appears_and_none_fills_the_scenes(written: list[Scene]) -> None:
    counts = sum(
        np.bincount(np.asarray(Image.open(one.truth)).ravel(), minlength=len(LABELS))
        for one in written
    )
    shares = np.asarray(counts / np.sum(counts))
    assert len(shares) == len(LABELS)
    assert shares.min() > 0.003
    assert shares.max() < 0.4


def test_a_class_cannot_be_told_by_its_colour_alone(written: list[Scene]) -> None:
    """Even the best lookup from colour to class, fitted on the very scenes, is far off."""
    votes = np.zeros((32**3, len(LABELS)), np.int64)
    for one in written:
        picture = ImageOps.exif_transpose(Image.open(one.image)).convert("RGB")
        red, green, blue = np.moveaxis(np.asarray(picture).astype(np.int64) // 8, -1, 0)
        truth = np.asarray(Image.open(one.truth))
        np.add.at(votes, ((red * 32 + green) * 32 + blue, truth), 1)
    assert votes.max(axis=1).sum() / votes.sum() < 0.85


def test_truth_lies_over_the_upright_image_pixel_by_pixel(written: list[Scene]) -> None:
    for index, one in enumerate(written[:10]):
        picture = ImageOps.exif_transpose(Image.open(one.image)).convert("L")
        truth = Image.open(one.truth)
        assert truth.mode == "L"
        assert picture.size == truth.size == (one.width, one.height)
        painted, ids = scene(500_000 + index, one.height, one.width)
        assert np.array_equal(np.asarray(truth), ids)
        difference = np.asarray(picture, np.float32) - np.asarray(
            Image.fromarray(painted).convert("L"), np.float32
        )
        assert np.abs(difference).mean() < 3  # JPEG at quality 90, nothing turned or flipped


def test_written_scenes_exercise_a_decoder(written: list[Scene]) -> None:
    files = [Image.open(one.image) for one in written]
    turned = [file.getexif().get(ORIENTATION_TAG, 1) for file in files]
    assert {3, 6, 8} <= set(turned)
    swapped = [one for one, tag in zip(written, turned, strict=True) if tag in (5, 6, 8)]
    stored = [Image.open(one.image).size for one in swapped]
    assert stored == [(one.height, one.width) for one in swapped]
    assert [file.mode for file in files].count("L") >= 2
    assert {file.format for file in files} == {"JPEG", "PNG"}
    assert "RGBA" in {file.mode for file in files}
    assert len({(one.height, one.width) for one in written}) >= 3


def test_written_names_are_in_order_and_pair_image_with_truth(written: list[Scene]) -> None:
    assert [one.name for one in written] == [f"scene-{index:04d}" for index in range(36)]
    assert all(one.image.stem == one.truth.stem == one.name for one in written)
    assert {one.image.parent.name for one in written} == {"images"}
    assert {one.truth.parent.name for one in written} == {"truth"}


def test_seeds_that_the_model_was_trained_on_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trained"):
        write_scenes(tmp_path, 2, seed=TRAINING_SEED - 1)
    assert list(tmp_path.iterdir()) == []


def test_the_shipped_model_is_a_small_stock_segformer() -> None:
    from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

    assert sum(file.stat().st_size for file in MODEL.iterdir()) < 2_000_000
    model = AutoModelForSemanticSegmentation.from_pretrained(MODEL)
    assert type(model).__name__ == "SegformerForSemanticSegmentation"
    assert tuple(model.config.id2label[index] for index in range(len(LABELS))) == LABELS
    assert {str(weight.dtype) for weight in model.parameters()} == {"torch.float32"}
    processor = AutoImageProcessor.from_pretrained(MODEL)
    assert type(processor).__name__.startswith("SegformerImageProcessor")
    saved = json.loads((MODEL / "preprocessor_config.json").read_text())
    assert saved["image_processor_type"] == "SegformerImageProcessor"


def test_the_shipped_model_segments_unseen_scenes(written: list[Scene]) -> None:
    from job.demo.train import confusion, intersection_over_union

    counts = confusion(MODEL, written)
    each = intersection_over_union(counts)
    assert np.isfinite(each).all()
    assert each.mean() >= 0.85
    assert np.trace(counts) / counts.sum() >= 0.93


def test_intersection_over_union_of_a_known_confusion() -> None:
    from job.demo.train import intersection_over_union

    each = intersection_over_union(np.array(((6, 2, 0), (1, 3, 0), (0, 0, 0))))
    assert each[:2] == pytest.approx((6 / 9, 3 / 6))
    assert np.isnan(each[2])
