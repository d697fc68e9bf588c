"""Receipts: written when a run starts and again however it ends; what differs is named."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from job.cluster.progress import start_tracker
from job.cluster.resources import Cluster, Node, plan_resources
from job.config import JobConfig
from job.errors import JobError, OutputConflictError, StoppedError, StorageError
from job.models.checkpoint import Checkpoint, Origin
from job.models.loading import ModelInfo
from job.outputs import receipts
from job.outputs.measures import Measures
from job.outputs.receipts import Receipt, check_same_maps, new_run_id, read_all
from job.storage.location import Location, locate

ORIGIN = Origin("a/model", "c0ffee", "digest-1")
SETTINGS = {
    "precision": "float32",
    "preprocessing": "SegformerImageProcessorPil",
    "decode": "exact",
    "map_png": "palette",
}


@pytest.fixture
def output(tmp_path: Path) -> Location:
    return locate(str(tmp_path))


@pytest.fixture
def measures(ray_session: None) -> Measures:
    """Of a run with one predictor on a cluster of two CPUs."""
    resources = plan_resources(JobConfig(input="in", output="out"), Cluster((Node(2),)), 6)
    return Measures(start_tracker(), resources)


def started(images: int = 10, done_before: int = 4, **changes: Any) -> Receipt:
    card = ModelInfo(
        origin=ORIGIN, labels=("a",), size=None, preprocessing="SegformerImageProcessorPil"
    )
    settings = changes.get("settings", SETTINGS)
    run_id = changes.get("run_id", "run-1")
    return receipts.start(
        run_id, "in/", card.origin, settings, images=images, done_before=done_before
    )


def written(output: Location, run_id: str = "run-1") -> dict[str, Any]:
    return json.loads((output / "runs" / f"{run_id}.json").read_bytes())


def test_a_receipt_is_there_as_running_before_anything_is_done(
    output: Location, measures: Measures
) -> None:
    with started().kept_in(output, measures):
        found = written(output)
    assert (found["status"], found["images"], found["done_before"]) == ("running", 10, 4)
    assert found["model"] == {"name": "a/model", "revision": "c0ffee", "digest": "digest-1"}
    assert found["settings"] == SETTINGS
    assert found["started"]
    assert found["ended"] == ""
    assert set(found["versions"]) >= {"ray", "torch", "transformers"}


def test_a_finished_run_says_what_it_has_done(output: Location, measures: Measures) -> None:
    tracker = measures.tracker
    tracker.add.remote({"decode": 2.0, "fetch": 0.0}, {"decode": 6, "fetch": 6}, 3)
    tracker.add.remote({"forward": 1.0}, {"forward": 6})
    tracker.commit.remote(0, 5, {"truncated": 1})
    with started().kept_in(output, measures) as writer:
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
    measures.tracker.add.remote({"decode": 2.0}, {"decode": 6})
    with started().kept_in(output, beside_gpus):
        pass
    assert written(output)["stages"]["decode"]["busy"] == 0.5, "one of two CPUs"


def test_a_run_that_is_told_to_stop_says_so_at_once(output: Location, measures: Measures) -> None:
    measures.tracker.commit.remote(0, 5, {})
    with started().kept_in(output, measures) as writer:
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
    with pytest.raises(type(error)), started().kept_in(output, measures):
        raise error
    found = written(output)
    assert (found["status"], found["message"]) == (status, message)
    assert found["ended"]
    assert found["seconds"] >= 0


def test_an_error_whose_text_starts_with_a_line_break_is_recorded_and_raised(
    output: Location, measures: Measures
) -> None:
    with pytest.raises(ValueError, match="the reason"), started().kept_in(output, measures):
        raise ValueError("\nthe reason")
    assert written(output)["status"] == "failed"
    assert "the reason" in written(output)["message"]


def test_a_rate_is_maps_and_failures_by_the_second() -> None:
    receipt = started().ending("finished", maps=5, errors={"empty": 1}, seconds=2.0)
    assert receipt.images_per_second == 3.0
    assert started().images_per_second == 0.0


def test_run_ids_sort_by_time_and_do_not_repeat() -> None:
    names = [new_run_id() for _ in range(50)]
    assert len(set(names)) > 45
    assert all(len(name) == len(names[0]) and name[8] == "T" for name in names)


def test_receipts_are_read_oldest_first(output: Location) -> None:
    for run_id in ("20260102T000000-aaaa", "20260101T000000-ffff"):
        started(run_id=run_id).write(output)
    (output / "runs" / "notes.txt").write_bytes(b"not a receipt")
    assert [found["run_id"][:8] for found in read_all(output)] == ["20260101", "20260102"]


def test_no_receipts_is_an_output_for_any_model(output: Location) -> None:
    assert read_all(output) == []
    check_same_maps(output, ORIGIN, SETTINGS)


def leave_a_commit(output: Location) -> None:
    """As a run does that has made a map."""
    (output / "checkpoint" / "run-1-000000.parquet").write_bytes(b"")


def test_a_run_that_has_made_nothing_binds_nobody(output: Location) -> None:
    started(run_id="run-0", model={"name": "b/model", "revision": None, "digest": "2"}).write(
        output
    )
    check_same_maps(output, ORIGIN, SETTINGS)
    started().write(output)
    leave_a_commit(output)
    check_same_maps(output, ORIGIN, SETTINGS)
    with pytest.raises(OutputConflictError, match="the model was a/model"):
        check_same_maps(output, Origin("b/model", None, "2"), SETTINGS)


def test_the_same_model_and_settings_go_on(output: Location) -> None:
    started().write(output)
    leave_a_commit(output)
    check_same_maps(output, ORIGIN, SETTINGS)
    moved = Origin("s3://elsewhere/model", None, ORIGIN.digest)
    check_same_maps(output, moved, SETTINGS)


def test_what_older_receipts_do_not_say_was_the_default(output: Location) -> None:
    older = {n: value for n, value in SETTINGS.items() if n not in ("decode", "map_png")}
    started(settings=older).write(output)
    leave_a_commit(output)
    check_same_maps(output, ORIGIN, SETTINGS)
    with pytest.raises(OutputConflictError, match="decode was 'exact' and is now 'reduced'"):
        check_same_maps(output, ORIGIN, {**SETTINGS, "decode": "reduced"})


@pytest.mark.parametrize(
    ("origin", "settings", "says"),
    [
        (Origin("b/model", None, "2"), SETTINGS, "the model was a/model and is now b/model"),
        (
            Origin("a/model", "decaf", "2"),
            SETTINGS,
            "the model's revision was c0ffee and is now decaf",
        ),
        (Origin("a/model", "c0ffee", "2"), SETTINGS, "files of the model a/model have changed"),
        (
            ORIGIN,
            {**SETTINGS, "precision": "bfloat16"},
            "precision was 'float32' and is now 'bfloat16'",
        ),
        (ORIGIN, {**SETTINGS, "folded": True}, "folded was None and is now True"),
        (ORIGIN, {**SETTINGS, "decode": "reduced"}, "decode was 'exact' and is now 'reduced'"),
        (
            ORIGIN,
            {**SETTINGS, "map_png": "grayscale"},
            "map_png was 'palette' and is now 'grayscale'",
        ),
        (
            Origin("b/model", None, "2"),
            {**SETTINGS, "preprocessing": "Other"},
            "the model was .*; preprocessing was 'SegformerImageProcessorPil' and is now 'Other'",
        ),
    ],
)
def test_what_would_make_other_maps_is_named_with_the_way_out(
    output: Location, origin: Origin, settings: dict[str, Any], says: str
) -> None:
    started().write(output)
    leave_a_commit(output)
    with pytest.raises(OutputConflictError, match=f"{says}.*another OUTPUT"):
        check_same_maps(output, origin, settings)


def test_auto_is_what_the_first_run_has_settled(output: Location) -> None:
    auto = {**SETTINGS, "precision": "auto"}
    assert check_same_maps(output, ORIGIN, auto) == auto
    started(settings={**SETTINGS, "precision": "bfloat16"}).write(output)
    leave_a_commit(output)
    assert check_same_maps(output, ORIGIN, auto)["precision"] == "bfloat16"
    assert auto["precision"] == "auto", "the caller's settings are left as they are"
    with pytest.raises(OutputConflictError, match="'bfloat16' and is now 'float32'"):
        check_same_maps(output, ORIGIN, SETTINGS)


def test_a_receipt_names_its_input_wherever_it_is_read_from(tmp_path: Path) -> None:
    card = ModelInfo(origin=ORIGIN, labels=("a",), size=None, preprocessing="P")
    for source, said in (
        ("in/", str(Path.cwd() / "in")),
        (str(tmp_path / "*.jpg"), str(tmp_path / "*.jpg")),
        ("s3://bucket/in/", "s3://bucket/in/"),
    ):
        receipt = receipts.start("run-1", source, card, SETTINGS, images=1, done_before=0)
        assert receipt.input == said


def test_the_settings_are_those_that_decide_what_the_maps_are(model_dir: Path) -> None:
    card = ModelInfo.of(Checkpoint.from_model(str(model_dir)))
    config = JobConfig(input="in", output="out", batch_size=3, workers=5)
    assert receipts.settings_of(config, card) == SETTINGS
    reference = receipts.settings_of(config.model_copy(update={"reference": True}), card)
    assert reference != SETTINGS


def test_a_checkpoint_tells_the_receipt_where_it_came_from(
    output: Location, model_dir: Path
) -> None:
    card = ModelInfo.of(Checkpoint.from_model(str(model_dir)))
    receipts.start("run-1", "in", card.origin, SETTINGS, images=1, done_before=0).write(output)
    found = written(output)
    assert found["model"]["name"] == str(model_dir)
    assert len(found["model"]["digest"]) == 64
    check_same_maps(output, card.origin, SETTINGS)


# Counts are of what is committed


def commit(output: Location, task: int, ids: list[int], *kinds: str) -> None:
    """As a write task does: its record, and a row for each of the ids that failed."""
    name = f"run-1-{task:06d}"
    (output / "checkpoint" / f"{name}.parquet").write_bytes(parquet(id=ids))
    if kinds:
        (output / "errors" / f"{name}.parquet").write_bytes(
            parquet(error_type=list(kinds), message=["why"] * len(kinds), uri=["a"] * len(kinds))
        )


def parquet(**columns: list[Any]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("error", [StoppedError("told to stop"), StorageError("no space")])
def test_a_run_that_ends_early_counts_what_is_committed_and_gives_the_output_back_first(
    output: Location, measures: Measures, error: JobError
) -> None:
    held = [True]
    measures.tracker.commit.remote(0, 3, {"empty": 1})
    measures.tracker.commit.remote(1, 5, {})  # told, and never renamed

    def release() -> None:
        commit(output, 0, [1, 2, 3, 4], "empty")  # the last that could
        held.clear()

    with (
        pytest.raises(type(error)) as raised,
        started(images=10, done_before=4).kept_in(output, measures, release),
    ):
        raise error
    found = written(output)
    assert (found["maps"], found["errors"]) == (3, {"empty": 1})
    assert found["ended"]
    assert not held
    if isinstance(error, StoppedError):
        said = "8 of 10 images are committed; the same command goes on"
        assert str(raised.value) == said


def test_counts_come_from_storage_where_ray_is_gone(output: Location, measures: Measures) -> None:
    ray.kill(measures.tracker)
    commit(output, 0, [1, 2, 3], "empty")
    commit(output, 1, [4])
    with pytest.raises(KeyError), started().kept_in(output, measures):
        raise KeyError
    found = written(output)
    assert (found["maps"], found["errors"]) == (3, {"empty": 1})


@pytest.mark.parametrize("status", ["running", "stopped"])
def test_the_next_run_puts_right_what_a_killed_one_has_left(output: Location, status: str) -> None:
    replace(started(), status=status, maps=1).write(output)
    replace(started(run_id="run-0"), status="finished", ended="then", maps=7).write(output)
    commit(output, 0, [1, 2, 3], "empty")
    (output / "checkpoint" / "run-10-000000.parquet").write_bytes(parquet(id=[9]))
    (output / "runs" / "damaged.json").write_bytes(b"{")
    receipts.settle(output)
    found = written(output)
    assert (found["maps"], found["errors"]) == (2, {"empty": 1})
    assert found["status"] == ("stopped" if status == "stopped" else "failed")
    assert found["ended"]
    assert found["message"].startswith("killed")
    assert written(output, "run-0")["maps"] == 7, "one that has ended is left as it is"
    settled = (output / "runs" / "run-1.json").read_bytes()
    receipts.settle(output)
    assert (output / "runs" / "run-1.json").read_bytes() == settled
