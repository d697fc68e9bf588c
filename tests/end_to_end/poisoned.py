"""The job on a Ray whose decoder and model have faults: ``python -m tests.end_to_end.poisoned``.

Files that begin with ``CRASH`` kill the process that decodes them, those with ``HANG`` hold it up;
a picture that is black throughout kills the process that predicts on it.
"""

import os
import signal
import sys
import time
from typing import Any

import ray

CRASH, HANG = b"CRASH", b"HANG"


def hurt() -> None:
    """Give this worker process the faults."""
    from job import images
    from job.segmentation import SemanticSegmentationPredictor

    decode, predict = images.decode, SemanticSegmentationPredictor._predict_images

    def decode_or_worse(data: bytes, **options: Any) -> Any:
        if data.startswith(CRASH):
            os.kill(os.getpid(), signal.SIGSEGV)
        if data.startswith(HANG):
            time.sleep(3600)
        return decode(data, **options)

    def predict_or_die(self: Any, pixels: Any, sizes: Any) -> Any:
        if any(not image.any() for image in pixels):
            os.kill(os.getpid(), signal.SIGSEGV)
        return predict(self, pixels, sizes)

    images.decode = decode_or_worse
    SemanticSegmentationPredictor._predict_images = predict_or_die  # type: ignore[method-assign]


def main() -> int:
    """Run the job's command line there."""
    from job import cli

    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "600000")
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"worker_process_setup_hook": hurt},
    )
    return cli.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
