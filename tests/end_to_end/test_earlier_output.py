"""An OUTPUT of an earlier release is resumed; one of a later release is refused.

``tests/data/earlier`` has the images of a run and the OUTPUT that it left when it was killed: three
writes committed, one of them with its pending record still there, and one that is only pending.
"""

import json
import sys
from pathlib import Path

import boto3
import pytest

from job.results import verification
from job.storage.location import Location
from job.storage.opening import locate
from tests.conftest import S3
from tests.end_to_end.processes import Finished, finish

EARLIER = Path(__file__).parents[1] / "data" / "earlier"
RUN = "20261128T230544-0c80"
COMMITTED = {f"{RUN}-{task:06d}.parquet" for task in (0, 1, 3)}


@pytest.fixture
def output(s3: S3) -> Location:
    """The OUTPUT where it was written, beside its INPUT."""
    client = boto3.client("s3", endpoint_url=s3.endpoint)
    client.create_bucket(Bucket="earlier")
    for path in sorted(EARLIER.rglob("*")):
        if path.is_file():
            client.upload_file(str(path), "earlier", path.relative_to(EARLIER).as_posix())
    return locate("s3://earlier/output")


def run(s3: S3) -> Finished:
    """The command of the run that was killed."""
    words = ["run", "s3://earlier/images", "s3://earlier/output"]
    options = ["--model", "job/demo/model", "--max-error-rate", "1"]
    return finish([sys.executable, "-m", "job", *words, *options], env=s3.environment)


def content(folder: Location) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in folder.names()}


def test_a_run_goes_on_where_one_of_an_earlier_release_was_killed(s3: S3, output: Location) -> None:
    before = content(output / "maps")
    finished = run(s3)
    assert finished.exit_code == 0, finished.stderr

    verdict = verification.verify(output, deep=True)
    assert verdict.is_complete, verdict.problems
    assert (verdict.images, verdict.maps + verdict.open_errors) == (8, 8)
    now = content(output / "maps")
    assert {name: now[name] for name in COMMITTED} == {name: before[name] for name in COMMITTED}
    assert set((output / "checkpoint").names()) == COMMITTED, "none is pending, and none was added"
    assert (output / "attempts").names() == []
    assert not (output / "lock.json").exists()

    earlier, ours = (json.loads(text) for text in content(output / "runs").values())
    assert (earlier["run_id"], earlier["status"]) == (RUN, "failed")
    assert (earlier["maps"], earlier["errors"]) == (3, {})
    assert (ours["format"], ours["done_before"]) == (3, 3)
    assert ours["maps"] + sum(ours["errors"].values()) == 5
    new = (output / "commits").names()
    assert new
    assert all(name.startswith(f"e000001-{ours['run_id']}-") for name in new)
    assert "Nothing to do" in run(s3).stdout

    later = {**ours, "format": 99, "versions": {"ray-batch-segmentation": "9.0"}}
    (output / "runs" / "20991231T000000-0000.json").write_bytes(json.dumps(later).encode())
    refused = run(s3)
    assert refused.exit_code == 5
    assert refused.stderr.startswith("error: OUTPUT has format 99: s3://earlier/output/runs/")
    assert refused.stderr.strip().endswith("Upgrade ray-batch-segmentation")
