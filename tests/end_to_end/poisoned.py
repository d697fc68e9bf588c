"""The job on a Ray whose decoder and model have faults: ``python -m tests.end_to_end.poisoned``.

Files that begin with ``CRASH`` kill the process that decodes them, those with ``HANG`` hold it up;
a picture that is black throughout kills the process that predicts on it. With ``LOADS_APART`` in
the environment images are loaded in tasks of their own (``apart.py``).
"""

import ctypes
import os
import sys
import time
from pathlib import Path
from typing import Any

CRASH, HANG = b"CRASH", b"HANG"


def die() -> None:
    """End this process where it stands, as a fault in a decoder would.

    A signal that a process sends itself may reach another thread, and let this one go on a while.
    """
    ctypes.string_at(0)


def hurt() -> None:
    """Give this worker process the faults."""
    from job.images import decode
    from job.predict.segmentation import SemanticSegmentationPredictor

    decode_reduced, predict = decode.decode_reduced, SemanticSegmentationPredictor._predict_images

    def decode_or_worse(data: bytes, *args: Any, **options: Any) -> Any:
        if data.startswith(CRASH):
            die()
        if data.startswith(HANG):
            time.sleep(3600)
        return decode_reduced(data, *args, **options)

    def predict_or_die(self: Any, pixels: Any, sizes: Any) -> Any:
        if any(not image.any() for image in pixels):
            die()
        return predict(self, pixels, sizes)

    decode.decode_reduced = decode_or_worse
    SemanticSegmentationPredictor._predict_images = predict_or_die  # type: ignore[method-assign]


def main() -> int:
    """Run the job's command line there."""
    from job.cli.main import main as run_verb
    from tests.conftest import start_ray
    from tests.end_to_end.apart import load_apart

    if os.environ.get("LOADS_APART"):
        load_apart()
    # Workers run the hook before they know where this process has its modules from.
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
    start_ray(runtime_env={"worker_process_setup_hook": hurt})
    return run_verb(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
