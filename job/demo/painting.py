"""Paint in perspective: a camera, a light, and a canvas that holds colours and class ids."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

# fmt: off
LABELS: tuple[str, ...] = (
    "sky", "mountain", "water", "grass", "road", "sidewalk",
    "building", "tree", "vehicle", "person", "fence",
)
# fmt: on
SKY, MOUNTAIN, WATER, GRASS, ROAD, SIDEWALK, BUILDING, TREE, VEHICLE, PERSON, FENCE = range(11)

SUPERSAMPLING = 2  # colours are painted at twice the size and averaged: smooth edges
NEAR = 0.6  # metres: nothing nearer to the camera is projected
FAR = 260.0

Points = NDArray[np.float64]
Colour = NDArray[np.float64]


def rgb(red: float, green: float, blue: float) -> Colour:
    """A colour as an array of three floats in 0…255."""
    return np.array((red, green, blue), dtype=np.float64)


def ink(colour: Colour) -> tuple[int, int, int]:
    """The colour as the three whole numbers that PIL draws with."""
    red, green, blue = (min(max(int(value), 0), 255) for value in colour.tolist())
    return red, green, blue


@dataclass(frozen=True)
class Camera:
    """A pinhole camera `eye` metres above the ground, looking along Z; X is right, Y is up."""

    centre: float  # column of the vanishing point, pixels
    horizon: float  # row of the horizon, pixels
    focal: float  # pixels
    eye: float  # metres

    def project(self, points: Points) -> Points:
        """World points (…, 3) in metres → picture points (…, 2) in pixels."""
        depth = np.maximum(points[..., 2], NEAR)
        column = self.centre + self.focal * points[..., 0] / depth
        row = self.horizon + self.focal * (self.eye - points[..., 1]) / depth
        return np.stack((column, row), axis=-1)

    def scale(self, depth: float) -> float:
        """Pixels per metre at that depth."""
        return self.focal / max(depth, NEAR)


@dataclass(frozen=True)
class Light:
    """The time of day and the weather, as far as they change a colour."""

    zenith: Colour
    skyline: Colour
    sun: Colour  # factor per channel on surfaces that face the sun
    ambient: Colour  # factor per channel on every surface
    direction: Points  # unit vector towards the sun
    clouds: float  # share of the sky, 0…1
    sight: float  # metres after which 63 % of a colour is haze
    lamps: float  # share of windows with a light on, 0…1

    def on(self, colour: Colour, normal: Sequence[float], depth: float) -> Colour:
        """The colour of a surface with that normal, seen through `depth` metres of air."""
        facing = max(0.0, float(np.dot(normal, self.direction)))
        return self.through_air(colour * (self.ambient + self.sun * facing), depth)

    def through_air(self, colour: Colour, depth: float) -> Colour:
        """The colour after `depth` metres of haze."""
        haze = 1.0 - np.exp(-depth / self.sight)
        return colour * (1.0 - haze) + self.skyline * haze


class Canvas:
    """Colours and class ids, painted by the same strokes; the ids are never blended."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
        self.colours = Image.new("RGB", self.size)
        self.ids = Image.new("L", self.size, SKY)
        self.shadows = Image.new("L", self.size, 0)
        self._colour_pen = ImageDraw.Draw(self.colours)
        self._id_pen = ImageDraw.Draw(self.ids)
        self._shadow_pen = ImageDraw.Draw(self.shadows)

    def polygon(self, points: Points, colour: Colour, label: int | None = None) -> None:
        """Fill a polygon; without a label it is a detail on what is already there."""
        flat = points.ravel().tolist()
        self._colour_pen.polygon(flat, fill=ink(colour))
        if label is not None:
            self._id_pen.polygon(flat, fill=label)

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, colour: Colour, label: int | None = None
    ) -> None:
        """Fill an upright ellipse around (x, y)."""
        box = (x - rx, y - ry, x + rx, y + ry)
        self._colour_pen.ellipse(box, fill=ink(colour))
        if label is not None:
            self._id_pen.ellipse(box, fill=label)

    def texture(self, picture: Image.Image, points: Points, label: int) -> None:
        """Fill a polygon with a picture of the canvas's size."""
        mask = Image.new("L", self.size, 0)
        flat = points.ravel().tolist()
        ImageDraw.Draw(mask).polygon(flat, fill=255)
        self.colours.paste(picture, mask=mask)
        self._id_pen.polygon(flat, fill=label)

    def shadow(self, points: Points) -> None:
        """Mark a polygon as lying in shadow; it darkens ground only, whatever stands there."""
        self._shadow_pen.polygon(points.ravel().tolist(), fill=255)

    def truth(self) -> NDArray[np.uint8]:
        """Class ids at the picture's size: one sample per pixel, nothing averaged."""
        return np.asarray(self.ids)[::SUPERSAMPLING, ::SUPERSAMPLING].copy()


def pick(rng: np.random.Generator, colours: tuple[Colour, ...], spread: float = 0.08) -> Colour:
    """One of the colours, a little lighter or darker."""
    return colours[int(rng.integers(len(colours)))] * (1 + rng.uniform(-spread, spread, 3))


class Painter:
    """Where and in which light things are painted: canvas, camera, light and chance."""

    def __init__(
        self, canvas: Canvas, camera: Camera, light: Light, rng: np.random.Generator
    ) -> None:
        self.canvas, self.camera, self.light, self.rng = canvas, camera, light, rng

    def face(self, corners: Points, colour: Colour, label: int, towards: Points) -> bool:
        """Paint a flat polygon whose outside is `towards`, if the camera sees the outside."""
        centre = corners.mean(axis=0)
        if np.dot(towards, centre - (0, self.camera.eye, 0)) >= 0:
            return False
        seen = self.light.on(colour, towards.tolist(), float(centre[2]))
        self.canvas.polygon(self.camera.project(corners), seen, label)
        return True

    def detail(self, corners: Points, colour: Colour) -> None:
        """Paint a polygon that lies on something, in even light."""
        depth = float(corners[:, 2].mean())
        even = colour * (self.light.ambient + 0.4 * self.light.sun)
        seen = self.light.through_air(even, depth)
        self.canvas.polygon(self.camera.project(corners), seen)

    def ground_shadow(self, x: float, z: float, width: float, height: float, depth: float) -> None:
        """The shadow on flat ground of a block that stands at (x, z)."""
        sun = self.light.direction
        reach = height / max(float(sun[1]), 0.3)
        shift = np.array((-sun[0] * reach, 0.0, -sun[2] * reach))
        half = width / 2
        base = np.array(
            ((x - half, 0, z), (x + half, 0, z), (x + half, 0, z + depth), (x - half, 0, z + depth))
        )
        self.canvas.shadow(self.camera.project(base))
        for first, second in ((0, 1), (1, 2), (2, 3), (3, 0)):
            a, b = base[first], base[second]
            self.canvas.shadow(self.camera.project(np.stack((a, b, b + shift, a + shift))))
        self.canvas.shadow(self.camera.project(base + shift))
