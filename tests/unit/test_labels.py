"""Class names and colours: ADE20K's own, and generated ones that stay what they are."""

import json

import numpy as np
import pytest

from job.models.labels import described, distinct, is_ade20k, label_names, palette
from tests.conftest import PHOTOS

needs_files = pytest.mark.skipif(not PHOTOS.is_dir(), reason="the shared files are not here")


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


@needs_files
def test_ade20k_colours_are_those_of_the_benchmark() -> None:
    published = json.loads((PHOTOS / "segformer" / "ade20k-palette.json").read_text())
    id2label = json.loads((PHOTOS / "segformer" / "config.json").read_text())["id2label"]
    assert palette(label_names(id2label)).tolist() == published


@needs_files
def test_the_published_labels_come_trimmed_and_in_order() -> None:
    id2label = json.loads((PHOTOS / "segformer" / "ade20k-id2label.json").read_text())
    names = label_names(id2label)
    assert len(names) == 150
    assert all(name == name.strip() for name in names)
    assert names[7] == "bed", "published as 'bed '"
    assert is_ade20k(names)


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


def test_names_are_trimmed_and_in_the_order_of_their_ids() -> None:
    assert label_names({"10": "k", "2": " c ", "0": "a\n", "1": "b"})[:3] == ("a", "b", "c")
    assert label_names({1: "b", 0: "a"}) == ("a", "b")


def test_an_id_without_a_name_is_called_by_its_number() -> None:
    assert label_names({0: "a", 3: "d"}) == ("a", "class 1", "class 2", "d")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], []),
        (["a", "b"], ["a", "b"]),
        (["a", "a", "b"], ["a (0)", "a (1)", "b"]),
        (["a", "a", "a (1)"], ["a (0)", "a (1) (1)", "a (1)"]),
        (["", ""], [" (0)", " (1)"]),
    ],
)
def test_equal_names_are_told_apart_by_their_numbers(names: list[str], expected: list[str]) -> None:
    assert distinct(names) == expected


def test_classes_are_described_by_id_name_and_color() -> None:
    names = ("sky", "sky")
    colours = palette(names)
    assert described(names, colours) == [
        {"id": 0, "name": "sky", "color": colours[0].tolist()},
        {"id": 1, "name": "sky", "color": colours[1].tolist()},
    ]
