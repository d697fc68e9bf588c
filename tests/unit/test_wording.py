"""Wording: numbers agree with their nouns."""

import pytest

from job.wording import counted


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 images"), (1, "1 image"), (2, "2 images"), (1_200, "1,200 images")],
)
def test_only_one_is_singular(number: int, said: str) -> None:
    assert counted(number, "image") == said


def test_a_plural_may_be_given() -> None:
    assert counted(1, "class", "classes") == "1 class"
    assert counted(0, "class", "classes") == "0 classes"
