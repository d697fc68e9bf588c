"""The showcase: generate scenes, segment them with the real job, measure and show the result."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from job import pipeline
from job.config import JobConfig
from job.demo.scenes import LABELS, write_scenes
from job.images.decode import decode
from job.outputs.palette import palette
from job.outputs.receipts import Receipt
from job.results import evaluation
from job.results.evaluation import Scores
from job.results.maps import class_ids, read_maps
from job.results.pictures import contact_sheet
from job.storage.location import Location
from job.storage.opening import locate

MODEL = Path(__file__).parent / "model"
SCENES, SEED = 36, 7_000


@dataclass(frozen=True)
class Showcase:
    """What the demo has made.

    Attributes:
        receipt: of the run.
        scores: of its maps against the scenes' exact truth.
        picture: overlays of a few scenes.
    """

    receipt: Receipt
    scores: Scores
    picture: Path


def show(directory: Path, say: Callable[[str], None]) -> Showcase:
    """Do everything once, under a directory: ``images/``, ``truth/``, ``output/``, a picture."""
    say(f"Generating {SCENES} scenes with exact ground truth in {directory}")
    write_scenes(directory, SCENES, SEED)
    output = directory / "output"
    config = JobConfig(input=str(directory / "images"), output=str(output), model=str(MODEL))
    receipt = pipeline.run(config, say)
    place = locate(str(output))
    scores = evaluation.evaluate(place, str(directory / "truth"))
    picture = directory / "overlays.png"
    _picture(place).save(picture)
    return Showcase(receipt, scores, picture)


def _picture(output: Location, count: int = 6) -> Image.Image:
    """The scenes that show the most classes, each above its overlay."""
    rows = list(read_maps(output, ["id", "uri", "map", "classes"]))
    rich = sorted(rows, key=lambda row: (-_richness(row), row["id"]))[:count]
    pictures = [(np.asarray(decode(Path(row["uri"]).read_bytes())), class_ids(row)) for row in rich]
    return contact_sheet(pictures, palette(LABELS), LABELS)


def _richness(row: dict[str, list[dict[str, int]]]) -> int:
    pixels = sum(found["pixels"] for found in row["classes"])
    return sum(found["pixels"] > pixels // 100 for found in row["classes"])
