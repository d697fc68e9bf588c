"""Memory of the driver and of all workers over a run of very many, very small images.

    python -m benchmarks.long_run --images 100000

The images are links to a few pictures, the model is a SegFormer of 32 by 32 pixels: what is
measured is what the job keeps, not what it computes. The last line is JSON.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from job import pipeline
from job.config import JobConfig
from job.outputs.dataset_card import SCHEMA

ORIGINALS = 64


def write_images(directory: Path, count: int) -> None:
    """Pictures of 32 by 24 pixels; all but the first few are hard links to those."""
    directory.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        path = directory / f"{number // 1000:04d}" / f"{number:08d}.png"
        path.parent.mkdir(exist_ok=True)
        original = number % ORIGINALS
        if number < ORIGINALS:
            Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8)).save(path)
        else:
            os.link(directory / "0000" / f"{original:08d}.png", path)


def write_model(directory: Path) -> None:
    """A SegFormer with random weights that takes next to no time."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation
    from transformers.models.segformer.image_processing_pil_segformer import (
        SegformerImageProcessorPil,
    )

    config = SegformerConfig(  # type: ignore[call-arg]  # its parent's options
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 8, 8],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8,
        num_labels=5,
    )
    SegformerForSemanticSegmentation(config).save_pretrained(directory)
    SegformerImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(directory)


def memory() -> dict[str, int]:
    """MiB that are a process's own: the driver, each kind of worker, Ray's servers together."""
    found: dict[str, int] = {}
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            name = "driver" if process == me else process.name().split("(")[0]
            info = process.memory_info()
            own = (info.rss - getattr(info, "shared", 0)) >> 20
        except psutil.Error:
            continue
        kind = name if name == "driver" or name.startswith("ray::") else "ray's servers"
        found[kind] = found.get(kind, 0) + own
    return found


def _written(output: Path) -> list[Path]:
    """The files of maps that have rows."""
    return [path for path in (output / "maps").glob("*.parquet") if path.name != SCHEMA]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--every", type=float, default=15.0, help="seconds between samples")
    arguments = parser.parse_args()
    samples: list[dict[str, int]] = []
    done = threading.Event()
    with tempfile.TemporaryDirectory() as place:
        source, model, output = (Path(place) / name for name in ("in", "model", "out"))
        write_images(source, arguments.images)
        write_model(model)
        started = time.monotonic()

        def watch() -> None:
            while not done.wait(arguments.every):
                files = len(_written(output))
                sample = {
                    "seconds": round(time.monotonic() - started),
                    "files": files,
                    **memory(),
                }
                print(json.dumps(sample), flush=True)
                samples.append(sample)

        threading.Thread(target=watch, daemon=True).start()
        config = JobConfig(input=str(source), output=str(output), model=str(model), progress="none")
        receipt = pipeline.run(config)
        done.set()
        sizes = [path.stat().st_size for path in _written(output)]
    result = {
        "images": arguments.images,
        "maps": receipt.maps,
        "seconds": receipt.seconds,
        "files": len(sizes),
        "bytes_per_file": int(np.median(sizes)),
        "samples": samples,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
