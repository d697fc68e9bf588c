"""Receipts: written when a run starts and again however it ends; what differs is named."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from job.config import JobConfig
from job.errors import OutputConflictError
from job.models.checkpoint import Checkpoint, Origin
from job.models.info import ModelInfo
from job.outputs import receipts
from job.outputs.receipts import Receipt, new_run_id, read_all
from job.outputs.same_maps import check_same_maps, settings_of
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
    assert [found.run_id[:8] for found in read_all(output)] == ["20260101", "20260102"]


def test_no_receipts_is_an_output_for_any_model(output: Location) -> None:
    assert read_all(output) == []
    check_same_maps(output, ORIGIN, SETTINGS)


def leave_a_commit(output: Location) -> None:
    """As a run does that has made a map."""
    (output / "commits" / "run-1-000000.parquet").write_bytes(b"")


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
    for source, said in (
        ("in/", str(Path.cwd() / "in")),
        (str(tmp_path / "*.jpg"), str(tmp_path / "*.jpg")),
        ("s3://bucket/in/", "s3://bucket/in/"),
    ):
        receipt = receipts.start("run-1", source, ORIGIN, SETTINGS, images=1, done_before=0)
        assert receipt.input == said


def test_the_settings_are_those_that_decide_what_the_maps_are(model_dir: Path) -> None:
    card = ModelInfo.of(Checkpoint.from_model(str(model_dir)))
    config = JobConfig(input="in", output="out", batch_size=3, workers=5)
    assert settings_of(config, card) == SETTINGS
    reference = settings_of(config.model_copy(update={"reference": True}), card)
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


def commit(output: Location, task: int, ids: list[int], *kinds: str) -> None:
    """As a write task does: its record, and a row for each of the ids that failed."""
    name = f"run-1-{task:06d}"
    (output / "commits" / f"{name}.parquet").write_bytes(parquet(id=ids))
    if kinds:
        (output / "errors" / f"{name}.parquet").write_bytes(
            parquet(error_type=list(kinds), message=["why"] * len(kinds), uri=["a"] * len(kinds))
        )


def parquet(**columns: list[Any]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("status", ["running", "stopped"])
def test_the_next_run_puts_right_what_a_killed_one_has_left(output: Location, status: str) -> None:
    replace(started(), status=status, maps=1).write(output)
    replace(started(run_id="run-0"), status="finished", ended="then", maps=7).write(output)
    commit(output, 0, [1, 2, 3], "empty")
    (output / "commits" / "run-10-000000.parquet").write_bytes(parquet(id=[9]))
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
