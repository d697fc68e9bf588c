"""Verification: a healthy OUTPUT passes, and every kind of damage is found and named."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from job import pipeline, schema
from job.cli import main
from job.config import JobConfig
from job.errors import StorageError
from job.outputs import error_rows
from job.outputs.dataset_card import SCHEMA
from job.outputs.receipts import Receipt
from job.results import verification
from job.storage.location import Location
from job.storage.opening import locate
from tests.conftest import write_pictures

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def finished(ray_session: None, model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OUTPUT of twelve maps and one error row, and its input beside it."""
    place = tmp_path_factory.mktemp("verified")
    source = write_pictures(place / "in", 12)
    (source / "zero.jpg").write_bytes(b"")
    run(place, model_dir)
    return place


def run(place: Path, model: Path, **options: Any) -> Receipt:
    source, output = str(place / "in"), str(place / "out")
    config = JobConfig(
        input=source, output=output, model=str(model), progress="none", images_per_file=5, **options
    )
    return pipeline.run(config)


@pytest.fixture
def output(finished: Path, tmp_path: Path) -> Location:
    """A copy to damage."""
    import shutil

    return locate(str(shutil.copytree(finished / "out", tmp_path / "out")))


def some_file(output: Location, folder: str) -> Path:
    """The first of them that a run has written rows to."""
    files = sorted(Path(output.path, folder).glob("*.parquet"))
    return next(file for file in files if file.name != SCHEMA)


def test_healthy_output_is_complete(output: Location) -> None:
    verdict = verification.verify(output, deep=True)
    assert verdict.is_complete, verdict.problems
    assert (verdict.images, verdict.maps, verdict.open_errors, verdict.not_done) == (13, 12, 1, 0)


def test_image_with_two_maps_is_named(output: Location) -> None:
    file = some_file(output, "maps")
    pq.write_table(pq.read_table(file).slice(0, 1), file.with_name("copy.parquet"))
    problems = verification.verify(output).problems
    assert problems["images with more than one map"][0] == 1


def test_lost_data_file_is_a_committed_image_without_a_row(output: Location) -> None:
    lost = len(pq.read_table(some_file(output, "maps")))
    some_file(output, "maps").unlink()
    verdict = verification.verify(output)
    assert verdict.problems["committed images without a row"][0] == lost == verdict.not_done


def test_lost_commit_record_leaves_rows_that_were_never_committed(output: Location) -> None:
    some_file(output, "commits").unlink()
    assert "rows that were never committed" in verification.verify(output).problems


@pytest.mark.parametrize("folder", ["maps", "commits"])
def test_unreadable_file_is_named_once(output: Location, folder: str) -> None:
    file = some_file(output, folder)
    file.write_bytes(file.read_bytes()[:100])
    count, named = verification.verify(output, deep=True).problems["files that cannot be read"]
    assert (count, named) == (1, [f"{file} is damaged, or no Parquet file"])


def test_deep_finds_maps_that_do_not_decode_or_have_another_size(output: Location) -> None:
    file = some_file(output, "maps")
    rows = pq.read_table(file).to_pylist()
    rows[0]["map"]["bytes"] = b"no png"
    rows[1]["height"] += 1
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(file)), file)
    assert verification.verify(output).is_complete
    problems = verification.verify(output, deep=True).problems
    assert problems["maps that do not decode"][0] == 1
    assert problems["maps of another size than their row says"][0] == 1


def test_output_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="has no manifest"):
        verification.verify(locate(str(tmp_path)))


def test_last_attempt_at_an_image_is_what_counts(output: Location) -> None:
    (failed,) = pq.read_table(some_file(output, "errors")).to_pylist()
    for run_id, retryable in (("a", True), ("b", False)):
        row = {**failed, "id": 3, "retryable": retryable}
        table = pa.Table.from_pylist([row], schema=schema.ERRORS)
        pq.write_table(table, Path(output.path, "errors", f"{run_id}-000000.parquet"))
    for file in Path(output.path, "maps").iterdir():
        file.unlink()
    assert error_rows.open_errors(output, only_retryable=True).tolist() == []
    assert error_rows.open_errors(output, only_retryable=False).tolist() == [3, failed["id"]]


@pytest.mark.parametrize("verb", ["verify", "plan"])
def test_output_that_is_a_file_ends_in_a_sentence(
    verb: str, finished: Path, model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "file"
    output.write_bytes(b"")
    words = [verb, str(finished / "in"), str(output), "--model", str(model_dir)]
    assert main.main(words if verb == "plan" else [verb, str(output)]) == 3
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: ")
    assert "a file is in the way" in said


def test_retried_image_that_succeeds_leaves_no_open_error(finished: Path, model_dir: Path) -> None:
    good = (finished / "in" / "picture-0000.jpg").read_bytes()
    (finished / "in" / "zero.jpg").write_bytes(good)
    assert run(finished, model_dir, retry_errors="retryable").remaining == 0, "it is not retryable"
    assert run(finished, model_dir, retry_errors="all").maps == 1
    verdict = verification.verify(locate(str(finished / "out")), deep=True)
    assert verdict.is_complete, verdict.problems
    assert (verdict.maps, verdict.open_errors) == (13, 0)
