"""Summary: a run that is not good says which option decided, the first images and where all are."""

import json
from pathlib import Path

import pyarrow as pa

from job import artifacts, summary
from job.receipts import Receipt
from job.sink import _error_rows, _parquet
from job.storage import locate


def receipt(maps: int, errors: dict[str, int], images: int, done_before: int = 0) -> Receipt:
    counts = {"maps": maps, "images": images, "done_before": done_before}
    return Receipt("run-1", "finished", "in", {}, {}, errors=errors, **counts)


def test_too_many_failures_name_the_option_the_first_images_and_the_folder() -> None:
    found = receipt(986, {"empty": 10, "truncated": 4}, 1_200, done_before=200)
    assert not summary.is_good(found, 0.01)
    first = [(f"in/{number}.jpg", "the file is empty") for number in range(5)]
    assert summary.of_failure(found, "out/", 0.01, first).splitlines() == [
        "14 of 1,000 images failed (1.4 %), more than --max-error-rate 1 %",
        *(f"  in/{number}.jpg: the file is empty" for number in range(5)),
        "  and 9 more",
        "  all of them: out/errors/",
    ]


def test_images_that_are_neither_mapped_nor_failed_are_said_to_be_left() -> None:
    found = receipt(7, {}, 10)
    assert not summary.is_good(found, 1.0)
    assert "3 of 10 images have neither a map nor an error row" in summary.of_failure(
        found, "out", 1.0, []
    )


def test_the_first_errors_are_those_of_the_run(tmp_path: Path) -> None:
    output = locate(str(tmp_path))
    reason = {"stage": "decode", "error_type": "empty", "message": "why", "retryable": False}
    for run, task in (("run-0", 0), ("run-1", 0), ("run-1", 1)):
        uris = [f"{run}/{task}/{number}.jpg" for number in range(3)]
        table = pa.table({"id": range(3), "uri": uris, "error": [json.dumps(reason)] * 3})
        name = f"{run}-{task:06d}.parquet"
        (output / "errors" / name).write_bytes(_parquet(_error_rows(table, run)))
    found = artifacts.first_errors(output, "run-1", 5)
    assert [uri for uri, _ in found] == [
        *(f"run-1/0/{number}.jpg" for number in range(3)),
        *(f"run-1/1/{number}.jpg" for number in range(2)),
    ]
    assert {reason for _, reason in found} == {"why"}
