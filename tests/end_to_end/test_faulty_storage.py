"""Whole runs on S3 that misbehaves: nothing is lost, nothing is doubled, and it is said plainly."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest

from job import pipeline
from job.cli.main import main
from job.config import JobConfig
from job.outputs.receipts import Receipt
from job.results.verification import Verdict, verify
from job.storage.opening import locate
from tests.conftest import S3, write_pictures
from tests.faults import KINDS, FaultyProxy, Request
from tests.outputs import check_each_image_once, ids, rows

pytestmark = pytest.mark.usefixtures("ray_session")

IMAGES = 12
# The waits of a storage that stalls: ten seconds to try it out, less to run it often.
STALL = float(os.environ.get("FAULTS_STALL_SECONDS", "1"))
Maps = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a dozen pictures."""
    return write_pictures(tmp_path_factory.mktemp("few"), IMAGES, seed=300)


@pytest.fixture(scope="module")
def undisturbed(
    few: Path, model_dir: Path, ray_session: None, tmp_path_factory: pytest.TempPathFactory
) -> Maps:
    """The maps of a run on local files."""
    output = tmp_path_factory.mktemp("undisturbed")
    pipeline.run(JobConfig(**options(few, output, model_dir)))
    return by_name(output)


def options(source: object, output: object, model: Path, **more: Any) -> dict[str, Any]:
    places = {"input": str(source), "output": str(output), "model": str(model)}
    small = {"images_per_task": 2, "batch_size": 2, "images_per_file": 2, "progress": "none"}
    return {**places, **small, **more}


def run_through(proxy: FaultyProxy, name: str, model: Path, **more: Any) -> Receipt:
    """Run from ``s3://bucket/NAME/in`` to ``s3://bucket/NAME/out``, all of it by way of a proxy."""
    place = f"s3://bucket/{name}"
    more["storage_options"] = proxy.options
    return pipeline.run(JobConfig(**options(f"{place}/in", f"{place}/out", model, **more)))


def by_name(output: object) -> Maps:
    return {os.path.basename(row["uri"]): row for row in rows(output, "maps")}


def check_equal(found: Maps, expected: Maps) -> None:
    """The same maps, apart from where the images were and which run made them."""
    assert found.keys() == expected.keys()
    for name, row in found.items():
        assert np.array_equal(ids(row), ids(expected[name])), name
        for column in ("id", "height", "width", "classes", "confidence"):
            assert row[column] == expected[name][column], (name, column)


def verdict_of(name: str) -> Verdict:
    """What a deep look at an OUTPUT finds, by the straight way to storage."""
    return verify(locate(f"s3://bucket/{name}/out"), deep=True)


def test_a_fifth_of_all_requests_failing_changes_no_map(
    s3: S3, few: Path, model_dir: Path, undisturbed: Maps
) -> None:
    s3.upload(few, "fifth/in")
    with FaultyProxy(s3.endpoint, share=0.2, seed=11, stall=STALL) as proxy:
        receipt = run_through(proxy, "fifth", model_dir)
        assert sum(proxy.injected.values()) > len(proxy.requests) / 10
        assert len([kind for kind in KINDS if proxy.injected[kind]]) >= 6, proxy.injected
        # What the driver makes again before and after the work is not the workers' to report.
        assert 0 < receipt.retries <= proxy.failures
    assert (receipt.status, receipt.maps, receipt.errors) == ("finished", IMAGES, {})
    assert rows("s3://bucket/fifth/out", "errors") == []
    check_each_image_once("s3://bucket/fifth/out", IMAGES)
    check_equal(by_name("s3://bucket/fifth/out"), undisturbed)
    verdict = verdict_of("fifth")
    assert verdict.is_complete, verdict


@pytest.fixture
def cli() -> Iterator[Callable[..., int]]:
    """The command line, in this process."""
    handler = signal.getsignal(signal.SIGTERM)
    yield lambda *words: main([str(word) for word in words])
    signal.signal(signal.SIGTERM, handler)


def test_an_output_that_takes_no_more_ends_in_a_sentence_and_goes_on_later(
    s3: S3,
    few: Path,
    model_dir: Path,
    undisturbed: Maps,
    cli: Callable[..., int],
    capfd: pytest.CaptureFixture[str],
) -> None:
    source, output = s3.upload(few, "refusing/in"), "s3://bucket/refusing/out"
    done = 0
    with FaultyProxy(s3.endpoint) as proxy:
        small = ("--images-per-task=2", "--batch-size=2", "--images-per-file=2", "--progress=none")
        storage = ("--storage-options", json.dumps(proxy.options))
        words = ["run", source, output, "--model", model_dir, *small, *storage]
        for status, reason in ((403, "permission denied"), (507, "InsufficientStorage")):
            proxy.rules = []
            proxy.refuse(status, "PUT", "bucket/refusing/out/maps/", after=2)
            capfd.readouterr()
            assert cli(*words) == 3
            stdout, stderr = capfd.readouterr()
            assert stdout == ""
            check_sentence(stderr.splitlines()[-1], output, reason)
            assert "Traceback" not in stderr
            verdict = verdict_of("refusing")
            assert done < verdict.maps < IMAGES
            done = verdict.maps
        proxy.rules = []
        assert cli(*words) == 0, capfd.readouterr().err
        assert f"{done} images were done already" in capfd.readouterr().out
    check_each_image_once(output, IMAGES)
    check_equal(by_name(output), undisturbed)
    verdict = verdict_of("refusing")
    assert verdict.is_complete, verdict


def check_sentence(said: str, output: str, reason: str) -> None:
    assert said.startswith(f"error: OUTPUT {output} cannot be written: ")
    assert reason in said
    assert "the same command goes on" in said
    for noise in ("Traceback", "ray::", "RayTaskError", "Failed to", ".py"):
        assert noise not in said


def test_objects_that_go_close_or_change_after_the_listing_are_rows(
    s3: S3, few: Path, model_dir: Path, undisturbed: Maps
) -> None:
    s3.upload(few, "moving/in")
    names = sorted(path.name for path in few.iterdir())
    gone, closed, changed = (f"bucket/moving/in/{name}" for name in names[2:5])
    client = boto3.client("s3", endpoint_url=s3.endpoint)

    def act(request: Request) -> int | None:
        """What happens to an object right before it is read."""
        bucket, _, key = request.path.partition("/")
        if request.method == "GET" and request.path == gone:
            client.delete_object(Bucket=bucket, Key=key)
        if request.method == "GET" and request.path == changed:
            client.put_object(Bucket=bucket, Key=key, Body=b"another")
        return 403 if request.path == closed else None

    with FaultyProxy(s3.endpoint, share=0.1, seed=12, stall=0.2) as proxy:
        proxy.rules.append(act)
        receipt = run_through(proxy, "moving", model_dir)
    assert receipt.errors == {"missing": 1, "forbidden": 1, "changed": 1}
    found = {
        row["uri"].removeprefix("s3://"): row for row in rows("s3://bucket/moving/out", "errors")
    }
    assert {path: row["error_type"] for path, row in found.items()} == {
        gone: "missing",
        closed: "forbidden",
        changed: "changed",
    }
    assert {row["stage"] for row in found.values()} == {"fetch"}
    check_each_image_once("s3://bucket/moving/out", IMAGES)
    expected = {
        name: row for name, row in undisturbed.items() if f"bucket/moving/in/{name}" not in found
    }
    check_equal(by_name("s3://bucket/moving/out"), expected)
    assert verdict_of("moving").is_complete
