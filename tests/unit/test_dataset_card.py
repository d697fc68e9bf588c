"""Dataset card: any reader finds columns, classes and colours of an OUTPUT by itself."""

import json
from collections.abc import Sequence
from pathlib import Path

import datasets
import duckdb
import numpy as np
import pandas
import polars
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import yaml

from job import schema
from job.errors import OutputConflictError, StorageError
from job.outputs.commits import Commits
from job.outputs.dataset_card import (
    CARD,
    LABELS,
    SCHEMA,
    card,
    read_labels,
    write_card,
    write_maps_schema,
)
from job.outputs.encoder import MapEncoder
from job.outputs.error_rows import open_errors
from job.outputs.palette import palette
from job.storage import parquet
from job.storage.location import Location
from tests.runs import run

# Two classes of one name, and what YAML and JSON have a meaning for.
NAMES = ("sky", "ground", "no", "tree: 'x' # y", "ground", "空")


COLOURS = palette(NAMES)


def describe(output: Location, names: Sequence[str] = NAMES) -> None:
    """As a run does when it begins and when it ends."""
    write_card(output, names, palette(names))
    write_maps_schema(output, names, palette(names))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    return str(tmp_path / "cache")


def write_maps(output: Location, count: int = 3, of: pa.Schema | None = None) -> list[np.ndarray]:
    random = np.random.default_rng(7)
    ids = [random.integers(0, len(NAMES), (5, 7)).astype(np.uint8) for _ in range(count)]
    column = np.empty(count, object)
    column[:] = ids
    batch = {
        "id": np.arange(count),
        "uri": [f"in/{number}.jpg" for number in range(count)],
        "height": np.full(count, 5, np.int32),
        "width": np.full(count, 7, np.int32),
        "map": column,
        "confidence": np.full(count, 0.5, np.float32),
        "error": [None] * count,
    }
    table = MapEncoder(NAMES, COLOURS, model="m", run_id="r")(batch).drop_columns(["error"])
    data = parquet.to_bytes(table.cast(of or schema.maps(NAMES, COLOURS)))
    (output / "maps" / "20261101T000000-abcd-000000.parquet").write_bytes(data)
    return ids


def commit(output: Location, ids: list[int]) -> None:
    """As a run of format 2 has left it."""
    file = output / "commits" / "20261101T000000-abcd-000000.parquet"
    table = pa.table({"id": pa.array(ids, pa.int64())})
    file.write_bytes(parquet.to_bytes(table))


def metadata_of_earlier_releases() -> pa.Schema:
    """As `maps/` was written when `datasets` before 4 could not read it."""
    features = json.loads(schema.MAPS.metadata[b"huggingface"])["info"]["features"]
    features["classes"] = {"feature": features["classes"][0], "_type": "List"}
    text = json.dumps({"info": {"features": features}})
    return schema.MAPS.with_metadata({"huggingface": text})


@pytest.mark.parametrize("before", [False, True], ids=["new", "of an earlier release"])
def test_datasets_loads_an_output_with_its_class_names(
    output: Location, cache: str, before: bool
) -> None:
    ids = write_maps(output, of=metadata_of_earlier_releases() if before else None)
    describe(output)
    loaded = datasets.load_dataset(output.path, split="train", cache_dir=cache)
    assert [np.asarray(row["map"]).tolist() for row in loaded] == [one.tolist() for one in ids]
    label = loaded.features["classes"].feature["label"]
    assert label.names == ["sky", "ground (1)", "no", "tree: 'x' # y", "ground (4)", "空"]
    assert label.int2str(loaded[0]["classes"][0]["label"]).startswith(
        loaded[0]["classes"][0]["name"]
    )


def test_errors_are_a_configuration_of_their_own(output: Location, cache: str) -> None:
    describe(output)
    row = {"id": 1, "uri": "a", "stage": "decode", "error_type": "empty", "message": "m"}
    row |= {"retryable": False, "run_id": "r"}
    table = pa.Table.from_pylist([row], schema=schema.ERRORS)
    (output / "errors" / "20261101T000000-abcd-000000.parquet").write_bytes(parquet.to_bytes(table))
    loaded = datasets.load_dataset(output.path, "errors", split="train", cache_dir=cache)
    assert loaded.to_list() == [row]
    assert datasets.get_dataset_config_names(output.path) == ["maps", "errors"]


@pytest.mark.parametrize(("folder", "of"), [("maps", schema.MAPS), ("errors", schema.ERRORS)])
def test_every_reader_sees_the_columns_of_a_folder_without_rows(
    output: Location, cache: str, folder: str, of: pa.Schema
) -> None:
    describe(output)
    files = f"{output.path}/{folder}/*.parquet"
    assert duckdb.read_parquet(files).columns == of.names
    assert duckdb.execute(f"select count(*) from '{files}'").fetchall() == [(0,)]
    assert polars.read_parquet(files).columns == of.names
    assert polars.scan_parquet(files).collect().height == 0
    assert list(pandas.read_parquet(f"{output.path}/{folder}").columns) == of.names
    assert pyarrow.dataset.dataset(f"{output.path}/{folder}").to_table().schema.names == of.names
    streamed = datasets.load_dataset(
        "parquet", data_files=files, split="train", streaming=True, cache_dir=cache
    )
    assert list(streamed) == []
    assert list(streamed.features) == of.names


def test_the_files_of_schemas_are_nobodys_work(output: Location) -> None:
    write_maps(output)
    describe(output)
    commit(output, [0, 1, 2])
    for found in Commits.read(output), run(output, [0, 1, 2]), Commits.read(output):
        assert (found.void, found.strays, found.unmoved) == ({}, (), ())
        assert found.count("20261101T000000-abcd") == (3, {})
        assert found.done().tolist() == [0, 1, 2]
        assert open_errors(found, only_retryable=False).tolist() == []
    assert (output / "errors").names() == [SCHEMA]
    assert (output / "maps").names()[0] == SCHEMA, "readers that go by the first file go by it"


def test_labels_are_in_a_file_and_in_the_metadata(output: Location) -> None:
    describe(output)
    labels = json.loads((output / LABELS).read_bytes())
    assert labels[4] == {"id": 4, "name": "ground", "color": COLOURS[4].tolist()}
    assert [label["name"] for label in labels] == list(NAMES)
    assert read_labels(output) == labels
    metadata = pq.read_schema(f"{output.path}/maps/{SCHEMA}").metadata
    assert json.loads(metadata[b"labels"]) == labels
    found = duckdb.execute(f"select name from '{output.path}/{LABELS}' where id = 3").fetchall()
    assert found == [("tree: 'x' # y",)]


def test_a_readme_of_somebody_else_stays(output: Location) -> None:
    (output / CARD).write_bytes(b"# Mine")
    describe(output)
    assert (output / CARD).read_bytes() == b"# Mine"


def test_a_second_run_writes_nothing(output: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    describe(output)
    (output / CARD).write_bytes(card(NAMES) + b"\nEdited.\n")

    def refuse(self: Location, data: bytes) -> None:
        raise AssertionError(self.path)

    monkeypatch.setattr(Location, "write_bytes", refuse)
    describe(output)


def test_other_labels_beside_maps_are_refused(output: Location) -> None:
    describe(output)
    run(output, [0])
    other = ("sky", "water", *NAMES[2:])
    with pytest.raises(
        OutputConflictError, match="the name of class 1 is 'ground' there, not 'water'"
    ):
        write_card(output, other, palette(other))
    with pytest.raises(OutputConflictError, match="6 there, 7 of the model"):
        write_card(output, [*NAMES, "more"], palette([*NAMES, "more"]))


def test_another_model_may_begin_where_nothing_is_committed(output: Location) -> None:
    describe(output)
    run(output, [])
    other = ("one", "two")
    describe(output, other)
    assert [label["name"] for label in read_labels(output) or []] == ["one", "two"]
    assert (output / CARD).read_bytes() == card(other)
    metadata = pq.read_schema(f"{output.path}/maps/{SCHEMA}").metadata
    assert [label["name"] for label in json.loads(metadata[b"labels"])] == ["one", "two"]
    (output / CARD).write_bytes(b"# Mine by now")
    describe(output)
    assert (output / CARD).read_bytes() == b"# Mine by now"


@pytest.mark.parametrize("text", ["", "{", "{}x", '["a"]', '[{"id": 1, "name": "a"}]', "3"])
def test_a_damaged_file_of_labels_is_named(output: Location, text: str) -> None:
    (output / LABELS).write_bytes(text.encode())
    with pytest.raises(StorageError, match=r"labels\.json is damaged. Remove it"):
        read_labels(output)


def test_an_output_of_before_has_no_labels(output: Location) -> None:
    assert read_labels(output) is None


def test_the_card_is_yaml_that_names_every_column() -> None:
    head = yaml.safe_load(card(NAMES).decode().split("---\n")[1])
    assert [config["data_files"] for config in head["configs"]] == [
        "maps/*.parquet",
        "errors/*.parquet",
    ]
    for info, of in zip(head["dataset_info"], (schema.MAPS, schema.ERRORS), strict=True):
        assert [feature["name"] for feature in info["features"]] == of.names
