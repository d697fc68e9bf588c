"""Street scenes with exact ground truth: one from a seed, or a directory of image files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from job.demo.atmosphere import backdrop, develop, fractal, light
from job.demo.layouts import country, row_of_houses, street, waterfront
from job.demo.painting import LABELS, Camera, Canvas, Painter

__all__ = ["LABELS", "SIZES", "TRAINING_SEED", "Scene", "scene", "write_scenes"]

TRAINING_SEED = 1_000_000  # the model has seen scenes from this seed on, and none below it

# The dozen most frequent (width, height, images): ADE20K training+validation image sizes.
# fmt: off
SIZES: tuple[tuple[int, int, int], ...] = (
    (683, 512, 5932), (256, 256, 3842), (768, 512, 874), (512, 683, 701),
    (640, 480, 534), (300, 225, 338), (500, 375, 279), (320, 240, 230),
    (400, 300, 223), (770, 512, 151), (600, 450, 112), (512, 768, 92),
)
# fmt: on

# Of every two dozen files these are not plain RGB JPEGs: what a decoder has to cope with.
CYCLE = 24
ORIENTATIONS = {4: 6, 8: 3, 13: 8, 17: 5, 21: 6}  # place in the cycle: EXIF Orientation
GREYSCALE = frozenset((2, 10, 19))
PNGS = {6: "RGBA", 15: "RGB"}

# How upright pixels are stored so that the Orientation tag turns them upright again.
STORED = {
    3: Image.Transpose.ROTATE_180,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
ORIENTATION_TAG = 0x0112


@dataclass(frozen=True)
class Scene:
    """One written scene: its files, and its size once it is upright."""

    name: str
    image: Path
    truth: Path
    height: int
    width: int


def scene(seed: int, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A picture (height, width, 3) and its class ids (height, width), the same for a seed."""
    rng = np.random.default_rng(seed)
    canvas = Canvas(height, width)
    columns, rows = canvas.size
    camera = Camera(
        centre=columns * rng.uniform(0.28, 0.72),
        horizon=rows * rng.uniform(0.38, 0.6),
        focal=0.85 * np.sqrt(columns * rows) * rng.uniform(0.85, 1.2),
        eye=rng.uniform(1.7, 4.2),
    )
    day = light(rng)
    noise = fractal(rng)
    painter = Painter(canvas, camera, day, rng)
    backdrop(canvas, camera, day, noise)
    layout = rng.choice(4, p=(0.3, 0.26, 0.22, 0.22))
    (street, country, waterfront, row_of_houses)[layout](painter)
    return develop(canvas, camera, day, noise, rng)


def write_scenes(directory: Path | str, count: int, seed: int) -> list[Scene]:
    """Write `count` scenes of seeds from `seed` on: `images/` as a camera would, and `truth/`.

    Truth files are 8-bit PNGs whose pixel values are class ids, at the upright size.
    """
    if seed < 0 or seed + count > TRAINING_SEED:
        raise ValueError(
            f"seeds {seed}…{seed + count} leave 0…{TRAINING_SEED}: the model was trained on scenes "
            "from there on; choose a smaller seed"
        )
    images, truths = Path(directory) / "images", Path(directory) / "truth"
    images.mkdir(parents=True, exist_ok=True)
    truths.mkdir(parents=True, exist_ok=True)
    return [_write_scene(images, truths, index, seed + index) for index in range(count)]


def _write_scene(images: Path, truths: Path, index: int, seed: int) -> Scene:
    shares = np.array([share for _, _, share in SIZES], dtype=np.float64)
    size = np.random.default_rng((seed, 1)).choice(len(SIZES), p=shares / shares.sum())
    width, height, _ = SIZES[size]
    pixels, ids = scene(seed, height, width)
    name, place = f"scene-{index:04d}", index % CYCLE
    truth = truths / f"{name}.png"
    Image.fromarray(ids).save(truth)
    picture = Image.fromarray(pixels)
    if place in PNGS:
        image = images / f"{name}.png"
        picture.convert(PNGS[place]).save(image)
        return Scene(name, image, truth, height, width)
    image, exif = images / f"{name}.jpg", Image.Exif()
    if place in GREYSCALE:
        picture = picture.convert("L")
    if place in ORIENTATIONS:
        exif[ORIENTATION_TAG] = ORIENTATIONS[place]
        picture = picture.transpose(STORED[ORIENTATIONS[place]])
    picture.save(image, quality=90, exif=exif)
    return Scene(name, image, truth, height, width)
