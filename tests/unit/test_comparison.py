"""Comparisons: rates that mean something, a table and a chart of them."""

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from PIL import Image

from job.cli import main, text
from job.compare import comparison as comparison_module
from job.compare.chart import draw
from job.compare.comparison import (
    BASELINE,
    Comparison,
    Timing,
    steady_rate,
    timed,
)
from job.errors import JobError


def timing(name: str, steady: float, **more: Any) -> Timing:
    return Timing(name, 10.0, 1.5, steady, 2 << 30, 1.0, **more)


@pytest.fixture
def comparison() -> Comparison:
    """Three rounds, the second on a machine that was slow for a while."""
    rates = [(2.0, 9.0), (0.5, 2.5), (2.5, 10.0)]
    rounds = [
        [timing(BASELINE, stock), timing("this job, float32", job, is_whole_job=True)]
        for stock, job in rates
    ]
    return Comparison(70, "model", rounds)


def test_steady_rate_leaves_out_the_first_arrivals() -> None:
    assert steady_rate([10.0, 11.0, 12.0, 13.0]) == pytest.approx(1.0)


def test_maps_that_arrive_in_groups_are_not_counted_as_a_burst() -> None:
    arrivals = [10.0, 10.01, 10.02, 10.03, 14.0, 14.01, 14.02, 14.03]
    assert steady_rate(arrivals) == pytest.approx(1.0, rel=0.02)


def test_maps_that_arrive_all_at_once_are_rated_over_everything() -> None:
    assert steady_rate([8.0, 8.01, 8.02, 8.03]) == pytest.approx(0.5, rel=0.01)


def test_table_gives_each_its_speed_up_over_the_notebook(comparison: Comparison) -> None:
    lines = text.of_comparison(comparison).splitlines()
    assert lines[1].endswith("1.0×")
    assert lines[2].split()[-1] == "4.5×"
    assert lines[2].split()[3] == "9.00"
    assert len({len(line) for line in lines}) == 1


def test_rates_of_too_few_images_are_marked_and_said_to_be(comparison: Comparison) -> None:
    few = [[replace(timing, settled=timing.name == BASELINE) for timing in timings]
           for timings in comparison.rounds]  # fmt: skip
    table = text.of_comparison(replace(comparison, rounds=few)).splitlines()
    assert table[2].split()[3] == "9.00?"
    assert "2.00?" not in table[1]
    assert table[-1].startswith("? 70 images are too few for a steady state")
    assert "?" not in text.of_comparison(comparison)


@pytest.mark.parametrize(("later", "settled"), [(3, False), (40, True)])
def test_a_steady_state_takes_maps_after_the_first(later: int, settled: bool) -> None:
    image = np.zeros((7, 9), np.uint8)

    def way() -> Iterator[tuple[int, np.ndarray]]:
        yield 0, image
        time.sleep(0.3)
        for number in range(1, later + 1):
            yield number, image

    assert timed("some", way, [image], later + 1).settled == settled


def test_chart_is_a_picture(comparison: Comparison, tmp_path: Path) -> None:
    draw(comparison, tmp_path / "chart.png")
    with Image.open(tmp_path / "chart.png") as chart:
        assert chart.width > 600
        assert len(chart.convert("RGB").getcolors(1 << 20) or []) > 3


def test_the_bars_of_the_job_have_a_colour_of_their_own(
    comparison: Comparison, tmp_path: Path
) -> None:
    ours = (217, 72, 15)
    others = [[replace(timing, is_whole_job=False) for timing in ran] for ran in comparison.rounds]
    for rounds, is_there in ((comparison.rounds, True), (others, False)):
        draw(replace(comparison, rounds=rounds), tmp_path / "chart.png")
        with Image.open(tmp_path / "chart.png") as chart:
            colours = {colour for _, colour in chart.convert("RGB").getcolors(1 << 20) or []}
        assert (ours in colours) == is_there


def test_numbers_of_a_comparison_keep_their_keys(comparison: Comparison) -> None:
    kept = comparison.as_dict()
    assert {"images", "model", "rounds", "environment", "timings", "speedups"} == set(kept)
    keys = {"name", "seconds", "first_map", "steady", "peak_memory", "agreement", "settled"}
    assert keys < set(kept["timings"][0])


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (9, 99, 199)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """The exit code and the sentence of a comparison that must not get as far as Ray."""

    def find_place(address: str | None) -> NoReturn:
        raise AssertionError("Ray was looked for")

    monkeypatch.setattr(comparison_module, "find_place", find_place)
    monkeypatch.chdir(tmp_path)

    def compare_with(files: dict[str, bytes], *options: str) -> tuple[int, str]:
        (tmp_path / "in").mkdir()
        for name, data in files.items():
            (tmp_path / "in" / name).write_bytes(data)
        before = sorted(tmp_path.iterdir())
        code = main.main(["compare", "in", *options])
        assert sorted(tmp_path.iterdir()) == before, "it has made something"
        return code, capsys.readouterr().err

    return compare_with


@pytest.mark.parametrize(
    ("files", "options", "code", "says"),
    [
        ({"a.png": picture()}, ["--images", "0"], 2, "--images 0: give a number from 1 on"),
        ({"a.png": picture()}, ["--rounds", "-1"], 2, "--rounds -1: give a number from 1 on"),
        ({"Thumbs.db": b"x"}, [], 3, "no image is there"),
        ({"a.txt": b"x"}, [], 3, "no image is there"),
        ({"a.png": picture(), "b.jpg": b"x", "c.txt": b""}, [], 3, "in/b.jpg: not an image"),
        ({"a.png": picture(), "b.png": picture()[:45]}, [], 3, "in/b.png: "),
        ({"a.png": picture()}, ["--output", "in/a.png"], 3, "a file is in the way"),
        ({"a.png": picture()}, ["--output", "in/a.png/out"], 3, "a file is in the way"),
        ({"a.png": picture()}, ["--output", "s3://bucket/x"], 2, "expected a local folder"),
    ],
)
def test_what_cannot_be_compared_is_told_before_ray_starts(
    refused: Callable[..., tuple[int, str]],
    files: dict[str, bytes],
    options: list[str],
    code: int,
    says: str,
) -> None:
    found, said = refused(files, *options)
    assert (found, says in said) == (code, True), said


def test_an_architecture_with_other_maps_has_no_speed() -> None:
    reference = [np.zeros((7, 9), np.uint8)]
    with pytest.raises(JobError, match="differ from sequential inference"):
        timed("wrong", lambda: iter([(0, np.ones((7, 9), np.uint8))]), reference, 1)
    with pytest.raises(JobError, match="wrong: 1 map of 2 images"):
        timed("wrong", lambda: iter([(0, reference[0])]), reference, 2)


def test_maps_may_differ_in_half_precision_whatever_the_name_says() -> None:
    reference, other = [np.zeros((7, 9), np.uint8)], np.ones((7, 9), np.uint8)
    found = timed("some", lambda: iter([(0, other)]), reference, 1, "bfloat16")
    assert (found.precision, found.agreement) == ("bfloat16", 0)
    with pytest.raises(JobError, match="differ from sequential inference"):
        timed("bfloat16", lambda: iter([(0, other)]), reference, 1)
