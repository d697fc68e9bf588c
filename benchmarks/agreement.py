"""How many pixels each fast mode moves, against sequential inference in float32.

    python -m benchmarks.agreement IMAGES MODEL

Each precision, and float32 with ``--decode reduced`` where there are images to reduce. Also how far
apart the two best classes are, at most, at a pixel that differs: where nothing is reduced, float
rounding is the only reason that float32 may have. The last line is JSON.
"""

import argparse
import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from job.images.decode import decode, decode_reduced, to_array
from job.inputs.listing import list_objects
from job.kernels.upsample_argmax import upsample_argmax
from job.models.checkpoint import Checkpoint
from job.models.forward import Forward, Precision, fast
from job.models.loading import load_model
from job.models.normalise import Normaliser
from job.models.processors import fixed_size
from job.predict.sequential import predict_sequential
from job.storage.opening import locate

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "float16")
REDUCED = "float32, reduced JPEGs"


@dataclass
class Agreement:
    """Of a mode's maps with the reference's.

    Attributes:
        pixels: how many there are.
        differing: how many have another class.
        margin: the largest gap between the two best logits at a differing pixel.
        shared, either: pixels by class, in both maps, and in at least one of them.
    """

    pixels: int = 0
    differing: int = 0
    margin: float = 0.0
    shared: dict[int, int] = field(default_factory=dict)
    either: dict[int, int] = field(default_factory=dict)

    def add(self, found: np.ndarray, expected: np.ndarray, logits: torch.Tensor) -> None:
        """Count one image."""
        differs = found != expected
        self.pixels += differs.size
        self.differing += int(differs.sum())
        for label in np.union1d(found, expected).tolist():
            both = int(((found == label) & (expected == label)).sum())
            some = int(((found == label) | (expected == label)).sum())
            self.shared[label] = self.shared.get(label, 0) + both
            self.either[label] = self.either.get(label, 0) + some
        if differs.any():
            full = F.interpolate(logits, found.shape, mode="bilinear", align_corners=False)
            best, second = full[0].topk(2, dim=0).values.numpy()[:, differs]
            self.margin = max(self.margin, float((best - second).max()))

    def figures(self) -> dict[str, float]:
        """For a table."""
        shares = [self.shared[label] / self.either[label] for label in self.either]
        return {
            "equal": 1 - self.differing / self.pixels,
            "differing": self.differing,
            "miou": float(np.mean(shares)),
            "margin": self.margin,
        }


@torch.inference_mode()
def measure(source: str, model_name: str) -> dict[str, dict[str, Any]]:
    """The agreement of every mode over the images of a folder, on one thread, as in a run."""
    torch.set_num_threads(1)
    model, image_processor = load_model(Checkpoint.from_model(model_name))
    model.eval()
    size = fixed_size(image_processor)
    normalise = Normaliser(image_processor, torch.device("cpu"))
    forwards: dict[str, Forward] = {name: fast(model, name) for name in PRECISIONS}
    agreements = {name: Agreement() for name in (*PRECISIONS, REDUCED)}
    reduced_images = 0
    place = locate(source)
    for listed in list_objects(place):
        data = place.fetch(listed.path, None, None)
        image = decode(data)
        (expected,) = predict_sequential([image], model, image_processor)
        pixels = normalise([to_array(size.resize(image) if size else image)])
        logits = model(pixel_values=pixels).logits
        scores = {name: forward.scores(pixels) for name, forward in forwards.items()}
        reduced, divisor = decode_reduced(data, size.reduced_side if size else None)
        if size and divisor > 1:
            reduced_images += 1
            there = normalise([to_array(size.resize(reduced))])
            scores[REDUCED] = forwards["float32"].scores(there)
        for name, logits_here in scores.items():
            (found,), _ = upsample_argmax(logits_here, [(image.height, image.width)])
            agreements[name].add(found, expected, logits)
    figures = {
        name: {**agreements[name].figures(), **_notes(forward)}
        for name, forward in forwards.items()
    }
    if reduced_images:
        figures[REDUCED] = {**agreements[REDUCED].figures(), "images": reduced_images}
    return figures


def _notes(forward: Forward) -> dict[str, Any]:
    return {"notes": asdict(forward)["notes"]} if forward.notes else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", help="folder of images")
    parser.add_argument("model", help="as --model of a run")
    arguments = parser.parse_args()
    result = measure(arguments.images, arguments.model)
    for name, figures in result.items():
        print(
            f"{name:22} {100 * figures['equal']:.5f} % equal, {figures['differing']:,} pixels"
            f" differ (margin at most {figures['margin']:.1e}), mIoU {figures['miou']:.5f}"
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
