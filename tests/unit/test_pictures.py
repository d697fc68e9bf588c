"""Pictures: maps in their colours, for a person to look at."""

import numpy as np
import pytest

from job.outputs.palette import palette
from job.results.pictures import contact_sheet, overlay
from tests.conftest import picture

NAMES = ("sky", "ground", "building", "tree", "vehicle")
COLOURS = palette(NAMES)


def test_an_overlay_is_the_image_at_one_end_and_the_colours_at_the_other() -> None:
    image, ids = picture(0, 20, 30), np.arange(600, dtype=np.uint8).reshape(20, 30) % 5
    assert np.array_equal(overlay(image, ids, COLOURS, 0.0), image)
    assert np.array_equal(overlay(image, ids, COLOURS, 1.0), COLOURS[ids])
    half = overlay(image, ids, COLOURS, 0.5)
    assert half.dtype == np.uint8
    expected = (image.astype(int) + COLOURS[ids]) / 2
    assert np.abs(half - expected).max() <= 0.5


def flat(label: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((60, 80, 3), np.uint8), np.full((60, 80), label, np.uint8)


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (3, 1), (4, 2), (7, 3)])
def test_a_contact_sheet_has_room_for_every_picture(count: int, rows: int) -> None:
    sheet = contact_sheet([flat(index % 5) for index in range(count)], COLOURS, NAMES, tile=100)
    assert sheet.mode == "RGB"
    assert sheet.size == (3 * 108 + 8, rows * (2 * 75 + 16) + 30 + 8)


def test_a_contact_sheet_shows_the_picture_above_its_map_and_names_its_classes() -> None:
    sheet = np.asarray(contact_sheet([flat(1), flat(4)], COLOURS, NAMES, columns=2, tile=100))
    for column, label in ((0, 1), (1, 4)):
        left = 8 + column * 108
        assert (sheet[8 : 8 + 75, left : left + 100] == 0).all()
        shown = sheet[8 + 75 : 8 + 150, left : left + 100].astype(int)
        assert np.abs(shown - 0.55 * COLOURS[label]).max() <= 1
    legend = sheet[-30:].reshape(-1, 3).tolist()
    for label in range(5):
        assert (COLOURS[label].tolist() in legend) == (label in (1, 4))


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (3, 5), (500, 20)])
def test_pictures_of_any_shape_fit_their_tile(size: tuple[int, int]) -> None:
    image, ids = np.full((*size, 3), 9, np.uint8), np.zeros(size, np.uint8)
    sheet = np.asarray(contact_sheet([(image, ids)], COLOURS, NAMES, columns=1, tile=100))
    assert (sheet[8 : 8 + 75, 8 : 8 + 100] == 9).all()
