"""Reading what a model's files say, by a process without torch."""

import subprocess
import sys
from pathlib import Path

from job.models.checkpoint import Checkpoint
from job.models.info import ModelInfo

_PROGRAM = """
import sys
from job.models.checkpoint import Checkpoint
from job.errors import ModelError
from job.models.reading import start_reading

try:
    print(start_reading(Checkpoint.from_model(sys.argv[1]))())
except ModelError as error:
    print(error)
print("torch" in sys.modules)
"""


def read(model: Path) -> list[str]:
    """What a driver learns that has not loaded torch, and whether it has loaded it by then."""
    words = [sys.executable, "-c", _PROGRAM, str(model)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_driver_learns_the_same_without_loading_torch(model_dir: Path) -> None:
    card = ModelInfo.of(Checkpoint.from_model(str(model_dir)))
    assert read(model_dir) == [str(card), "False"]


def test_what_no_model_is_is_refused_in_the_same_words(model_dir: Path, tmp_path: Path) -> None:
    for file in model_dir.iterdir():
        text = file.read_bytes().replace(b"ForSemanticSegmentation", b"ForImageClassification")
        (tmp_path / file.name).write_bytes(text)
    said, _ = read(tmp_path)
    assert "is not a semantic-segmentation model: it holds SegformerForImageClassification" in said
