"""The land: strips of ground, lane markings, mountains, far woods and towns, lakes."""

import numpy as np
from PIL import Image, ImageFilter

from job.demo.painting import (
    FAR,
    MOUNTAIN,
    TREE,
    WATER,
    Colour,
    Painter,
    pick,
    rgb,
)
from job.demo.things import LEAVES

ROCK = (rgb(104, 112, 122), rgb(122, 106, 92), rgb(84, 104, 84), rgb(96, 116, 74))
UP = (0.0, 1.0, 0.0)


def ground(
    painter: Painter,
    label: int,
    colour: Colour,
    across: tuple[float, float],
    deep: tuple[float, float] = (0.5, FAR),
    bend: float = 0.0,
) -> None:
    """A strip of flat ground between two X and two Z; `bend` curves it to one side."""
    stops = np.geomspace(max(deep[0], 0.5), deep[1], 16)
    left, right = (np.column_stack((x + bend * stops**2, 0 * stops, stops)) for x in across)
    left, right = painter.camera.project(left), painter.camera.project(right)
    for index in range(15):
        lit = painter.light.on(colour, UP, float(stops[index]))
        corners = (left[index], right[index], right[index + 1], left[index + 1])
        painter.canvas.polygon(np.stack(corners), lit, label)


def land(painter: Painter, label: int, colour: Colour) -> None:
    """Everything below the horizon."""
    ground(painter, label, colour, (-900.0, 900.0), (0.5, 900.0))


def lines(painter: Painter, x: float, dashed: bool, bend: float = 0.0) -> None:
    """A lane marking along a road that leads away."""
    paint = rgb(226, 224, 214) if painter.rng.random() < 0.8 else rgb(220, 184, 70)
    start, length = 2.0, 3.0 if dashed else 4.0
    while start < 70:
        stop = start + length
        z = np.array((start, start, stop, stop))
        flat = np.array((x - 0.08, x + 0.08, x + 0.08, x - 0.08))
        corners = np.column_stack((flat + bend * z**2, np.zeros(4), z))
        lit = painter.light.on(paint, UP, start)
        painter.canvas.polygon(painter.camera.project(corners), lit)
        start = stop + (4.0 if dashed else 0.0)


def joints(
    painter: Painter, colour: Colour, across: tuple[float, float], deep: tuple[float, float]
) -> None:
    """The joints between paving slabs, both ways, on a strip of ground."""
    pitch = painter.rng.uniform(0.8, 1.6)
    dark = colour * 0.72
    for z in np.arange(deep[0], deep[1], pitch):
        if painter.camera.scale(z) * painter.camera.eye * 0.05 / z < 0.3:
            break
        _joint(painter, dark, across, (z, z + 0.05))
    for x in np.arange(across[0], across[1], pitch):
        _joint(painter, dark, (x, x + 0.04), deep)


def _joint(
    painter: Painter, colour: Colour, across: tuple[float, float], deep: tuple[float, float]
) -> None:
    (left, right), (near, far) = across, deep
    corners = np.array(((left, 0, near), (right, 0, near), (right, 0, far), (left, 0, far)))
    lit = painter.light.on(colour, UP, near)
    painter.canvas.polygon(painter.camera.project(corners), lit)


def mountains(painter: Painter, height: float) -> None:
    """One to three ridges behind the horizon, the farthest the palest; some carry snow."""
    rng, light, camera, canvas = painter.rng, painter.light, painter.camera, painter.canvas
    layers, rock = int(rng.integers(1, 4)), pick(rng, ROCK)
    steps = 96
    for layer in range(layers, 0, -1):
        waves = rng.standard_normal(129)
        ridge = np.zeros(steps)
        at = np.linspace(0, 1, steps)
        for octave in range(6):
            knots = np.linspace(0, 1, 3 * 2**octave + 1)
            ridge += np.interp(at, knots, waves[: len(knots)]) * 0.56**octave
            waves = np.roll(waves, 17)
        ridge = 0.5 + 0.28 * ridge / max(ridge.std(), 0.3) - 0.25 * (1 - layer / layers)
        ridge = np.maximum(0.05, 1.15 * np.tanh(ridge)) * height
        tops = np.column_stack((at * canvas.size[0], camera.horizon - ridge * camera.focal))
        feet = np.array(((canvas.size[0], camera.horizon + 2), (0, camera.horizon + 2)))
        haze = light.sight * (0.25 + 0.28 * layer)
        lit = light.on(rock, (0.3, 0.7, -0.6), haze)
        canvas.polygon(np.concatenate((tops, feet)), lit, MOUNTAIN)
        if layer == layers and height > 0.2 and rng.random() < 0.6:
            line = camera.horizon - camera.focal * height * (0.55 + 0.12 * rng.random(steps))
            snow = np.column_stack((tops[:, 0], np.maximum(line, tops[:, 1])))
            white = light.on(rgb(236, 238, 244), (0.3, 0.7, -0.6), haze * 0.4)
            canvas.polygon(np.concatenate((tops, snow[::-1])), white)


def skyline(painter: Painter, depth: float, label: int) -> None:
    """A far row of houses or of trees along the whole horizon."""
    rng, camera, light = painter.rng, painter.camera, painter.light
    column, scale = -20.0, camera.scale(depth)
    foot = camera.horizon + scale * camera.eye
    tone = pick(rng, LEAVES) * 0.7 if label == TREE else rgb(150, 140, 136)
    while column < painter.canvas.size[0]:
        wide = scale * rng.uniform(7, 20)
        lit = light.on(tone * rng.uniform(0.8, 1.2), (0.0, 0.3, -0.9), depth)
        if label == TREE:
            tall = scale * rng.uniform(6, 11)
            painter.canvas.ellipse(column, foot - tall * 0.4, wide * 0.6, tall * 0.6, lit, label)
            column += wide * 0.5
            continue
        tall = scale * rng.uniform(8, 34)
        corners = ((column, foot), (column + wide, foot), (column + wide, foot - tall))
        painter.canvas.polygon(np.array((*corners, (column, foot - tall))), lit, label)
        for row in np.arange(foot - tall + 4, foot - 4, max(scale * 3.4, 6)):
            band = np.array(((column + 2, row), (column + wide - 2, row)))
            strip = np.concatenate((band, band[::-1] + np.array((0, max(scale * 1.3, 2)))))
            bright = rgb(240, 196, 120) if rng.random() < light.lamps else lit * 0.82
            painter.canvas.polygon(strip, bright)
        column += wide + (scale * rng.uniform(0, 14) if rng.random() < 0.4 else 0.0)


def lake(painter: Painter, near: float, colour: Colour) -> None:
    """Water from `near` metres to the horizon; it mirrors what was painted above it."""
    canvas, camera = painter.canvas, painter.camera
    horizon = round(camera.horizon)
    wide, high = canvas.size
    depth = min(horizon, high - horizon)
    mirror = canvas.colours.crop((0, horizon - depth, wide, horizon))
    mirror = mirror.transpose(Image.Transpose.FLIP_TOP_BOTTOM).reduce(2)
    mirror = mirror.filter(ImageFilter.BoxBlur((wide / 300, wide / 60))).resize((wide, depth))
    tint = Image.new("RGB", (wide, depth), tuple(int(value) for value in colour))
    picture = canvas.colours.copy()
    picture.paste(Image.blend(mirror, tint, painter.rng.uniform(0.2, 0.5)), (0, horizon))
    row = horizon + camera.focal * camera.eye / near
    corners = np.array(((0, horizon), (wide, horizon), (wide, row), (0, row)), dtype=np.float64)
    canvas.texture(picture, corners, WATER)
