"""The whole way in this process: what a run leaves behind, and what running again does."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import pyarrow.parquet as pq
import pytest
from PIL import Image

from job import execution, pipeline, planning
from job.config import JobConfig
from job.errors import ConfigError, JobError, OutputConflictError, StorageError
from job.outputs.palette import palette
from tests.conftest import LABELS, make_model, picture, write_pictures
from tests.end_to_end.apart import load_apart
from tests.outputs import (
    agreement_with_sequential,
    check_each_image_once,
    check_equal_to_sequential,
    ids,
    rows,
)

pytestmark = pytest.mark.usefixtures("ray_session")


def config(source: object, output: object, model: object, **options: object) -> JobConfig:
    return JobConfig(
        input=str(source), output=str(output), model=str(model), progress="none", **options
    )


@pytest.fixture(scope="module")
def output(
    pictures: Path, model_dir: Path, ray_session: None, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The OUTPUT of one run over the pictures."""
    place = tmp_path_factory.mktemp("output")
    pipeline.run(config(pictures, place, model_dir, images_per_file=8, images_per_task=4))
    return place


def test_every_map_equals_sequential_inference(output: Path, model_dir: Path) -> None:
    check_each_image_once(output, 24)
    assert len(rows(output, "maps")) == 24
    check_equal_to_sequential(output, model_dir)
    assert len({label for row in rows(output, "maps") for label in np.unique(ids(row))}) > 2


def test_images_loaded_apart_have_the_same_maps(
    output: Path, pictures: Path, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside GPUs loading and encoding are tasks around the predictors, on CPUs a part of them."""
    monkeypatch.setattr(execution, "plan_resources", execution.plan_resources)  # to be put back
    load_apart()
    pipeline.run(config(pictures, tmp_path, model_dir, images_per_file=8, images_per_task=4))
    known = {row["id"]: row for row in rows(output, "maps")}
    found = rows(tmp_path, "maps")
    assert len(found) == len(known) == 24
    for row in found:
        assert {**row, "run_id": ""} == {**known[row["id"]], "run_id": ""}


def test_rotated_images_have_maps_of_the_upright_size(output: Path) -> None:
    turned = [row for row in rows(output, "maps") if row["id"] % 4 == 3]
    stored = {row["uri"]: Image.open(row["uri"]).size for row in turned}
    rotated = [row for row in turned if Image.open(row["uri"]).getexif().get(0x0112, 1) == 6]
    assert rotated
    for row in rotated:
        assert (row["height"], row["width"]) == stored[row["uri"]]


def test_classes_add_up_to_the_image_and_carry_trimmed_names(output: Path) -> None:
    for row in rows(output, "maps"):
        assert sum(c["pixels"] for c in row["classes"]) == row["height"] * row["width"]
        assert [c["pixels"] for c in row["classes"]] == sorted(
            (c["pixels"] for c in row["classes"]), reverse=True
        )
        counts = np.bincount(ids(row).ravel(), minlength=5)
        assert {c["label"]: c["pixels"] for c in row["classes"]} == {
            label: count for label, count in enumerate(counts) if count
        }
        assert {c["name"] for c in row["classes"]} <= {name.strip() for name in LABELS}
        assert 0 < row["confidence"] <= 1


def test_maps_are_pngs_that_show_the_class_colours(output: Path) -> None:
    row = rows(output, "maps")[0]
    with Image.open(io.BytesIO(row["map"]["bytes"])) as png:
        shown = np.asarray(png.convert("RGB"))
        assert np.array_equal(shown, palette([name.strip() for name in LABELS])[ids(row)])


def test_an_output_tells_its_classes_and_how_to_read_it(output: Path, tmp_path: Path) -> None:
    import datasets

    names = [name.strip() for name in LABELS]
    labels = json.loads((output / "labels.json").read_text())
    assert [label["name"] for label in labels] == names
    assert [label["color"] for label in labels] == palette(names).tolist()
    for file in (output / "maps").glob("*.parquet"):
        assert json.loads(pq.read_schema(file).metadata[b"labels"]) == labels
    assert duckdb.read_parquet(f"{output}/errors/*.parquet").columns[0] == "id"
    loaded = datasets.load_dataset(str(output), split="train", cache_dir=str(tmp_path))
    assert len(loaded) == 24
    assert loaded.features["classes"].feature["label"].names == names


def test_an_output_of_before_is_described_when_its_run_goes_on(
    output: Path, pictures: Path, model_dir: Path, tmp_path: Path
) -> None:
    place = Path(shutil.copytree(output, tmp_path / "before"))
    described = ("labels.json", "README.md", "maps/0-schema.parquet", "errors/0-schema.parquet")
    for name in described:
        (place / name).unlink()
    assert pipeline.run(config(pictures, place, model_dir)).remaining == 0
    assert all((place / name).is_file() for name in described)
    with pytest.raises(OutputConflictError, match="map_png was 'palette' and is now 'grayscale'"):
        pipeline.run(config(pictures, place, model_dir, map_png="grayscale"))
    (place / "labels.json").write_text("[]")
    source = shutil.copytree(pictures, tmp_path / "in")
    shutil.copy(next(source.glob("*.png")), source / "one-more.png")
    with pytest.raises(OutputConflictError, match="0 there, 5 of the model"):
        pipeline.run(config(source, place, model_dir))


def test_duckdb_and_polars_query_classes_without_decoding(output: Path) -> None:
    files = str(output / "maps" / "*.parquet")
    expected = sum(
        c["pixels"] for row in rows(output, "maps") for c in row["classes"] if c["label"] == 0
    )
    query = f"""
        select sum(class.pixels)
        from (select unnest(classes) as class from '{files}') where class.name = 'sky'
    """
    assert duckdb.execute(query).fetchall()[0][0] == expected
    classes = polars.read_parquet(files)["classes"].explode().struct.unnest()
    assert classes.filter(polars.col("name") == "sky")["pixels"].sum() == expected


def test_datasets_decodes_the_maps_as_images(output: Path, tmp_path: Path) -> None:
    import datasets

    loaded = datasets.load_dataset(
        "parquet", data_files=str(output / "maps" / "*.parquet"), split="train",
        cache_dir=str(tmp_path),
    )  # fmt: skip
    assert isinstance(loaded.features["map"], datasets.Image)
    by_id = {row["id"]: row for row in rows(output, "maps")}
    for row in loaded:
        assert np.array_equal(np.asarray(row["map"]), ids(by_id[row["id"]]))


def test_receipt_says_what_ran_and_how_it_ended(output: Path, model_dir: Path) -> None:
    (path,) = (output / "runs").iterdir()
    receipt = json.loads(path.read_text())
    assert receipt["status"] == "finished"
    assert (receipt["images"], receipt["maps"], receipt["errors"]) == (24, 24, {})
    assert receipt["model"]["name"] == str(model_dir)
    assert set(receipt["stages"]) >= {"fetch", "decode", "forward", "encode", "write"}
    assert all(stage["images"] == 24 for stage in receipt["stages"].values())
    assert {row["run_id"] for row in rows(output, "maps")} == {receipt["run_id"]}
    (claim,) = (output / "claims").glob("*.json")
    assert claim.name == f"e000001-{receipt['run_id']}.json"
    assert json.loads(claim.read_text())["ended"]
    assert not any((output / "attempts").iterdir())


def test_finished_output_run_again_only_claims_and_seals_it(
    output: Path, pictures: Path, model_dir: Path
) -> None:
    def files() -> dict[str, int]:
        found = [path for path in output.rglob("*") if path.is_file()]
        return {path.relative_to(output).as_posix(): path.stat().st_mtime_ns for path in found}

    before = files()
    receipt = pipeline.run(config(pictures, output, model_dir))
    assert (receipt.remaining, receipt.maps) == (0, 0)
    after = files()
    assert {name: after.get(name) for name in before} == before
    claim = f"claims/e{len(list((output / 'claims').glob('*.json'))):06d}-{receipt.run_id}"
    assert set(after) - set(before) == {f"{claim}.json", f"{claim}.seal.parquet"}


def test_only_new_images_are_processed(tmp_path: Path, model_dir: Path) -> None:
    source, place = write_pictures(tmp_path / "in", 6), tmp_path / "out"
    pipeline.run(config(source, place, model_dir))
    first = {row["uri"]: row["run_id"] for row in rows(place, "maps")}
    write_pictures(source / "later", 5, seed=50)
    receipt = pipeline.run(config(source, place, model_dir))
    assert (receipt.remaining, receipt.maps, receipt.done_before) == (5, 5, 6)
    check_each_image_once(place, 11)
    check_equal_to_sequential(place, model_dir)
    assert {
        row["uri"]: row["run_id"] for row in rows(place, "maps") if row["uri"] in first
    } == first


def test_another_model_on_the_same_output_is_refused(
    output: Path, pictures: Path, model_dir: Path, tmp_path: Path
) -> None:
    other = make_model(tmp_path / "other", seed=9)
    with pytest.raises(OutputConflictError, match=r"the model was .* and is now .*other"):
        pipeline.run(config(pictures, output, other))
    moved = shutil.copytree(model_dir, tmp_path / "moved")
    assert pipeline.run(config(pictures, output, moved)).remaining == 0, "the same files elsewhere"


def test_reduced_jpegs_give_maps_of_the_whole_size_and_do_not_mix_with_others(
    tmp_path: Path, model_dir: Path
) -> None:
    source, place = tmp_path / "images", tmp_path / "output"
    source.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    for seed in range(3):  # at least four times the model's 96 along each side
        turned: dict[str, Any] = {"exif": exif} if seed else {}
        Image.fromarray(picture(seed, 400, 604)).save(source / f"{seed}.jpg", **turned)
    options = {"decode": "reduced", "map_png": "grayscale"}
    receipt = pipeline.run(config(source, place, model_dir, **options))
    assert receipt.maps == 3
    assert receipt.settings["decode"] == "reduced"
    assert receipt.settings["map_png"] == "grayscale"
    for row in rows(place, "maps"):
        assert Image.open(io.BytesIO(row["map"]["bytes"])).mode == "L"
    assert sorted((row["height"], row["width"]) for row in rows(place, "maps")) == [
        *[(400, 604)],
        *[(604, 400)] * 2,
    ]
    assert 0.97 < agreement_with_sequential(place, model_dir) < 1
    with pytest.raises(OutputConflictError, match="decode was 'reduced' and is now 'exact'"):
        pipeline.run(config(source, place, model_dir, map_png="grayscale"))


def test_reducing_is_refused_where_it_cannot_be(
    pictures: Path, model_dir: Path, tmp_path: Path
) -> None:
    options = {"decode": "reduced"}
    with pytest.raises(ConfigError, match="Leave one of them out"):
        planning.plan(config(pictures, tmp_path / "output", model_dir, **options, reference=True))
    whole = shutil.copytree(model_dir, tmp_path / "whole")
    settings = json.loads((whole / "preprocessor_config.json").read_text())
    (whole / "preprocessor_config.json").write_text(json.dumps({**settings, "do_resize": False}))
    with pytest.raises(ConfigError, match="nothing to reduce to"):
        planning.plan(config(pictures, tmp_path / "output", whole, **options))


def test_bad_images_become_error_rows_and_good_ones_maps(tmp_path: Path, model_dir: Path) -> None:
    source, place = write_pictures(tmp_path / "in", 6), tmp_path / "out"
    whole = (source / "picture-0000.jpg").read_bytes()
    (source / "zero.jpg").write_bytes(b"")
    (source / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (source / "page.jpg").write_bytes(b"<!DOCTYPE html><html>not found</html>")
    Image.new("RGB", (300, 300)).save(source / "large.png")
    Image.new("RGB", (30, 20), "red").save(source / "really-a-png.jpg", format="PNG")
    receipt = pipeline.run(config(source, place, model_dir, pixel_limit=50_000))
    check_each_image_once(place, 11)
    found = {Path(row["uri"]).name: row for row in rows(place, "errors")}
    assert {name: row["error_type"] for name, row in found.items()} == {
        "zero.jpg": "empty",
        "cut.jpg": "truncated",
        "page.jpg": "not_an_image",
        "large.png": "too_large",
    }
    assert {row["stage"] for row in found.values()} == {"decode"}
    assert "300×300 is 90,000 pixels, over the limit of 50,000" in found["large.png"]["message"]
    assert receipt.errors == {"empty": 1, "truncated": 1, "not_an_image": 1, "too_large": 1}
    assert receipt.maps == 7
    check_equal_to_sequential(place, model_dir)


def test_names_with_strange_characters_are_images_like_others(
    tmp_path: Path, model_dir: Path
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    names = [
        "a b.jpg",
        "c#d.jpg",
        "e%20f.jpg",
        "g?h.jpg",
        "[i].jpg",
        "j\nk.jpg",
        "ü🎈.jpg",
        "l*.jpg",
    ]
    for name in names:
        Image.new("RGB", (30, 20), "blue").save(source / name)
    pipeline.run(config(source, tmp_path / "out", model_dir))
    assert {Path(row["uri"]).name for row in rows(tmp_path / "out", "maps")} == set(names)


def test_glob_takes_what_it_matches(tmp_path: Path, model_dir: Path) -> None:
    source = write_pictures(tmp_path / "in", 8)
    (source / "unnamed").write_bytes((source / "picture-0000.jpg").read_bytes())
    pipeline.run(config(f"{source}/*[0-9].png", tmp_path / "one", model_dir))
    assert {Path(row["uri"]).suffix for row in rows(tmp_path / "one", "maps")} == {".png"}
    pipeline.run(config(f"{source}/unna*", tmp_path / "two", model_dir))
    assert len(rows(tmp_path / "two", "maps")) == 1


def test_plan_counts_and_writes_nothing(tmp_path: Path, pictures: Path, model_dir: Path) -> None:
    place = tmp_path / "out"
    plan = planning.plan(config(pictures, place, model_dir))
    assert (plan.images.images, plan.done, plan.remaining) == (24, 0, 24)
    assert plan.images.size == sum(path.stat().st_size for path in pictures.iterdir())
    assert not place.exists()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nowhere", "nothing is there"),
        ("empty", "nothing is there"),
        ("texts", "no image is there"),
    ],
)
def test_input_without_images_is_refused(
    tmp_path: Path, model_dir: Path, source: str, says: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "readme.txt").write_text("no picture")
    with pytest.raises(StorageError, match=says):
        pipeline.run(config(tmp_path / source, tmp_path / "out", model_dir))


def test_output_inside_input_is_refused(tmp_path: Path, pictures: Path, model_dir: Path) -> None:
    with pytest.raises(JobError, match="inside INPUT"):
        pipeline.run(config(pictures, pictures / "out", model_dir))
