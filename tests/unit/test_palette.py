"""Palette: ADE20K's own colours, and generated ones that stay what they are."""

import json

import numpy as np
import pytest

from job.models.labels import label_names
from job.outputs.palette import is_ade20k, palette
from tests.conftest import PHOTOS, needs_photos


def ade20k() -> list[str]:
    names = [f"class {label}" for label in range(150)]
    names[0], names[6], names[48], names[149] = "wall", "road, route", "skyscraper", "flag"
    return names


def test_class_c_has_the_colour_of_class_c() -> None:
    colours = palette(ade20k())
    assert (colours.shape, colours.dtype) == ((150, 3), np.uint8)
    assert colours[0].tolist() == [120, 120, 120], "wall; not the black of 'unlabelled'"
    assert colours[2].tolist() == [6, 230, 230], "sky; red and blue not swapped"
    assert colours[149].tolist() == [92, 0, 255]
    assert colours[6].tolist() == colours[48].tolist() == [140, 140, 140], "road and skyscraper"
    assert len(np.unique(colours, axis=0)) == 149


@needs_photos
def test_ade20k_colours_are_those_of_the_benchmark() -> None:
    published = json.loads((PHOTOS / "segformer" / "ade20k-palette.json").read_text())
    id2label = json.loads((PHOTOS / "segformer" / "config.json").read_text())["id2label"]
    names = label_names(id2label)
    assert is_ade20k(names)
    assert palette(names).tolist() == published


def test_a_caller_may_change_the_palette_it_got() -> None:
    palette(ade20k())[0] = 255
    assert palette(ade20k())[0].tolist() == [120, 120, 120]


@pytest.mark.parametrize(
    "names",
    [
        ade20k()[:149],
        [*ade20k(), "one more"],
        ["other", *ade20k()[1:]],
        list(reversed(ade20k())),
        [f"class {label}" for label in range(150)],
    ],
    ids=["one missing", "one more", "another first class", "reversed", "150 other classes"],
)
def test_other_label_sets_do_not_get_the_colours_of_ade20k(names: list[str]) -> None:
    assert not is_ade20k(names)
    assert len(np.unique(palette(names), axis=0)) == len(names)


def test_generated_colours_are_distinct_for_up_to_a_thousand_classes() -> None:
    colours = palette([str(label) for label in range(1000)])
    assert (colours.shape, colours.dtype) == ((1000, 3), np.uint8)
    assert len(np.unique(colours, axis=0)) == 1000


def test_the_colour_of_a_class_does_not_depend_on_how_many_follow() -> None:
    most = palette(["x"] * 1000)
    for count in (*range(1, 150), *range(151, 1000, 37)):
        assert np.array_equal(palette(["x"] * count), most[:count])


def test_the_first_generated_colours_are_told_apart_by_eye() -> None:
    colours = palette(["x"] * 12).astype(int)
    distances = np.abs(colours[:, None] - colours[None]).sum(axis=2)
    assert distances[~np.eye(12, dtype=bool)].min() > 30
