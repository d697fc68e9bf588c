"""Receipts: they say what a run was, and are read back as they were written."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from job.errors import OutputConflictError
from job.models.checkpoint import Checkpoint, Origin
from job.models.info import ModelInfo
from job.outputs import receipts
from job.outputs.claims import OutputClaim
from job.outputs.receipts import Receipt, Status, new_run_id, read_all
from job.outputs.recovery import recover
from job.outputs.same_maps import check_same_maps
from job.storage.location import Location
from job.storage.opening import locate
from tests.runs import RUNS, Hands, at_move, run, run_until

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


def started(
    run_id: str = "run-1",
    *,
    origin: Origin = ORIGIN,
    settings: dict[str, Any] = SETTINGS,
    images: int = 10,
    done_before: int = 4,
) -> Receipt:
    return receipts.begin(run_id, "in/", origin, settings, images=images, done_before=done_before)


def written(output: Location, run_id: str = "run-1") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "runs" / f"{run_id}.json").read_bytes())
    return found


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
        started(run_id).write(output)
    (output / "runs" / "notes.txt").write_bytes(b"not a receipt")
    assert [found.run_id[:8] for found in read_all(output)] == ["20260101", "20260102"]


def test_a_receipt_is_read_back_as_it_was_written(output: Location) -> None:
    stages = {"decode": {"seconds": 2.0, "images": 6.0, "busy": 0.5}}
    more = {"maps": 5, "errors": {"empty": 1}, "stages": stages, "allotment": {"load_cpus": 0.5}}
    receipt = started().ending("finished", seconds=2.5, message="ünd", **more)
    receipt.write(output)
    assert read_all(output) == [receipt]
    assert written(output)["format"] == receipts.FORMAT
    assert written(output)["images_per_second"] == 2.4


def test_what_is_written_carries_no_secret(output: Location) -> None:
    origin = Origin("https://user:secret@hub/model", None, "digest")
    replace(started(origin=origin), input="s3://key:secret@bucket/in").write(output)
    assert b"secret" not in (output / "runs" / "run-1.json").read_bytes()


def test_no_receipts_is_an_output_for_any_model(output: Location) -> None:
    assert read_all(output) == []
    check_same_maps(output, ORIGIN, SETTINGS)


def test_a_receipt_names_its_input_wherever_it_is_read_from(tmp_path: Path) -> None:
    for source, said in (
        ("in/", str(Path.cwd() / "in")),
        (str(tmp_path / "*.jpg"), str(tmp_path / "*.jpg")),
        ("s3://bucket/in/", "s3://bucket/in/"),
    ):
        receipt = receipts.begin("run-1", source, ORIGIN, SETTINGS, images=1, done_before=0)
        assert receipt.input == said


def test_a_checkpoint_tells_the_receipt_where_it_came_from(
    output: Location, model_dir: Path
) -> None:
    card = ModelInfo.of(Checkpoint.from_model(str(model_dir)))
    receipts.begin("run-1", "in", card.origin, SETTINGS, images=1, done_before=0).write(output)
    found = written(output)
    assert found["model"]["name"] == str(model_dir)
    assert len(found["model"]["digest"]) == 64
    check_same_maps(output, card.origin, SETTINGS)


@pytest.mark.parametrize("status", ["running", "stopped"])
def test_the_next_run_puts_right_what_a_killed_one_has_left(
    output: Location, status: Status
) -> None:
    replace(started(), status=status, maps=1).write(output)
    replace(started("run-0"), status="finished", ended="then", maps=7).write(output)
    run(output, [1, 2, 3], failed=[2], run_id="run-1")
    run(output, [9], run_id="run-10")
    (output / "runs" / "damaged.json").write_bytes(b"{")
    settle(output)
    found = written(output)
    assert (found["maps"], found["errors"]) == (2, {"truncated": 1})
    assert found["status"] == ("stopped" if status == "stopped" else "failed")
    assert found["ended"]
    assert found["message"].startswith("killed")
    assert written(output, "run-0")["maps"] == 7, "one that has ended is left as it is"
    settled = (output / "runs" / "run-1.json").read_bytes()
    settle(output)
    assert (output / "runs" / "run-1.json").read_bytes() == settled


def test_what_a_killed_run_had_committed_and_not_moved_is_counted(output: Location) -> None:
    started().write(output)
    assert run_until(at_move, output, range(4), failed=[1], run_id="run-1")
    settle(output)
    found = written(output)
    assert (found["maps"], found["errors"]) == (3, {"truncated": 1})


def test_the_receipt_of_a_run_that_took_over_is_its_own_affair(output: Location) -> None:
    with OutputClaim(output, "run-1", clock=Hands()) as claim:
        found = recover(output, claim)
    run(output, range(4), run_id="run-2")
    for run_id in ("run-0", "run-2"):
        started(run_id).write(output)
    with pytest.raises(OutputConflictError):
        receipts.settle(output, found, claim)
    claim.ask = lambda: None  # type: ignore[method-assign]  # it has just asked
    receipts.settle(output, found, claim)
    assert written(output, "run-0")["status"] == "failed"
    assert written(output, "run-2")["status"] == "running"


def settle(output: Location) -> None:
    """As the next run does."""
    with OutputClaim(output, RUNS[9], clock=Hands()) as claim:
        receipts.settle(output, recover(output, claim), claim)
