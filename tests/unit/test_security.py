"""What strangers hand in (models, results, names) is data: it is never run and leads nowhere."""

import contextlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from ray.data._internal.object_extensions.arrow import ArrowPythonObjectType

from job import schema
from job.cli import text
from job.errors import JobError, ModelError, StorageError
from job.images.map_png import decode_map
from job.inputs.listed_files import ListedFiles
from job.inputs.manifest import freeze
from job.models.checkpoint import Checkpoint
from job.models.info import ModelInfo
from job.models.labels import label_names
from job.models.loading import load_model
from job.models.processors import load_image_processor
from job.outputs import error_rows
from job.outputs.commits import Commits
from job.outputs.palette import palette
from job.outputs.same_maps import check_same_maps
from job.results.evaluation import Scores
from job.results.verification import verify
from job.storage import parquet
from job.storage.location import Location
from job.storage.opening import locate
from tests.hostile import saved
from tests.runs import run


class Bomb:
    """Makes a folder where it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._folder),)


@pytest.fixture
def exploded(tmp_path: Path) -> Path:
    """A folder that a test's bombs make, if anything unpickles them."""
    return tmp_path / "exploded"


@pytest.fixture
def bomb(exploded: Path) -> bytes:
    """A pickle that shows when it is loaded."""
    return pickle.dumps(Bomb(exploded))


@pytest.fixture
def model(model_dir: Path, tmp_path: Path) -> Path:
    """A model's directory that a test may change."""
    return shutil.copytree(model_dir, tmp_path / "model")


def changed(file: Path, **changes: object) -> None:
    """Change settings in a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_these_bombs_do_explode(bomb: bytes, exploded: Path) -> None:
    pickle.loads(bomb)
    assert exploded.is_dir()


@pytest.mark.parametrize(
    "name",
    [
        *("pytorch_model.bin", "model.safetensors", "model.bin", "model.pt", "model.ckpt"),
        *("adapter_model.bin", "training_args.bin", "dict_checkpoint.pkl"),
    ],
)
def test_pickled_weights_are_refused_and_never_unpickled(
    model: Path, bomb: bytes, exploded: Path, name: str
) -> None:
    (model / "model.safetensors").unlink()
    (model / name).write_bytes(bomb)
    (model / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    for use in (
        lambda: load_model(Checkpoint.from_model(str(model))),
        lambda: load_model(Checkpoint.from_uri(f"file://{model}")),
        lambda: load_model(Checkpoint.from_directory(model)),
    ):
        with pytest.raises(ModelError):
            use()
    assert not exploded.exists()


def test_pickles_beside_good_weights_are_not_even_read(
    model: Path, bomb: bytes, exploded: Path
) -> None:
    for name in ("pytorch_model.bin", "optimizer.pt", "adapter_model.bin", "scaler.pkl"):
        (model / name).write_bytes(bomb)
    load_model(Checkpoint.from_model(str(model)))
    load_model(Checkpoint.from_directory(model))
    assert not exploded.exists()


@pytest.mark.parametrize(
    "target",
    [
        "../outside.safetensors",
        "pytorch_model.bin",
        "/etc/passwd",
    ],
)
def test_an_index_that_points_elsewhere_is_a_model_error(
    model: Path, bomb: bytes, exploded: Path, target: str
) -> None:
    (model / "pytorch_model.bin").write_bytes(bomb)
    (model.parent / "outside.safetensors").write_bytes(bomb)
    (model / "model.safetensors").rename(model / "model-00001-of-00001.safetensors")
    index = {"metadata": {}, "weight_map": {"decode_head.classifier.weight": target}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    for checkpoint in (Checkpoint.from_model(str(model)), Checkpoint.from_directory(model)):
        with pytest.raises(ModelError):
            load_model(checkpoint)
    assert not exploded.exists()


@pytest.mark.parametrize("where", ["own", "stranger/repository--own"])
def test_code_of_a_known_kind_of_model_is_ignored(model: Path, where: str) -> None:
    ran = model / "ran"
    (model / "own.py").write_text(f"open({str(ran)!r}, 'w')")
    names = ("AutoConfig", "AutoModelForSemanticSegmentation", "AutoImageProcessor")
    code = dict.fromkeys(names, f"{where}.Own")
    changed(model / "config.json", auto_map=code)
    changed(model / "preprocessor_config.json", auto_map=code)
    for checkpoint in (Checkpoint.from_model(str(model)), Checkpoint.from_directory(model)):
        loaded, _ = load_model(checkpoint)
        assert type(loaded).__name__ == "SegformerForSemanticSegmentation"
    load_image_processor(str(model))
    assert not ran.exists()


def test_code_of_an_unknown_image_processor_is_refused(model: Path) -> None:
    ran = model / "ran"
    (model / "own.py").write_text(f"open({str(ran)!r}, 'w')")
    code = {"AutoImageProcessor": ["own.Own", "own.OwnFast"]}
    settings = {"auto_map": code, "image_processor_type": "Own"}
    changed(model / "preprocessor_config.json", **settings)
    changed(model / "config.json", auto_map=code)
    for checkpoint in (Checkpoint.from_model(str(model)), Checkpoint.from_directory(model)):
        try:
            _, image_processor = load_model(checkpoint)
        except ModelError:
            continue
        assert type(image_processor).__module__.startswith("transformers.")
    assert not ran.exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"attn_implementation": "stranger/kernel"},
        {"attn_implementation": "flash_attention_2"},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        {"hidden_act": "__import__('os')"},
        {"quantization_config": {"quant_method": "no-such"}},
        {"torch_dtype": "__import__('os')"},
        {"dtype": "no-such"},
        {"num_labels": 100_000, "id2label": None},
        {"id2label": {str(2**40): "far"}},
    ],
    ids=lambda settings: str(settings)[:40],
)
def test_settings_that_ask_for_something_else_are_ignored_or_a_model_error(
    model: Path, settings: dict[str, Any]
) -> None:
    changed(model / "config.json", **settings)
    with contextlib.suppress(ModelError):
        load_model(Checkpoint.from_model(str(model)))


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_json_that_nests_without_end_is_a_model_error(model: Path, name: str) -> None:
    (model / name).write_text('{"a":' * 200_000)
    with pytest.raises(ModelError):
        ModelInfo.of(Checkpoint.from_model(str(model)))


@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"height": 10**9, "width": 10**9}},
        {"size": {"height": -5, "width": 5}},
        {"size": {"height": "tall", "width": 5}},
        {"resample": 99},
        {"image_std": [0, 0, 0]},
        {"rescale_factor": "a third"},
    ],
    ids=str,
)
def test_preprocessing_that_makes_no_sense_is_a_model_error(
    model: Path, settings: dict[str, Any]
) -> None:
    changed(model / "preprocessor_config.json", **settings)
    with pytest.raises(ModelError):
        ModelInfo.of(Checkpoint.from_model(str(model)))


@pytest.mark.parametrize(
    ("id2label", "says"),
    [
        ({}, "names no classes"),
        ([], "names no classes"),
        (None, "names no classes"),
        ({"first": "wall"}, "has 'first' for the number of a class"),
        ({"1_0": "wall"}, "has '1_0' for the number of a class"),
        ({"\x1b[2J": "wall"}, "has '\\x1b[2J' for the number of a class"),
        ({"٣": "wall"}, "for the number of a class"),
        ({True: "wall"}, "has True for the number of a class"),
        ({"-1": "wall"}, "has '-1' for the number of a class"),
        ({-1: "wall"}, "has class -1; classes count from 0"),
        ({0: "wall", 10**8: "far"}, "has class 100000000; classes count from 0"),
        ({"9" * 5000: "far"}, "for the number of a class"),
        ({0: "wall", "0": "floor"}, "names class 0 twice"),
        ({0: None}, "the name of class 0 is no text"),
        ({0: ["wall"]}, "the name of class 0 is no text"),
        ({0: "w" * 10_000}, "name for class 0 has 10,000 characters; 256 are enough"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_names_that_make_no_sense_are_a_sentence(id2label: Any, says: str) -> None:
    with pytest.raises(ModelError) as caught:
        label_names(id2label)
    assert says in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


def test_any_characters_may_be_in_a_name_and_two_classes_may_share_it() -> None:
    odd = ["a\nb", "\x1b[31mred", "photo\u202egpj", "ü🎈", "", "same", "same", "'; drop", "\0"]
    names = label_names(dict(enumerate(odd)))
    assert names == tuple(odd)
    assert len(palette(names)) == len(odd)
    pa.array(names)


def test_half_a_character_becomes_a_question_mark_that_parquet_can_hold() -> None:
    (name,) = label_names({0: json.loads('"half \\ud83c"')})
    assert name == "half ?"
    pa.array([name])


def test_labels_are_spelt_out_where_they_are_shown() -> None:
    names = ("\x1b[2Jwall", "photo\u202egpj", "line\nline")
    confusion = np.eye(len(names), dtype=np.int64)
    shown = text.of_scores(Scores(confusion, names, images=1, without_truth=0))
    assert all(line.isprintable() for line in shown.splitlines())
    assert len(shown.splitlines()) == 1 + len(names)


@pytest.fixture
def output(tmp_path: Path) -> Location:
    """An OUTPUT with one image listed, to spoil."""
    place = tmp_path / "out"
    (place / "manifest").mkdir(parents=True)
    row = {"id": [0], "uri": ["a.jpg"], "part": [None], "size": [1], "etag": ["x"]}
    table = pa.table(row, schema=schema.MANIFEST)
    pq.write_table(table, place / "manifest" / "part-000000000000.parquet")
    return locate(str(place))


READERS: dict[str, Callable[[Location, Path], object]] = {
    "verify": lambda output, _: verify(output, deep=True),
    "freeze": lambda output, source: freeze(
        ListedFiles(str(source)), Commits.read(output).manifest_files()
    ),
    "done": lambda output, _: Commits.read(output).done(),
    "recover": lambda output, _: run(output, [0]),
    "count": lambda output, _: Commits.read(output).count(OF_A_RUN.removesuffix("-000000.parquet")),
    "open errors": lambda output, _: error_rows.open_errors(
        Commits.read(output), only_retryable=False
    ),
    "rows": lambda output, _: [t.to_pylist() for t in parquet.tables(output / "maps")],
}


# A file that a run of format 2 has left, by its name.
OF_A_RUN = "20261128T230544-0c80-000000.parquet"


@pytest.mark.parametrize(
    ("file", "reader"),
    [
        ("manifest/part-000000000001.parquet", "verify"),
        ("manifest/part-000000000001.parquet", "freeze"),
        (f"maps/{OF_A_RUN}", "verify"),
        (f"maps/{OF_A_RUN}", "rows"),
        (f"maps/{OF_A_RUN}", "recover"),
        (f"errors/{OF_A_RUN}", "verify"),
        (f"errors/{OF_A_RUN}", "open errors"),
        (f"errors/{OF_A_RUN}", "count"),
        (f"commits/{OF_A_RUN}", "verify"),
        (f"commits/{OF_A_RUN}", "done"),
        (f"commits/{OF_A_RUN}", "recover"),
        (f"checkpoint/{OF_A_RUN}", "done"),
        ("claims/e000001-run.seal.parquet", "done"),
    ],
)
def test_parquet_with_pickles_in_it_is_never_unpickled(
    output: Location, pictures: Path, bomb: bytes, exploded: Path, file: str, reader: str
) -> None:
    # Ray registers a type of Arrow whose values are pickles; whoever reads them runs them.
    pickles = pa.ExtensionArray.from_storage(
        ArrowPythonObjectType(), pa.array([bomb], pa.large_binary())
    )
    columns = ("uri", "part", "size", "etag", "height", "width", "map", "classes", "retryable")
    more = ("error_type", "record")
    table = pa.table({"id": [0], **dict.fromkeys((*columns, *more), pickles)})
    (output / "commits" / OF_A_RUN).write_bytes(parquet.to_bytes(table.select(["id"])))
    (output / "maps" / OF_A_RUN).write_bytes(parquet.to_bytes(table.select(["id"])))
    place = Path(output.path) / file
    place.parent.mkdir(exist_ok=True)
    pq.write_table(table, place)
    with contextlib.suppress(JobError, pa.ArrowException):
        READERS[reader](output, pictures)
    assert not exploded.exists()


@pytest.mark.parametrize(
    "files",
    [
        b'[["../outside", 5, "attempts/x.parquet"]]',
        b'[["maps/../../outside", 5, "attempts/x.parquet"]]',
        b'[["maps/x.parquet", 5, "../secret"]]',
        b'[["maps/x.parquet", 5, "/etc/hostname"]]',
        b'[["maps/x.parquet", 5, "attempts/../labels.json"]]',
        b'[["labels.json", 5, "attempts/x.parquet"]]',
        *(b"[[]]", b"{}x", b"[5]", b"[" * 10**5, b"\xff", b'[["maps/x.parquet", "5", null]]'),
    ],
    ids=lambda files: ascii(files)[:50],
)
def test_a_commit_record_leads_to_no_file_outside_the_output(
    output: Location, tmp_path: Path, files: bytes
) -> None:
    for name in ("secret", "outside", "out/labels.json", "out/attempts/x.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    fields = [pa.field("id", pa.int64(), False), pa.field("error_type", pa.string())]
    of_a_record = pa.schema(fields, {"files": files})
    data = parquet.to_bytes(pa.table({"id": [0], "error_type": [None]}, schema=of_a_record))
    name = "e000001-20261128T230544-0c80000000000000-000000.parquet"
    for folder in ("commits", "maps"):  # a record without data is void, whatever it says
        (output / folder / name).write_bytes(data)
    with pytest.raises(StorageError, match=f"{name} is no commit record"):
        run(output, [0])
    for name in ("secret", "outside", "out/labels.json", "out/attempts/x.parquet"):
        assert (tmp_path / name).read_bytes() == b"12345"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"5", b'{"settings": 5}', b"\x80\4cos\nsystem\n.", b"[" * 10**5]
)
def test_a_receipt_that_makes_no_sense_is_a_sentence(
    output: Location, model_dir: Path, content: bytes
) -> None:
    (output / "runs" / "0.json").write_bytes(content)
    (output / "maps" / "e000001-0-000000.parquet").write_bytes(b"")
    card = ModelInfo.of(Checkpoint.from_model(str(model_dir)))
    with pytest.raises(JobError):
        check_same_maps(output, card.origin, {})


def test_an_annotation_that_would_start_another_program_is_refused() -> None:
    # Pillow hands PostScript to Ghostscript, whatever the file is called.
    data = saved(Image.new("L", (8, 8)), "EPS")
    with pytest.raises((OSError, ValueError)) as caught:
        decode_map(data)
    assert "hostscript" not in str(caught.value)
