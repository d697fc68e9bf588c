"""Labels: class names as a model's configuration has them, and told apart."""

import json

import pytest

from job.models.labels import distinct, label_names
from tests.conftest import PHOTOS, needs_photos


@needs_photos
def test_the_published_labels_come_trimmed_and_in_order() -> None:
    id2label = json.loads((PHOTOS / "segformer" / "ade20k-id2label.json").read_text())
    names = label_names(id2label)
    assert len(names) == 150
    assert all(name == name.strip() for name in names)
    assert names[7] == "bed", "published as 'bed '"


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
