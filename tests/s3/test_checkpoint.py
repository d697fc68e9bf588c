"""Checkpoint: what a model is built from, on its way between machines."""

import shutil
from pathlib import Path

import pytest
from transformers import SegformerForSemanticSegmentation

from job import Checkpoint
from job.errors import ModelError
from job.storage.opening import locate
from tests.conftest import S3
from tests.unit.test_checkpoint import travelled


@pytest.fixture
def folder(model_dir: Path, tmp_path: Path) -> Path:
    """A model's directory that a test may change."""
    return shutil.copytree(model_dir, tmp_path / "model")


@pytest.mark.parametrize("kind", ["memory", "file", "s3"])
def test_a_uri_is_fetched_where_it_is_used(kind: str, folder: Path, s3: S3) -> None:
    uri = {"memory": "memory://models/a", "file": f"file://{folder}", "s3": "s3://bucket/m"}[kind]
    for path in folder.iterdir():
        (locate(uri) / path.name).write_bytes(path.read_bytes())
    checkpoint = travelled(Checkpoint.from_uri(uri))
    assert set(checkpoint.to_dict()) == {path.name for path in folder.iterdir()}
    with checkpoint.as_directory() as found:
        SegformerForSemanticSegmentation.from_pretrained(found)


def test_a_uri_with_nothing_under_it_is_a_model_error(s3: S3) -> None:
    for uri in ("s3://bucket/no-such-model", "memory://no/such/model", "nope://x"):
        with pytest.raises(ModelError, match=uri), Checkpoint.from_uri(uri).as_directory():
            pass
