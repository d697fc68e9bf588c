"""An OUTPUT of an earlier release is read as it is; one of a later release is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from job.cli import main
from job.errors import OutputConflictError
from job.models.checkpoint import Origin
from job.outputs import commits, receipts
from job.outputs.claims import OutputClaim
from job.outputs.commits import Commits
from job.outputs.dataset_card import read_labels, write_card
from job.outputs.palette import palette
from job.outputs.receipts import Receipt
from job.outputs.recovery import recover
from job.outputs.same_maps import check_same_maps
from job.results.verification import verify
from job.storage import parquet
from job.storage.location import Location
from job.storage.opening import locate
from tests.runs import RUNS, Hands, ids_in, run

ROOT = Path(__file__).parents[2]
EARLIER = ROOT / "tests" / "data" / "earlier"
RUN = "20261128T230544-0c80"


@pytest.fixture
def output(tmp_path: Path) -> Location:
    """What a run of the release before ``commits/`` left when it was killed."""
    return locate(str(shutil.copytree(EARLIER / "output", tmp_path / "out")))


def test_what_was_committed_before_is_done(output: Location) -> None:
    found = Commits.read(output)
    assert found.done().tolist() == [0, 1, 3]
    assert commits.runs(output) == [RUN]
    assert found.count(RUN) == (3, {})
    assert [parquet.read(file)["id"].to_pylist() for file in found.manifest_files()] == [
        list(range(8))
    ]


def test_commits_of_every_format_count(output: Location) -> None:
    of_format_2 = "20270101T000000-abcd-000000.parquet"
    rows = parquet.to_bytes(pa.table({"id": pa.array([2, 4], pa.int64())}))
    for folder in ("commits", "maps"):
        (output / folder / of_format_2).write_bytes(rows)
    run(output, range(7), failed=[6], run_id=RUNS[0])
    found = Commits.read(output)
    assert found.done().tolist() == list(range(7))
    assert commits.runs(output) == [RUN, "20270101T000000-abcd", RUNS[0]]
    assert found.count(RUN) == (3, {})
    assert found.count("20270101T000000-abcd") == (2, {})
    assert found.count(RUNS[0]) == (1, {"truncated": 1})
    assert run(output, range(7), run_id=RUNS[1]).done().tolist() == list(range(7))
    assert ids_in(output, "maps") == list(range(6))


def test_recovery_removes_what_was_left_pending_in_either_folder(output: Location) -> None:
    (output / "commits" / "20270101T000000-abcd-000000.pending.parquet").write_bytes(b"")
    (output / "maps" / "20270101T000000-abcd-000000.parquet").write_bytes(b"")
    found = run(output, ())
    assert len([name for name in found.void if name.endswith(".pending.parquet")]) == 3
    assert found.done().tolist() == [0, 1, 3]
    committed = [f"{RUN}-{task:06d}.parquet" for task in (0, 1, 3)]
    assert (output / "maps").names() == (output / "checkpoint").names() == committed
    assert (output / "commits").names() == []
    assert (output / "errors").names() == ["0-schema.parquet"]
    assert not (output / "lock.json").exists()
    assert Commits.read(output).void == {}


def test_verify_finds_what_is_there_and_what_is_left_to_do(output: Location) -> None:
    left = f"errors/{RUN}-000002.parquet"
    verdict = verify(output, deep=True)
    assert (verdict.maps, verdict.open_errors, verdict.not_done) == (3, 0, 5)
    assert verdict.problems == {"files without a commit record that counts": (1, [left])}
    count, named = verdict.notes["commit records that do not count"]
    assert (count, len(named)) == (2, 2), "they are pending"
    with OutputClaim(output, "20270101T000000-abcd", beat_seconds=0.05) as claim:
        recover(output, claim)
    verdict = verify(output, deep=True)
    assert (verdict.maps, verdict.open_errors, verdict.not_done) == (3, 0, 5)
    assert not verdict.problems
    assert not verdict.notes


def test_its_receipt_is_read_and_settled_in_its_own_format(output: Location) -> None:
    (found,) = receipts.read_all(output)
    assert (found.format, found.run_id, found.status) == (1, RUN, "running")
    assert (found.input, found.model.name) == ("s3://earlier/images", "job/demo/model")
    before = stored(output)
    settle(output)
    (settled,) = receipts.read_all(output)
    assert (settled.status, settled.maps, settled.errors) == ("failed", 3, {})
    changed = {"status", "ended", "maps", "errors", "message"}
    kept = {name: value for name, value in stored(output).items() if name not in changed}
    assert kept == {name: value for name, value in before.items() if name not in changed}
    assert list(stored(output)) == list(before)


def test_other_maps_are_refused_beside_those_of_before(output: Location) -> None:
    (found,) = receipts.read_all(output)
    check_same_maps(output, found.model, found.settings)
    with pytest.raises(OutputConflictError, match="the model was job/demo/model and is now other"):
        check_same_maps(output, Origin("other", None, "0"), found.settings)
    names = [label["name"] for label in read_labels(output) or []]
    with pytest.raises(OutputConflictError, match="has other classes"):
        write_card(output, [*names, "more"], palette([*names, "more"]))
    colours = np.array([label["color"] for label in read_labels(output) or []], np.uint8)
    write_card(output, names, colours)


def settle(output: Location) -> None:
    """As the next run does."""
    with OutputClaim(output, RUNS[0], clock=Hands()) as claim:
        receipts.settle(output, recover(output, claim), claim)


def stored(output: Location, run_id: str = RUN) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "runs" / f"{run_id}.json").read_bytes())
    return found


def of_later_release(output: Location, **more: Any) -> None:
    """Leave a receipt in a format that is yet to come."""
    later = {"format": 99, "how": ["ever", "it"], **more}
    (output / "runs" / "20991231T000000-0000.json").write_bytes(json.dumps(later).encode())


@pytest.mark.parametrize("verb", ["run", "plan", "verify", "evaluate"])
def test_every_verb_refuses_what_a_later_release_has_written(
    output: Location, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    of_later_release(output, versions={"ray-batch-segmentation": "9.0"})
    before = sorted(Path(output.path).rglob("*"))
    words = {
        "verify": [output.path],
        "evaluate": [output.path, "--truth", str(EARLIER)],
    }.get(verb, [str(EARLIER / "images"), output.path, "--model", str(ROOT / "job/demo/model")])
    assert main.main([verb, *words]) == 5
    said = capsys.readouterr().err
    assert "OUTPUT has format 99" in said
    assert "was written by ray-batch-segmentation 9.0, and this is" in said
    assert "knows formats up to 3. Upgrade ray-batch-segmentation" in said
    assert sorted(Path(output.path).rglob("*")) == before, "nothing was written"


@pytest.mark.parametrize("more", [{}, {"versions": []}, {"versions": {"ray": "3"}}])
def test_a_later_release_that_does_not_tell_its_version_is_refused_all_the_same(
    output: Location, more: dict[str, Any]
) -> None:
    of_later_release(output, **more)
    for refuses in (receipts.check_format, receipts.read_all, settle):
        with pytest.raises(OutputConflictError, match="by ray-batch-segmentation of a newer ver"):
            refuses(output)


def test_what_a_later_release_of_this_format_adds_is_ignored_and_kept(output: Location) -> None:
    added = {"energy": {"kWh": 2}, "model": {**stored(output)["model"], "license": "mit"}}
    record = {**stored(output), **added, "format": receipts.FORMAT}
    (output / "runs" / f"{RUN}.json").write_bytes(json.dumps(record).encode())
    receipts.check_format(output)
    (found,) = receipts.read_all(output)
    assert isinstance(found, Receipt)
    settle(output)
    assert {name: stored(output)[name] for name in added} == added


@pytest.mark.parametrize(
    "change",
    [{"maps": "many"}, {"errors": [1]}, {"status": 5}, {"model": None}, {"format": "two"}],
)
def test_a_damaged_receipt_is_a_sentence_for_who_needs_it(
    output: Location, change: dict[str, Any]
) -> None:
    record = {**stored(output), **change}
    (output / "runs" / f"{RUN}.json").write_bytes(json.dumps(record).encode())
    receipts.check_format(output)
    settle(output)
    with pytest.raises(Exception, match=r"\.json is no receipt, or a damaged one. Remove it"):
        receipts.read_all(output)
