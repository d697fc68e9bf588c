"""Same maps: what would make other maps than those of earlier runs is named."""

from pathlib import Path
from typing import Any

import pytest

from job.config import JobConfig
from job.errors import OutputConflictError
from job.models.checkpoint import Checkpoint, Origin
from job.models.info import ModelInfo
from job.outputs.same_maps import check_same_maps, settings_of
from job.storage.location import Location
from tests.unit.test_receipts import ORIGIN, SETTINGS, started


def leave_a_commit(output: Location) -> None:
    """As a run does that has made a map."""
    (output / "maps" / "e000001-run-1-000000.parquet").write_bytes(b"")


def test_a_run_that_has_made_nothing_binds_nobody(output: Location) -> None:
    started("run-0", origin=Origin("b/model", None, "2")).write(output)
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


def test_what_the_reference_has_made_is_not_gone_on_with_by_measurement(output: Location) -> None:
    leave_a_commit(output)
    started(settings={**SETTINGS, "precision": "float32 (reference)"}).write(output)
    with pytest.raises(OutputConflictError, match=r"float32 \(reference\)' and is now 'auto'"):
        check_same_maps(output, ORIGIN, {**SETTINGS, "precision": "auto"})


def test_the_settings_are_those_that_decide_what_the_maps_are(model_dir: Path) -> None:
    card = ModelInfo.of(Checkpoint.from_model(str(model_dir)))
    config = JobConfig(input="in", output="out", batch_size=3, workers=5)
    assert settings_of(config, card) == SETTINGS
    reference = settings_of(config.model_copy(update={"reference": True}), card)
    assert reference != SETTINGS
