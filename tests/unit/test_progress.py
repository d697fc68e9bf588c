"""Progress: a line says how far a run is, in words and figures that a person reads at a glance."""

from collections import Counter

import pytest

from job.cluster.progress import format_line
from job.cluster.tracker import Snapshot
from job.wording import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (42.2, "42 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (5 * 3600 + 7 * 60 + 29, "5 h 07 min"),
        (123 * 3600, "123 h 00 min"),
    ],
)
def test_durations_read_as_a_person_says_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("snapshot", "remaining", "elapsed", "text"),
    [
        (Snapshot(), 2000, 3.0, "0 of 2,000 images (0 %), starting up"),
        (Snapshot(), 2000, 0.0, "0 of 2,000 images (0 %), starting up"),
        (Snapshot(maps=500), 2000, 100.0, "500 of 2,000 images (25 %), 5.0 images/s, "),
        (Snapshot(maps=500), 2000, 100.0, "5 min 00 s left"),
        (Snapshot(maps=520, at_first=20, under_way=40.0), 2020, 100.0, "12.5 images/s, 2 min 00 s"),
        (Snapshot(maps=40, at_first=20, under_way=0.1), 2000, 10.0, "4.0 images/s, 8 min 10 s"),
        (Snapshot(maps=40, at_first=20, under_way=200.0), 2000, 210.0, "0.1 images/s, 5 h 26 min"),
        (Snapshot(maps=499, errors=Counter(empty=1)), 500, 10.0, "500 of 500 images (100 %)"),
        (Snapshot(maps=499, errors=Counter(empty=1)), 500, 10.0, "0 s left, 1 error"),
        (Snapshot(errors=Counter(empty=1, cut=1999)), 9999, 1.0, ", 2,000 errors"),
        (Snapshot(maps=1999), 2000, 1.0, "1,999 of 2,000 images (99 %)"),
    ],
)
def test_a_line_says_how_far_how_fast_how_long_and_what_failed(
    snapshot: Snapshot, remaining: int, elapsed: float, text: str
) -> None:
    found = format_line(snapshot, remaining, elapsed)
    assert text in found
    assert "\n" not in found


def test_a_line_without_errors_does_not_speak_of_them() -> None:
    assert "error" not in format_line(Snapshot(maps=3), 10, 1.0)


def test_nothing_to_do_is_all_done() -> None:
    assert format_line(Snapshot(), 0, 0.0).startswith("0 of 0 images (100 %)")
