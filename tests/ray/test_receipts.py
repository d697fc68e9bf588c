"""Receipts: written when a run starts and again however it ends; what differs is named."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import ray

from job.cluster.resources import Cluster, Node, plan_resources
from job.cluster.tracker import start_tracker
from job.config import JobConfig
from job.errors import JobError, OutputConflictError, StoppedError, StorageError
from job.outputs.claims import OutputClaim
from job.outputs.commits import Commits
from job.outputs.measures import Measures
from job.outputs.receipt_writer import writing_receipt
from job.storage.location import Location
from tests.runs import Hands, attempt, expecting
from tests.unit.test_receipts import SETTINGS, started, written


@pytest.fixture
def claim(output: Location) -> Iterator[OutputClaim]:
    """Of a run that is at work."""
    with OutputClaim(output, "run-1", clock=Hands()) as held:
        yield held


@pytest.fixture
def measures(ray_session: None, output: Location, claim: OutputClaim) -> Measures:
    """Of a run of ten images with one predictor on a cluster of two CPUs."""
    resources = plan_resources(JobConfig(input="in", output="out"), Cluster((Node(2),)), 6)
    return Measures(start_tracker(), resources, expecting(output, claim, range(10)))


def test_a_receipt_is_there_as_running_before_anything_is_done(
    output: Location, measures: Measures
) -> None:
    with writing_receipt(started(), output, measures):
        found = written(output)
    assert (found["status"], found["images"], found["done_before"]) == ("running", 10, 4)
    assert found["model"] == {"name": "a/model", "revision": "c0ffee", "digest": "digest-1"}
    assert found["settings"] == SETTINGS
    assert found["started"]
    assert found["ended"] == ""
    assert set(found["versions"]) >= {"ray", "torch", "transformers"}


def test_a_finished_run_says_what_it_has_done(
    output: Location, measures: Measures, claim: OutputClaim
) -> None:
    tracker = measures.tracker
    tracker.add.remote({"decode": 2.0, "fetch": 0.0}, {"decode": 6, "fetch": 6}, 3)
    tracker.add.remote({"forward": 1.0}, {"forward": 6}, 0)
    measures.committer.commit([attempt(output, claim, range(6), failed=[1])])
    with writing_receipt(started(), output, measures) as writer:
        pass
    found = written(output)
    assert (found["status"], found["maps"], found["errors"]) == ("finished", 5, {"truncated": 1})
    decode = found["stages"]["decode"]
    assert (decode["seconds"], decode["images"], decode["images_per_second"]) == (2.0, 6, 3.0)
    # Two seconds within a span of two, of the one predictor: it loads its images itself.
    assert decode["busy"] == 1.0
    assert found["stages"]["forward"]["busy"] == 1.0

    assert found["retries"] == 3
    assert found["allotment"]["workers"] == 1
    assert found["ended"]
    assert (writer.receipt.remaining, writer.receipt.failed) == (6, 1)


def test_images_loaded_apart_keep_the_cluster_s_cpus_busy(
    output: Location, measures: Measures
) -> None:
    beside_gpus = replace(measures, resources=replace(measures.resources, load_cpus=0.5))
    measures.tracker.add.remote({"decode": 2.0}, {"decode": 6}, 0)
    with writing_receipt(started(), output, beside_gpus):
        pass
    assert written(output)["stages"]["decode"]["busy"] == 0.5, "one of two CPUs"


def test_a_run_that_is_told_to_stop_says_so_at_once(
    output: Location, measures: Measures, claim: OutputClaim
) -> None:
    measures.committer.commit([attempt(output, claim, range(5))])
    with writing_receipt(started(), output, measures) as writer:
        writer.stopping()
        found = written(output)
        assert (found["status"], found["maps"]) == ("stopped", 5)
        assert ray.get(measures.tracker.begin.remote("decode", [1]))[2], "nothing new begins"


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (
            JobError("the model is gone. Bring it back"),
            "failed",
            "the model is gone. Bring it back",
        ),
        (ValueError("first line\nsecond line"), "failed", "first line"),
        (ValueError(), "failed", "ValueError"),
        (MemoryError(), "failed", "MemoryError"),
        (SystemExit(3), "failed", "3"),
        (KeyboardInterrupt(), "stopped", "KeyboardInterrupt"),
        (StoppedError("told to stop"), "stopped", "told to stop"),
    ],
)
def test_a_run_that_ends_early_says_how(
    output: Location, measures: Measures, error: BaseException, status: str, message: str
) -> None:
    with pytest.raises(type(error)), writing_receipt(started(), output, measures):
        raise error
    found = written(output)
    assert (found["status"], found["message"]) == (status, message)
    assert found["ended"]
    assert found["seconds"] >= 0


def test_an_error_whose_text_starts_with_a_line_break_is_recorded_and_raised(
    output: Location, measures: Measures
) -> None:
    with (
        pytest.raises(ValueError, match="the reason"),
        writing_receipt(started(), output, measures),
    ):
        raise ValueError("\nthe reason")
    assert written(output)["status"] == "failed"
    assert "the reason" in written(output)["message"]


@pytest.mark.parametrize("error", [StoppedError("told to stop"), StorageError("no space")])
def test_a_run_that_ends_early_counts_what_is_committed_and_gives_the_output_back_first(
    output: Location, measures: Measures, claim: OutputClaim, error: JobError
) -> None:
    measures.committer.commit([attempt(output, claim, range(4), failed=[1])])
    left = attempt(output, claim, range(4, 8))

    def release() -> None:
        claim.release()
        with pytest.raises(OutputConflictError):
            measures.committer.commit([left])

    with (
        pytest.raises(type(error)) as raised,
        writing_receipt(started(images=10, done_before=4), output, measures, release),
    ):
        raise error
    found = written(output)
    assert (found["maps"], found["errors"]) == (3, {"truncated": 1})
    assert found["ended"]
    assert Commits.read(output).count("run-1") == (3, {"truncated": 1})
    if isinstance(error, StoppedError):
        said = "8 of 10 images are committed; the same command goes on"
        assert str(raised.value) == said


def test_what_is_committed_is_counted_where_ray_is_gone(
    output: Location, measures: Measures, claim: OutputClaim
) -> None:
    tracker: Any = measures.tracker
    ray.kill(tracker)
    for ids, failed in ((range(3), [1]), ([3], ())):
        measures.committer.commit([attempt(output, claim, ids, failed)])
    with pytest.raises(KeyError), writing_receipt(started(), output, measures):
        raise KeyError
    found = written(output)
    assert (found["maps"], found["errors"]) == (3, {"truncated": 1})
