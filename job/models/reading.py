"""Reading: what is to know of a model, by a process of its own that does without torch.

transformers loads torch wherever it finds it: seconds, and hundreds of megabytes, that a run's
driver has no other use for. What a model's files say of it can be read without.
"""

import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from job.errors import ModelError
from job.models.checkpoint import Checkpoint

if TYPE_CHECKING:
    from job.models.info import ModelInfo


def start_reading(checkpoint: Checkpoint) -> "Callable[[], ModelInfo]":
    """Begin to read the model of ``Checkpoint.from_model``, while something else takes its time.

    Returns:
        What waits for it, and raises a ModelError when it is not a semantic-segmentation model.
    """
    if "torch" in sys.modules:
        return lambda: _read(checkpoint)
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    child = subprocess.Popen(
        [sys.executable, "-m", "job.models.reading"],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    answer = child.stdout
    # Given at once: it reads while this process does something else.
    with contextlib.suppress(BrokenPipeError), child.stdin as question:
        pickle.dump(checkpoint.without_weights(), question)

    def read() -> "ModelInfo":
        with child, answer:
            told = answer.read()
        # What does not work without torch, or at all: with torch it says why.
        return pickle.loads(told) if child.returncode == 0 else _read(checkpoint)

    return read


def _read(checkpoint: Checkpoint) -> "ModelInfo":
    from job.models.info import ModelInfo

    return ModelInfo.of(checkpoint)


def main() -> int:
    """The other process: a pickled Checkpoint on standard input, a ModelInfo on standard output."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else is printed
    sys.modules["torch"] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        info = _read(pickle.load(sys.stdin.buffer))
    except (ModelError, ImportError):
        return 1
    with output:
        pickle.dump(info, output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
