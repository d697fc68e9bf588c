"""Summary: a run that is not good says which option decided, the first images and where all are."""

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from job.cli import text
from job.inputs.left_out import LeftOut
from job.inputs.manifest import Manifest
from job.models.checkpoint import Origin
from job.outputs.receipts import Receipt
from job.results.evaluation import Scores
from job.results.verdict import KINDS, NOTES, Verdict

ORIGIN = Origin("a/model", None, "digest")


def receipt(
    maps: int, errors: dict[str, int], images: int, done_before: int = 0, **more: Any
) -> Receipt:
    counts = {"maps": maps, "images": images, "done_before": done_before, **more}
    return Receipt("run-1", "finished", "in", ORIGIN, {}, errors=errors, **counts)


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ([1_500_000, 500_000], "2.0 MB"),
        ([1_500_000_000, None, None], "1.5 GB, and 2 of unknown size"),
        ([None, None], "of unknown size"),
    ],
)
def test_sizes_that_a_storage_does_not_tell_are_not_counted_as_nothing(
    sizes: list[int | None], told: str
) -> None:
    rows = pa.table({"size": pa.array(sizes, pa.int64())})
    assert text._size(Manifest(rows, rows, 0, LeftOut())) == told


def test_too_many_failures_name_the_option_the_first_images_and_the_folder() -> None:
    found = receipt(986, {"empty": 10, "truncated": 4}, 1_200, done_before=200)
    assert not found.is_good(0.01)
    first = [(f"in/{number}.jpg", "the file is empty") for number in range(5)]
    assert text.of_failure(found, "out/", 0.01, first).splitlines() == [
        "14 of 1,000 images failed (1.4 %), more than --max-error-rate 1 %",
        *(f"  in/{number}.jpg: the file is empty" for number in range(5)),
        "  and 9 more",
        "  all of them: out/errors/",
    ]


def test_a_run_with_images_that_are_neither_mapped_nor_failed_is_not_good() -> None:
    assert not receipt(7, {}, 10).is_good(1.0)
    assert receipt(10, {}, 10).is_good(1.0)


def test_the_rate_once_under_way_and_the_rate_with_start_up_are_both_told() -> None:
    found = receipt(36, {}, 36, seconds=14.0, first_map=9.0, steady=12.04)
    assert text.of_run(found, "out").splitlines()[:2] == [
        "36 maps of 36 images in 14 s",
        "  speed   12.0 images/s once under way; 2.6 images/s with the 9 s until the first maps",
    ]


def test_maps_that_all_come_at_once_have_no_rate_under_way() -> None:
    found = receipt(5, {}, 5, seconds=10.0, first_map=9.0)
    assert text.of_run(found, "out").splitlines()[1] == (
        "  speed   0.5 images/s with the 9 s until the first maps; too few images to tell what many"
        " would reach"
    )
    nothing = receipt(0, {"empty": 5}, 5, seconds=10.0)
    assert text.of_run(nothing, "out").splitlines()[1] == "  speed   0.5 images/s"


def test_one_of_anything_is_singular() -> None:
    scores = Scores(np.eye(1, dtype=np.int64), ("sky",), images=1, without_truth=1)
    verdict = Verdict(1, 1, 1, 1, 1)
    for kind in KINDS:
        verdict.blame(kind, ["x"])
    for kind in NOTES:
        verdict.note(kind, ["x"])
    texts = [
        text.of_run(receipt(1, {}, 1, seconds=1.0, retries=1), "out"),
        text.of_run(receipt(1, {}, 2, done_before=1, seconds=1.0), "out"),
        text.of_run(receipt(0, {}, 1, done_before=1), "out"),
        text.of_failure(receipt(0, {"empty": 1}, 1), "out", 0.0, []),
        text.of_scores(scores),
        text.of_verdict(verdict),
        text.of_verdict(Verdict(1, 1)),
        receipt(1, {}, 1).how_far,
    ]
    for told in texts:
        assert not re.search(r"(?<![\d,.])1 (images|maps|errors|files|rows|writes|requests)", told)
    assert "2 images" in text.of_verdict(Verdict(2, 2))
    assert set(verdict.problems) == set(KINDS)
