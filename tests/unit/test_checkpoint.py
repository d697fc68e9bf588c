"""Checkpoint: what a model is built from, on its way between machines."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from ray.data.preprocessor import Preprocessor
from transformers import SegformerForSemanticSegmentation

from job import Checkpoint
from job.errors import ConfigError, ModelError
from tests.conftest import make_model


class Nothing(Preprocessor):
    _is_fittable = False

    def _transform_pandas(self, df: pd.DataFrame) -> pd.DataFrame:
        return df


@pytest.fixture
def folder(model_dir: Path, tmp_path: Path) -> Path:
    """A model's directory that a test may change."""
    return shutil.copytree(model_dir, tmp_path / "model")


def used_model(model_dir: Path) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """A SegFormer after a forward pass, which pickle refuses; its input and its output."""
    model = SegformerForSemanticSegmentation.from_pretrained(model_dir).eval()
    pixels = torch.linspace(-2, 2, 3 * 64 * 64).reshape(1, 3, 64, 64)
    with torch.no_grad():
        return model, pixels, model(pixel_values=pixels).logits


def travelled(checkpoint: Checkpoint) -> Checkpoint:
    return pickle.loads(pickle.dumps(checkpoint))


def test_a_dict_comes_back_as_it_was_given() -> None:
    data = {"factor": 2, "frame": pd.DataFrame({"x": [1]}), "nested": {"a": [1, None]}}
    checkpoint = Checkpoint.from_dict(data)
    assert checkpoint.to_dict()["frame"] is data["frame"]
    found = travelled(checkpoint).to_dict()
    assert (found["factor"], found["nested"]) == (2, {"a": [1, None]})
    assert found["frame"].equals(data["frame"])


def test_a_checkpoint_does_not_follow_what_the_caller_does_to_its_dict() -> None:
    data = {"factor": 2}
    checkpoint = Checkpoint.from_dict(data)
    data["factor"] = 3
    checkpoint.to_dict()["factor"] = 4
    assert checkpoint.to_dict() == {"factor": 2}


SCRIPT = """
import pickle, sys, torch
checkpoint, pixels, expected = pickle.load(sys.stdin.buffer)
model = checkpoint.to_dict()["model"]
with torch.no_grad():
    logits = model(pixel_values=pixels).logits
print(type(model).__name__, model.training, torch.equal(logits, expected))
"""


def test_a_model_that_has_been_used_gives_equal_logits_in_another_process(model_dir: Path) -> None:
    model, pixels, expected = used_model(model_dir)
    with pytest.raises((AttributeError, TypeError)):
        pickle.dumps(model)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=pickle.dumps((Checkpoint.from_dict({"model": model}), pixels, expected)),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().split() == ["SegformerForSemanticSegmentation", "False", "True"]


def test_half_precision_and_training_mode_survive(model_dir: Path) -> None:
    model = SegformerForSemanticSegmentation.from_pretrained(model_dir)
    module: torch.nn.Module = model
    half = travelled(Checkpoint.from_dict({"model": module.to(torch.bfloat16).train()}))
    found = half.to_dict()["model"]
    assert found.training
    assert {tensor.dtype for tensor in found.parameters()} == {torch.bfloat16}


def test_the_model_of_the_caller_is_left_as_it_is(model_dir: Path) -> None:
    model, pixels, expected = used_model(model_dir)
    checkpoint = Checkpoint.from_dict({"model": model})
    pickle.dumps(checkpoint)
    assert checkpoint.to_dict()["model"] is model
    with torch.no_grad():
        assert torch.equal(model(pixel_values=pixels).logits, expected)


def test_a_directory_is_used_where_it_is(folder: Path) -> None:
    with Checkpoint.from_directory(folder).as_directory() as found:
        assert found == str(folder.resolve())
    assert folder.is_dir()


def test_a_directory_travels_to_a_node_that_has_it_not(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "file.bin").write_bytes(bytes(range(256)))
    before = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    data = pickle.dumps(Checkpoint.from_directory(folder))
    shutil.rmtree(folder)
    there = pickle.loads(data)
    assert there.to_dict() == before
    with there.as_directory() as found:
        assert Path(found, "deep", "file.bin").read_bytes() == bytes(range(256))
    assert not os.path.exists(found), "what was unpacked is removed again"


def test_to_directory_writes_the_files_and_makes_the_folder(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    assert Checkpoint.from_directory(folder).to_directory(target) == str(target)
    names = sorted(path.name for path in folder.iterdir())
    assert sorted(path.name for path in target.iterdir()) == names
    assert (target / "config.json").read_bytes() == (folder / "config.json").read_bytes()


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no directory '.*nowhere'"):
        Checkpoint.from_directory(tmp_path / "nowhere")


def test_an_endpoint_that_does_not_answer_is_a_model_error() -> None:
    options = {
        "endpoint_url": "http://127.0.0.1:1",
        "key": "k",
        "secret": "s3cr3t",
        "config_kwargs": {"retries": {"max_attempts": 1}},
    }
    with pytest.raises(ModelError, match="does not answer") as caught:
        Checkpoint.from_model("s3://bucket/model", storage_options=options)
    assert "s3cr3t" not in str(caught.value)


def test_a_pickled_dict_is_never_unpickled_from_storage(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "exploded"),)

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "dict_checkpoint.pkl").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ConfigError, match="nothing is unpickled from storage"):
        Checkpoint.from_directory(tmp_path / "model").to_dict()
    assert not (tmp_path / "exploded").exists()


def test_a_dict_checkpoint_is_written_as_one_file(tmp_path: Path) -> None:
    Checkpoint.from_dict({"a": 1}).to_directory(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["dict_checkpoint.pkl"]


def test_a_checkpoint_of_two_kinds_or_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Checkpoint\.from_dict"):
        Checkpoint()
    with pytest.raises(ConfigError, match=r"Checkpoint\.from_dict"):
        Checkpoint(data={}, uri="s3://x")


def test_a_preprocessor_goes_with_every_kind_and_travels(folder: Path) -> None:
    for checkpoint in (
        Checkpoint.from_dict({"_preprocessor": Nothing()}),
        Checkpoint.from_directory(folder, preprocessor=Nothing()),
        Checkpoint.from_uri(f"file://{folder}", preprocessor=Nothing()),
    ):
        assert isinstance(checkpoint.get_preprocessor(), Nothing)
        assert isinstance(travelled(checkpoint).get_preprocessor(), Nothing)
        checkpoint.set_preprocessor(None)
        assert checkpoint.get_preprocessor() is None
    assert Checkpoint.from_model(str(folder)).get_preprocessor() is None


def test_a_model_is_read_once_and_travels_without_its_directory(folder: Path) -> None:
    (folder / "README.md").write_text("not needed")
    (folder / "pytorch_model.bin").write_bytes(b"not wanted")
    checkpoint = Checkpoint.from_model(str(folder))
    shutil.rmtree(folder)
    assert set(travelled(checkpoint).to_dict()) == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    assert travelled(checkpoint).origin == checkpoint.origin


@pytest.mark.parametrize("missing", ["config.json", "preprocessor_config.json"])
def test_a_file_that_is_missing_is_named(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(ModelError, match=f"no {missing} there.*save_pretrained"):
        Checkpoint.from_model(str(folder))


def test_pickled_weights_are_refused_with_the_way_out(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no \.safetensors weights.*save_pretrained"):
        Checkpoint.from_model(str(folder))


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"<html>"])
def test_json_that_is_not_valid_is_named(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"{name} is not valid JSON"):
        Checkpoint.from_model(str(folder))


@pytest.mark.parametrize("model", ["./nowhere", "/no/where", "~/nowhere-at-all", "a/b/c"])
def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub(model: str) -> None:
    with pytest.raises(ModelError, match=f"--model {model}: no such directory"):
        Checkpoint.from_model(model)


@pytest.mark.parametrize("model", ["a b", "-x", "a..b"])
def test_what_cannot_be_a_name_on_the_hub_is_said_so(model: str) -> None:
    with pytest.raises(ModelError, match="neither a directory here nor a possible name"):
        Checkpoint.from_model(model)


def test_a_revision_of_something_that_is_not_on_the_hub_is_refused(folder: Path) -> None:
    for model in (str(folder), "s3://bucket/model"):
        with pytest.raises(ModelError, match="--revision main goes with a name on the Hub"):
            Checkpoint.from_model(model, revision="main")


def test_the_hub_out_of_reach_is_a_sentence_with_the_ways_out(
    tmp_path: Path,
) -> None:
    script = """
from job import Checkpoint, JobError
try:
    Checkpoint.from_model("nobody/no-such-model")
except JobError as error:
    print(error)
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "--model nobody/no-such-model" in done.stdout, done.stderr
    assert "HF_HUB_OFFLINE=1" in done.stdout
    assert "local directory" in done.stdout
    assert done.stdout.count("\n") == 1


def test_the_digest_is_of_names_and_contents(folder: Path, tmp_path: Path) -> None:
    def digest(of: Path) -> str:
        origin = Checkpoint.from_model(str(of)).origin
        assert origin is not None
        return origin.digest

    before = digest(folder)
    assert digest(shutil.copytree(folder, tmp_path / "copy")) == before
    (folder / "README.md").write_text("what does not decide results")
    assert digest(folder) == before
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings["size"]["height"] += 1
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    assert digest(folder) != before
    assert digest(make_model(tmp_path / "other", seed=5)) != before


def test_a_repr_fits_a_line(folder: Path, model_dir: Path) -> None:
    model, _, _ = used_model(model_dir)
    wordy = {f"a rather long key {number}": "x" * 1000 for number in range(50)}
    for checkpoint in (
        Checkpoint.from_dict({}),
        Checkpoint.from_dict({"model": model}),
        Checkpoint.from_dict(wordy),
        Checkpoint.from_directory(folder),
        travelled(Checkpoint.from_directory(folder)),
        Checkpoint.from_uri("s3://bucket/model", {"secret": "hunter2"}),
        Checkpoint.from_model(str(folder)),
    ):
        text = repr(checkpoint)
        assert text.startswith("Checkpoint(")
        assert "\n" not in text
        assert "hunter2" not in text
        assert len(text) <= 80 or str(folder) in text
