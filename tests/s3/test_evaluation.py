"""Evaluation: every map is scored against its own annotation, or a sentence says why not."""

import pytest

from job.errors import StorageError
from job.results.evaluation import evaluate
from job.storage.opening import locate
from tests import hosted as hosted  # registers hosted://
from tests.conftest import S3
from tests.unit.test_evaluation import colours, grey, ids, write_output


def test_truth_on_s3_is_found_and_named(s3: S3) -> None:
    output = write_output(
        locate("s3://bucket/scored"),
        {"s3://bucket/in/a/x.jpg": ids(1), "s3://bucket/in/b/x.jpg": ids(2)},
        "s3://bucket/in/",
    )
    for name, values in (("a/x.png", ids(1)), ("b/x.png", ids(2))):
        (locate("s3://bucket/truth") / name).write_bytes(grey(values))
    assert evaluate(output, "s3://bucket/truth").pixel_accuracy == 1.0
    (locate("s3://bucket/truth") / "b/x.png").write_bytes(colours())
    with pytest.raises(StorageError, match=r"s3://bucket/truth/b/x\.png is no annotation"):
        evaluate(output, "s3://bucket/truth")
