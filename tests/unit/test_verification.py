"""Verification: a healthy OUTPUT passes, and every kind of damage is found and named."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray  # noqa: F401  # registers types of Arrow

from job import schema
from job.cli import main, text
from job.errors import StorageError
from job.kernels.png import encode_map
from job.outputs import names
from job.outputs.commits import Commits
from job.outputs.dataset_card import LABELS, SCHEMA
from job.results import verification
from job.results.verification import Verdict, verify
from job.storage import parquet
from job.storage.location import Location
from job.storage.opening import locate
from tests import made_outputs as made
from tests.made_outputs import COLOURS, URIS, change, class_ids, do_run, files, table, write

FAILING = (3, 7)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OUTPUT of three tasks, ten maps and two error rows."""
    place = tmp_path_factory.mktemp("verified") / "out"
    do_run(locate(str(place)), failing=FAILING)
    return place


@pytest.fixture
def output(finished: Path, tmp_path: Path) -> Location:
    """A copy to damage."""
    return locate(str(shutil.copytree(finished, tmp_path / "out")))


def counts(verdict: Verdict) -> dict[str, int]:
    return {kind: count for kind, (count, _) in verdict.problems.items()}


def problems(output: Location, *, deep: bool = False) -> dict[str, int]:
    """What verify finds, by kind; whatever it finds can be shown."""
    verdict = verify(output, deep=deep)
    shown = text.of_verdict(verdict)
    assert shown.isprintable() or all(line.isprintable() for line in shown.splitlines())
    assert verdict.is_complete == ("has exactly one map or error row" in shown)
    return counts(verdict)


def first(output: Location, folder: str) -> str:
    return files(output, folder)[0]


def rows(output: Location, folder: str, task: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = table(output, files(output, folder)[task]).to_pylist()
    return found


def unreadable(folder: str) -> str:
    """What verify calls a file of a folder that holds something else."""
    if folder == "manifest":
        return "lost or damaged parts of the manifest"
    return "files that cannot be read"


def add(output: Location, name: str, task: int = 0) -> None:
    """Put a copy of a file of maps/ under another name."""
    (output / name).write_bytes((output / files(output, "maps")[task]).read_bytes())


def test_a_healthy_output_is_complete(output: Location) -> None:
    verdict = verify(output, deep=True)
    assert verdict.is_complete, verdict.problems
    assert (verdict.images, verdict.maps, verdict.open_errors, verdict.not_done) == (12, 10, 2, 0)
    assert not verdict.notes
    assert text.of_verdict(verdict).splitlines() == [
        "12 images: 10 maps, 2 errors, 0 not done",
        "  every image has exactly one map or error row",
    ]


def test_nothing_is_changed(output: Location) -> None:
    def content() -> dict[str, tuple[bytes, int]]:
        found = (path for path in Path(output.path).rglob("*") if path.is_file())
        return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}

    (output / first(output, "maps")).delete()
    (output / "attempts" / "e000001-x-00.maps.parquet").write_bytes(b"")
    before = content()
    assert not verify(output, deep=True).is_complete
    assert content() == before


def test_an_output_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="has no manifest"):
        verify(locate(str(tmp_path)))


# What is listed


def test_a_manifest_of_another_output_is_found(output: Location) -> None:
    name = first(output, "manifest")
    foreign = table(output, name).to_pylist()
    for row in foreign:
        row["uri"] = row["uri"].replace("photos", "others")
    write(output, name, pa.Table.from_pylist(foreign, schema=schema.MANIFEST))
    assert problems(output) == {"rows of another URI than the manifest has": 12}
    _, named = verify(output).problems["rows of another URI than the manifest has"]
    assert f"image 0 in {first(output, 'maps')}: {URIS[0]}" in named


def test_a_file_of_another_manifest_beside_it_is_found(output: Location) -> None:
    (output / "manifest" / "other.parquet").write_bytes(b"PAR1")
    assert problems(output) == {"files that no run has written": 1}


def test_a_manifest_of_another_size_than_committed_is_found(output: Location) -> None:
    name = first(output, "manifest")
    (output / name).write_bytes(parquet.to_bytes(table(output, name).slice(0, 5)))
    assert problems(output) == {"lost or damaged parts of the manifest": 1}
    (output / name).delete()
    assert problems(output) == {"lost or damaged parts of the manifest": 1}


def test_an_image_that_is_listed_twice_is_found(output: Location) -> None:
    listed = table(output, first(output, "manifest"))
    (output / "manifest" / "part-000000000000.parquet").write_bytes(
        parquet.to_bytes(listed.slice(2, 3))
    )
    assert problems(output) == {"images that are listed more than once": 3}


def test_a_uri_with_two_ids_is_found(output: Location) -> None:
    change(output, first(output, "manifest"), 9, uri=URIS[4])
    found = verify(output).problems
    assert found["URIs with more than one id"] == (1, [f"{URIS[4]}: images 4 and 9"])
    assert found["rows of another URI than the manifest has"][0] == 1


def test_parts_of_one_object_are_images_of_their_own(output: Location) -> None:
    name = first(output, "manifest")
    listed = table(output, name).to_pylist()
    shards = [{**row, "uri": "s3://shard.tar", "part": f"{row['id']}.jpg"} for row in listed]
    write(output, name, pa.Table.from_pylist(shards, schema=schema.MANIFEST))
    assert set(problems(output)) == {"rows of another URI than the manifest has"}
    shards[5]["part"] = "4.jpg"
    write(output, name, pa.Table.from_pylist(shards, schema=schema.MANIFEST))
    found = verify(output).problems["URIs with more than one id"]
    assert found == (1, ["s3://shard.tar (4.jpg): images 4 and 5"])


def test_addresses_of_web_servers_are_compared_as_rows_have_them(tmp_path: Path) -> None:
    output = locate(str(tmp_path / "out"))
    do_run(output, [f"https://host/{number}.jpg?token=secret{number}" for number in range(3)])
    assert problems(output, deep=True) == {}
    (row, *_) = rows(output, "maps")
    assert "secret" not in row["uri"]


def test_a_row_of_an_image_that_is_not_listed_is_found(output: Location) -> None:
    change(output, first(output, "maps"), 0, id=99)
    assert problems(output) == {
        "rows of images that are not listed": 1,
        "committed images without a row": 1,
        "rows that were never committed": 1,
    }
    _, named = verify(output).problems["rows of images that are not listed"]
    assert named == [f"image 99 in {first(output, 'maps')}"]
    assert verify(output).not_done == 1


# Exactly once


def test_an_image_with_two_maps_is_named_with_both_files(output: Location) -> None:
    add(output, "maps/copy.parquet")
    found = verify(output).problems
    count, named = found["images with more than one map"]
    assert count == 4
    assert named[0] == f"image 0: {first(output, 'maps')}, maps/copy.parquet"
    assert found["files that no run has written"] == (1, ["maps/copy.parquet"])


def test_two_maps_of_one_image_in_one_file_are_found(output: Location) -> None:
    change(output, first(output, "maps"), 1, id=0, uri=URIS[0])
    assert problems(output) == {
        "images with more than one map": 1,
        "committed images without a row": 1,
    }


def test_a_map_and_an_error_row_of_one_task_are_found(output: Location) -> None:
    name = first(output, "errors")
    change(output, name, 0, id=0, uri=URIS[0])
    assert problems(output)["images with a map and an error row of one run"] == 1
    assert problems(output)["rows that contradict their commit record"] == 1


def test_two_error_rows_of_one_run_are_found(output: Location) -> None:
    change(output, files(output, "errors")[1], 0, id=3, uri=URIS[3])
    assert problems(output)["images with two error rows of one run"] == 1


def test_a_map_and_an_error_row_of_one_run_of_an_earlier_release_are_found(tmp_path: Path) -> None:
    earlier = ROOT / "tests" / "data" / "earlier" / "output"
    output = locate(str(shutil.copytree(earlier, tmp_path / "out")))
    run = "20261128T230544-0c80"
    failed = table(output, f"errors/{run}-000002.parquet").to_pylist()[0]
    uri = table(output, f"maps/{run}-000000.parquet")["uri"][0].as_py()
    both = pa.Table.from_pylist([{**failed, "id": 0, "uri": uri}], schema=schema.ERRORS)
    (output / "errors" / f"{run}-000000.parquet").write_bytes(parquet.to_bytes(both))
    found = verify(output).problems["images with a map and an error row of one run"]
    assert found == (1, [f"image 0: maps/{run}-000000.parquet, errors/{run}-000000.parquet"])


def test_an_error_and_a_later_map_are_as_it_should_be(output: Location) -> None:
    do_run(output, retries=True, failing=(3,))
    verdict = verify(output, deep=True)
    assert verdict.is_complete, verdict.problems
    assert (verdict.maps, verdict.open_errors) == (11, 1)
    do_run(output, retries=True)
    verdict = verify(output, deep=True)
    assert verdict.is_complete, verdict.problems
    assert (verdict.maps, verdict.open_errors) == (12, 0)


def test_an_error_row_that_is_later_than_the_map_is_found(output: Location) -> None:
    do_run(output, retries=True, failing=(3, 7))
    name = next(name for name in files(output, "errors") if "/e000002" in name)
    change(output, name, 0, id=0, uri=URIS[0])
    found = verify(output).problems
    count, named = found["images with an error row later than their map"]
    assert (count, named) == (1, [f"image 0: {first(output, 'maps')}, {name}"])


# Rows and their commit records


def test_an_uncommitted_map_of_an_image_that_has_an_error_is_found(output: Location) -> None:
    failed = table(output, first(output, "manifest")).slice(FAILING[0], 1)
    made_rows = made.encoded(failed, "x").drop_columns(["error"])
    (output / "maps" / "e000001-x-000000.parquet").write_bytes(parquet.to_bytes(made_rows))
    assert problems(output) == {"files without a commit record that counts": 1}
    verdict = verify(output)
    assert (verdict.maps, verdict.open_errors) == (10, 2), "it does not count"
    assert "the next run removes files without a record" in text.of_verdict(verdict)


def test_a_map_of_an_image_that_is_committed_as_an_error_is_found(output: Location) -> None:
    name = first(output, "maps")
    found = rows(output, "maps")
    wrong = {**found[0], "id": 3, "uri": URIS[3]}
    write(output, name, pa.Table.from_pylist([*found, wrong], schema=table(output, name).schema))
    assert problems(output) == {
        "rows that contradict their commit record": 1,
        "images with a map and an error row of one run": 1,
    }
    _, named = verify(output).problems["rows that contradict their commit record"]
    assert named == [f"image 3 in {name}: committed as an error (truncated)"]


def test_an_error_row_of_an_image_that_is_committed_as_a_map_is_found(output: Location) -> None:
    name = first(output, "errors")
    found = rows(output, "errors")
    wrong = {**found[0], "id": 0, "uri": URIS[0]}
    write(output, name, pa.Table.from_pylist([*found, wrong], schema=schema.ERRORS))
    _, named = verify(output).problems["rows that contradict their commit record"]
    assert named == [f"image 0 in {name}: committed as a map"]


def test_an_error_of_another_type_than_committed_is_found(output: Location) -> None:
    name = first(output, "errors")
    change(output, name, 0, error_type="empty")
    assert verify(output).problems == {
        "rows that contradict their commit record": (
            1,
            [f"image 3 in {name}: error_type empty, committed as truncated"],
        )
    }


def test_rows_that_a_record_has_and_its_file_has_not_are_named(output: Location) -> None:
    name = first(output, "maps")
    write(output, name, table(output, name).slice(1))
    verdict = verify(output)
    (record,) = (r for r in Commits.read(output).records if name in {f.name for f in r.files})
    assert verdict.problems == {
        "committed images without a row": (1, [f"image 0 of {record.name}"])
    }
    assert verdict.not_done == 1


def test_rows_that_a_file_has_and_its_record_has_not_are_named(output: Location) -> None:
    change_record(output, 1, lambda ids, kinds: (ids[1:], kinds[1:]))
    assert verify(output).problems == {
        "rows that were never committed": (1, [f"image 0 in {first(output, 'maps')}"])
    }


def test_a_record_that_names_an_image_twice_is_found(output: Location) -> None:
    change_record(output, 1, lambda ids, kinds: ([*ids, ids[0]], [*kinds, None]))
    assert problems(output) == {"images that a commit record has twice": 1}


def change_record(
    output: Location, number: int, changed: Callable[[list[int], list[str | None]], Any]
) -> None:
    """Change the ids and error types of a record."""
    record = Commits.read(output).records[number]
    ids, kinds = changed(record.ids.tolist(), record.rows["error_type"].to_pylist())
    table = pa.table({"id": ids, "error_type": kinds}, schema=record.rows.schema)
    (output / record.name).write_bytes(replace(record, rows=table).to_bytes())


def test_a_file_that_is_not_named_as_its_record_is_found(output: Location) -> None:
    record = Commits.read(output).records[1]
    other = f"maps/{names.base(record.name).replace('-000001.', '-000009.')}"
    (output / record.files[0].name).move_to(output / other)
    renamed = replace(record, files=(replace(record.files[0], name=other), *record.files[1:]))
    (output / record.name).write_bytes(renamed.to_bytes())
    assert verify(output).problems == {
        "files with another name than their record": (1, [f"{other} of {record.name}"])
    }


def test_a_lost_file_is_named_with_its_record(output: Location) -> None:
    lost = first(output, "maps")
    (output / lost).delete()
    verdict = verify(output)
    (record,) = (name for name in Commits.read(output).void)
    assert verdict.problems == {
        "commit records without their files": (1, [f"{record}: {lost} is missing (5 images)"])
    }
    assert (verdict.not_done, verdict.to_do) == (5, 5)


def test_a_file_of_another_size_than_committed_is_found(output: Location) -> None:
    name = first(output, "errors")
    (output / name).write_bytes((output / name).read_bytes() + b"more")
    assert problems(output) == {"commit records without their files": 1}


def test_files_of_a_record_that_is_gone_are_named(output: Location) -> None:
    (output / files(output, "commits")[1]).delete()
    verdict = verify(output)
    assert set(verdict.problems) == {"files without a commit record that counts"}
    assert verdict.not_done == 5


# Files


@pytest.mark.parametrize(
    "name",
    [
        "maps/deep/copy.parquet",
        "maps/run_id=1/e000001-x-000000.parquet",
        "errors/a/b/c.parquet",
        "manifest/old/part-000000000000.parquet",
        "manifest/0-schema.parquet",
        "manifest/part-0.parquet.bak",
        "maps/copy.parquet",
        "maps/notes.txt",
        "errors/1",
    ],
)
def test_a_file_that_no_run_has_written_is_found(output: Location, name: str) -> None:
    (output / name).write_bytes(b"")
    found = verify(output).problems
    assert found == {"files that no run has written": (1, [name])}


def test_maps_in_folders_of_maps_count_as_second_maps(output: Location) -> None:
    add(output, "maps/deep/copy.parquet")
    assert problems(output) == {
        "files that no run has written": 1,
        "images with more than one map": 4,
    }


def test_hidden_files_are_a_note(output: Location) -> None:
    for name in ("maps/.DS_Store", "maps/_SUCCESS", "errors/.x/y"):
        (output / name).write_bytes(b"")
    verdict = verify(output)
    assert verdict.is_complete
    assert verdict.notes["hidden files"][0] == 3


def test_a_link_that_leads_nowhere_is_found(output: Location) -> None:
    Path(output.path, "maps", "link.parquet").symlink_to("nowhere")
    assert problems(output) == {"files that no run has written": 1}


def test_a_file_of_the_schema_that_has_rows_is_found(output: Location) -> None:
    add(output, f"maps/{SCHEMA}")
    assert problems(output)["rows that were never committed"] == 4


@pytest.mark.parametrize("folder", ["maps", "errors", "commits", "manifest"])
@pytest.mark.parametrize("damage", ["cut", "middle", "zeros", "text"])
def test_a_file_that_cannot_be_read_is_named_once(
    output: Location, folder: str, damage: str
) -> None:
    name = first(output, folder)
    data = (output / name).read_bytes()
    damaged = {
        "cut": data[:100].ljust(len(data), b"\0"),
        "middle": data[:4] + bytes(len(data) - 12) + data[-8:],
        "zeros": bytes(len(data)),
        "text": b"no rows".ljust(len(data)),
    }[damage]
    (output / name).write_bytes(damaged)
    said = f"{(output / name).uri} is damaged, or no Parquet file"
    verdict = verify(output, deep=True)
    assert verdict.problems == {unreadable(folder): (1, [said])}
    assert not verdict.to_do, "they are committed, or nobody knows"


def test_all_damaged_records_are_named(output: Location) -> None:
    for name in files(output, "commits")[1:]:
        (output / name).write_bytes(b"PAR1")
    count, named = verify(output).problems["files that cannot be read"]
    assert (count, len(named)) == (3, 3)
    with pytest.raises(StorageError, match="is damaged"):
        Commits.read(output)


def test_a_damaged_seal_is_named(output: Location) -> None:
    do_run(output)
    seal = max(name for name in files(output, "claims") if name.endswith(names.SEAL))
    (output / seal).write_bytes(b"PAR1")
    assert problems(output) == {"files that cannot be read": 1}


def test_no_flipped_byte_ends_in_a_traceback(output: Location) -> None:
    random = np.random.default_rng(0)
    for name in [first(output, folder) for folder in ("maps", "errors", "commits", "manifest")]:
        data = (output / name).read_bytes()
        for place in random.integers(0, len(data), 20):
            changed = bytearray(data)
            changed[place] ^= 1 << int(random.integers(8))
            (output / name).write_bytes(bytes(changed))
            text.of_verdict(verify(output, deep=True))
        (output / name).write_bytes(data)
    assert verify(output, deep=True).is_complete


COLUMNS = {
    "maps": ["id", "uri", "height", "width", "model", "run_id", "map", "classes"],
    "errors": schema.ERRORS.names,
    "manifest": ["id", "uri"],
}
CASES = [(folder, column) for folder, columns in COLUMNS.items() for column in columns]


@pytest.mark.parametrize(("folder", "column"), CASES)
def test_a_missing_value_is_told(output: Location, folder: str, column: str) -> None:
    name = first(output, folder)
    change(output, name, 0, **{column: None})
    kind = unreadable(folder) if folder == "manifest" else "values that are missing"
    count, (named,) = verify(output, deep=True).problems[kind]
    assert count == 1
    assert name in named
    assert column in named


@pytest.mark.parametrize(("folder", "column"), CASES)
def test_a_missing_column_is_told(output: Location, folder: str, column: str) -> None:
    name = first(output, folder)
    write(output, name, table(output, name).drop_columns([column]))
    verdict = verify(output, deep=True)
    said = f"{(output / name).uri}: there is no column {column!r}, which a run writes"
    assert verdict.problems == {unreadable(folder): (1, [said])}


@pytest.mark.parametrize(("folder", "column"), CASES)
def test_a_column_of_another_type_is_told(output: Location, folder: str, column: str) -> None:
    name = first(output, folder)
    found = table(output, name)
    kind = pa.string() if column != "uri" else pa.int64()
    if found.schema.field(column).type == kind:
        kind = pa.float64()
    other = pa.nulls(len(found), kind)
    write(output, name, found.set_column(found.column_names.index(column), column, other))
    found_now = verify(output, deep=True).problems
    assert set(found_now) == {unreadable(folder)}
    count, (named,) = found_now[unreadable(folder)]
    assert count == 1
    assert named.startswith(f"{(output / name).uri}: column {column!r} is of the type {kind}")


@pytest.mark.parametrize("folder", ["maps", "errors", "manifest", "commits"])
def test_a_column_that_is_there_twice_is_told(output: Location, folder: str) -> None:
    name = first(output, folder)
    found = table(output, name)
    write(output, name, found.append_column("id", found["id"]))
    assert not verify(output, deep=True).is_complete


@pytest.mark.parametrize(
    ("changed", "metadata"),
    [
        ({"id": ["a"]}, None),
        ({"id": [None]}, None),
        ({"error_type": [None]}, None),
        ({"id": [1], "error_type": [5]}, None),
        ({"id": [1], "error_type": [None]}, {"files": "{"}),
        ({"id": [1], "error_type": [None]}, {"files": "5"}),
        ({"id": [1], "error_type": [None]}, {"files": '[["maps/../../x", 1, "attempts/x"]]'}),
        ({"id": [1], "error_type": [None]}, {"files": '[["maps/x", "1", "attempts/x"]]'}),
        ({"id": [1], "error_type": [None]}, {"files": '[["maps/x", 1, "runs/x"]]'}),
        ({"id": [1], "error_type": [None]}, {"files": '[["labels.json", 1, "attempts/x"]]'}),
    ],
)
def test_a_record_that_makes_no_sense_is_named(
    output: Location, changed: dict[str, list[Any]], metadata: dict[str, str] | None
) -> None:
    name = f"commits/{files(output, 'maps')[0].removeprefix('maps/')}"
    rows = pa.table(changed).replace_schema_metadata(metadata)
    (output / name).write_bytes(parquet.to_bytes(rows))
    found = verify(output, deep=True).problems
    assert set(found) == {"files that cannot be read"}
    _, (named,) = found["files that cannot be read"]
    assert named.startswith(f"{(output / name).uri} is no commit record")


# What a run has left, or is about to do


def test_what_a_killed_run_has_left_is_not_wrong(tmp_path: Path) -> None:
    output = locate(str(tmp_path / "out"))
    do_run(output, failing=FAILING, tasks=2)
    verdict = verify(output, deep=True)
    assert not verdict.problems
    assert not verdict.is_complete
    assert text.of_verdict(verdict).splitlines() == [
        "12 images: 8 maps, 2 errors, 2 not done",
        "  note: 1 file in attempts/ that is not committed: a run that goes on may still commit it,"
        " and the next one removes it",
        "  the same command does the 2 images that are left",
    ]
    do_run(output, failing=FAILING)
    verdict = verify(output, deep=True)
    assert verdict.is_complete, verdict.problems
    assert not verdict.notes


def test_a_run_that_was_killed_before_its_first_commit_has_all_to_do(tmp_path: Path) -> None:
    output = locate(str(tmp_path / "out"))
    do_run(output, tasks=0)
    verdict = verify(output, deep=True)
    assert not verdict.problems
    assert (verdict.images, verdict.maps, verdict.not_done, verdict.to_do) == (12, 0, 12, 12)


def test_committed_files_that_are_not_in_their_places_are_no_problem_and_not_complete(
    output: Location,
) -> None:
    move_back(output, first(output, "maps"))
    verdict = verify(output, deep=True)
    assert not verdict.problems
    assert not verdict.is_complete
    assert (verdict.maps, verdict.open_errors, verdict.not_done) == (10, 2, 0)
    assert text.of_verdict(verdict).splitlines()[1:] == [
        "  note: 1 committed file that is not in its place yet: the next run moves it there"
    ]
    do_run(output, failing=FAILING)
    assert verify(output, deep=True).is_complete


def move_back(output: Location, name: str) -> None:
    """Put a file where its attempt lay."""
    (attempt,) = (
        file.attempt
        for record in Commits.read(output).records
        for file in record.files
        if file.name == name and file.attempt
    )
    (output / name).move_to(output / attempt)


def test_a_file_that_is_moved_meanwhile_is_found_in_its_place(
    output: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = first(output, "maps")
    move_back(output, name)
    look = Commits.look

    def looked(output: Location) -> Commits:
        found = look(output)
        (file,) = found.unmoved
        (output / (file.attempt or "")).move_to(output / file.name)
        return found

    monkeypatch.setattr(Commits, "look", looked)
    verdict = verify(output, deep=True)
    assert not verdict.problems
    assert verdict.maps == 10


def test_a_file_that_is_committed_meanwhile_is_no_stray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = locate(str(tmp_path / "out"))
    do_run(output, failing=FAILING, tasks=2)
    look = Commits.look

    def looked(output: Location) -> Commits:
        monkeypatch.setattr(Commits, "look", look)
        do_run(output, failing=FAILING)
        return look(output)

    monkeypatch.setattr(Commits, "look", looked)
    assert not verify(output, deep=True).problems


def test_records_that_do_not_count_are_a_note(output: Location) -> None:
    do_run(output)
    late = "e000001-x-000007.parquet"
    (output / "commits" / late).write_bytes((output / first(output, "commits")).read_bytes())
    (output / "commits" / "e000002-y-000000.parquet").write_bytes(b"")
    (output / "commits" / "20270101T000000-abcd-000000.pending.parquet").write_bytes(b"PAR1")
    verdict = verify(output)
    assert verdict.is_complete, verdict.problems
    assert verdict.notes == {
        "commit records that do not count": (
            3,
            [
                "commits/20270101T000000-abcd-000000.pending.parquet: it was never finished",
                f"commits/{late}: it came when a later run had gone on without it",
                "commits/e000002-y-000000.parquet: it was not written to its end",
            ],
        )
    }
    assert "the next run removes them" in text.of_verdict(verdict)
    do_run(output)
    assert not verify(output).notes


def test_half_written_files_are_a_note(output: Location) -> None:
    (output / "maps" / f"{SCHEMA}.0a.partial").write_bytes(b"PAR")
    (output / "maps" / f".{SCHEMA}.0b.partial").write_bytes(b"PAR")
    verdict = verify(output)
    assert verdict.is_complete
    assert verdict.notes["half-written files"][0] == 2


# Maps, decoded


def test_deep_finds_maps_that_do_not_decode_or_have_another_size(output: Location) -> None:
    name = first(output, "maps")
    height = rows(output, "maps")[1]["height"]
    change(output, name, 0, map={"bytes": b"no png", "path": None})
    change(output, name, 1, height=height + 1)
    change(output, name, 2, map={"bytes": None, "path": None})
    assert verify(output).is_complete
    found = verify(output, deep=True).problems
    assert {kind: count for kind, (count, _) in found.items()} == {
        "maps that do not decode": 1,
        "maps of another size than their row says": 1,
        "values that are missing": 1,
    }
    assert found["maps that do not decode"][1] == [
        f"image 0 in {name}: it is no PNG, or its beginning is damaged"
    ]
    _, (named,) = found["maps of another size than their row says"]
    assert named == f"image 1 in {name}: 9 × {height}, not 9 × {height + 1}"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (lambda all: all[1:], "class 0 has 14 pixels, and 0 in classes"),
        (lambda all: [*all, {"label": 5, "name": "x", "pixels": 1}], "class 5"),
        (
            lambda all: [{**all[0], "pixels": 15}, *all[1:]],
            "class 0 has 14 pixels, and 15 in classes",
        ),
        (lambda all: all[::-1], "not the largest first"),
        (lambda all: [{**all[0], "name": "x"}, *all[1:]], "is called x"),
        (lambda all: [all[0], *all], "is there twice"),
        (lambda all: [], "class 0 has 14 pixels, and 0 in classes"),
        (lambda all: [None, *all], "classes"),
        (lambda all: [{**all[0], "name": None}, *all[1:]], "classes"),
        (lambda all: [{**all[0], "label": None}, *all[1:]], "classes"),
        (lambda all: [{**all[0], "pixels": None}, *all[1:]], "classes"),
    ],
)
def test_deep_finds_a_png_that_contradicts_its_classes(
    output: Location, changed: Callable[[list[Any]], list[Any]], says: str
) -> None:
    name = first(output, "maps")
    change(output, name, 0, classes=changed(rows(output, "maps")[0]["classes"]))
    assert verify(output).is_complete
    found = verify(output, deep=True).problems
    (kind,) = found
    assert kind in ("maps that contradict their classes", "values that are missing")
    count, (named,) = found[kind]
    assert count == 1
    assert named.startswith(f"image 0 in {name}: ")
    assert says in named


def test_classes_of_as_many_pixels_may_come_in_any_order(output: Location) -> None:
    name = first(output, "maps")
    png = encode_map(np.array([[0, 1]], np.uint8), COLOURS)
    both = [{"label": label, "name": made.LABELS[label], "pixels": 1} for label in (1, 0)]
    change(output, name, 0, map={"bytes": png, "path": None}, height=1, width=2, classes=both)
    assert verify(output, deep=True).is_complete


def test_deep_finds_a_class_beyond_the_labels(output: Location) -> None:
    name = first(output, "maps")
    ids = class_ids(0, 6, 9)
    ids[0, 0] = 9
    found = rows(output, "maps")[0]["classes"]
    png = encode_map(ids, np.zeros((10, 3), np.uint8))
    change(output, name, 0, map={"bytes": png, "path": None}, classes=found)
    problems = verify(output, deep=True).problems
    assert problems["maps with classes that labels.json does not have"] == (
        1,
        [f"image 0 in {name}: class 9, and there are 5"],
    )


def test_maps_of_sixteen_bits_are_checked_as_well(output: Location) -> None:
    name = first(output, "maps")
    png = encode_map(np.array([[0, 300]], np.uint16))
    both = [{"label": label, "name": made.LABELS[0], "pixels": 1} for label in (0, 300)]
    change(output, name, 0, map={"bytes": png, "path": None}, height=1, width=2, classes=both)
    assert set(problems(output, deep=True)) == {"maps with classes that labels.json does not have"}


def test_labels_that_are_missing_are_a_note_and_damaged_ones_a_problem(output: Location) -> None:
    (output / LABELS).delete()
    verdict = verify(output, deep=True)
    assert verdict.is_complete
    assert "labels.json" in text.of_verdict(verdict)
    (output / LABELS).write_bytes(b"[")
    assert problems(output, deep=True) == {"damaged labels.json files": 1}


# What is told to do


def test_images_of_a_removed_record_are_done_again(output: Location) -> None:
    damaged = first(output, "maps")
    change(output, damaged, 0, uri="another")
    assert "remove the record of the same name in commits/" in text.of_verdict(verify(output))
    (output / damaged.replace("maps/", "commits/")).delete()
    do_run(output, failing=FAILING)
    verdict = verify(output, deep=True)
    assert verdict.is_complete, verdict.problems
    assert not (output / damaged).exists()


def test_images_of_a_lost_file_are_done_again(output: Location) -> None:
    (output / first(output, "maps")).delete()
    assert "does images again whose files are gone" in text.of_verdict(verify(output))
    do_run(output, failing=FAILING)
    assert verify(output, deep=True).is_complete


def test_a_run_does_not_go_on_without_its_manifest(output: Location) -> None:
    lost = first(output, "manifest")
    (output / lost).delete()
    for _ in range(2):
        with pytest.raises(StorageError, match=rf"is lost \({lost} is missing\).*from a copy"):
            do_run(output, URIS[::-1])
    with pytest.raises(StorageError, match="is lost"):
        Commits.read(output).manifest_files()


# The rest


@pytest.mark.parametrize("verb", ["verify", "plan"])
def test_an_output_that_is_a_file_ends_in_a_sentence(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "file"
    output.write_bytes(b"")
    words = [verb, str(ROOT / "tests/data/earlier/images"), str(output)]
    words += ["--model", str(ROOT / "job/demo/model")]
    assert main.main(words if verb == "plan" else [verb, str(output)]) == 3
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: ")
    assert "a file is in the way" in said


def test_storage_that_does_not_answer_is_no_damage(
    output: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        raise ConnectionRefusedError(111, "connection refused")

    monkeypatch.setattr(parquet, "read", read)
    with pytest.raises(ConnectionRefusedError):
        verification.verify(output)
