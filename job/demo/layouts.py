"""Compositions: what stands where in a street, a valley, a waterfront, a row of houses."""

from collections.abc import Callable

import numpy as np

from job.demo.buildings import building
from job.demo.painting import BUILDING, GRASS, NEAR, ROAD, SIDEWALK, TREE, WATER, Painter, pick, rgb
from job.demo.terrain import UP, ground, joints, lake, land, lines, mountains, skyline
from job.demo.things import fence, person, tree, vehicle

ASPHALT = (rgb(98, 100, 106), rgb(80, 82, 88), rgb(114, 112, 112))
PAVING = (rgb(196, 184, 168), rgb(182, 166, 150), rgb(206, 190, 170), rgb(190, 156, 134))
MEADOW = (rgb(104, 134, 58), rgb(128, 142, 70), rgb(88, 120, 62), rgb(160, 148, 84))

Planted = list[tuple[float, Callable[[], None]]]  # (distance, paint it)


def plant(things: Planted) -> None:
    """Paint things from the farthest to the nearest."""
    for _, paint in sorted(things, key=lambda thing: -thing[0]):
        paint()


def background(painter: Painter) -> None:
    """What closes the view: mountains, a far wood, a far town, or nothing."""
    rng = painter.rng
    if rng.random() < 0.6:
        mountains(painter, rng.uniform(0.1, 0.34))
    if rng.random() < 0.4:
        skyline(painter, 150.0, TREE if rng.random() < 0.6 else BUILDING)


def street(painter: Painter) -> None:
    """A street that leads away between two rows of buildings."""
    rng = painter.rng
    middle, half, walk = rng.uniform(-4.5, 4.5), rng.uniform(3.2, 6.5), rng.uniform(2.2, 4.5)
    background(painter)
    land(painter, GRASS, pick(rng, MEADOW))
    kerb, edge = half, half + walk
    paving, lawn = pick(rng, PAVING), rng.uniform(0, 7) if rng.random() < 0.45 else 0.0
    ground(painter, SIDEWALK, paving, (middle - edge, middle + edge))
    joints(painter, paving, (middle - edge, middle + edge), (2.0, 26.0))
    ground(painter, SIDEWALK, paving * 1.2, (middle - kerb - 0.3, middle + kerb + 0.3))
    ground(painter, ROAD, pick(rng, ASPHALT), (middle - kerb, middle + kerb))
    lines(painter, middle, dashed=bool(rng.random() < 0.7))
    tallest, fronts = rng.choice((7.0, 13.0, 26.0)), edge + lawn
    for side in (-1, 1):
        z, blocks = rng.uniform(-9, 0), []
        while z < 120:
            deep = rng.uniform(8, 17)
            blocks.append((z, deep, rng.uniform(0.55, 1.0) * tallest))
            z += deep + (rng.uniform(2, 14) if rng.random() < (0.8 if tallest < 10 else 0.2) else 0)
        for z, deep, height in reversed(blocks):
            near = middle + side * fronts
            building(painter, near if side > 0 else near - 12, z, 12.0, deep, max(height, 4.5))
        if lawn > 1.5 and rng.random() < 0.7:
            bar = middle + side * (edge + 0.3)
            fence(painter, (bar, rng.uniform(1, 3)), (bar, rng.uniform(12, 30)))
    things: Planted = []
    spacing, height = rng.uniform(7, 18), rng.uniform(4, 9)
    for side in (-1, 1):
        if rng.random() < 0.75:
            x = middle + side * (kerb + 0.6 if lawn < 2 else edge + 1.2)
            for z in np.arange(rng.uniform(6, 12), 90, spacing):
                things.append(planted_tree(painter, x, float(z), height * rng.uniform(0.8, 1.2)))
        for _ in range(int(rng.integers(0, 5))):
            x = middle + side * rng.uniform(kerb + 0.5, edge - 0.3)
            things.append(walker(painter, x, rng.uniform(3.0, 6.5)))
    things += traffic(painter, middle, kerb)
    plant(things)


def planted_tree(
    painter: Painter, x: float, z: float, height: float
) -> tuple[float, Callable[[], None]]:
    return z, lambda: tree(painter, x, z, height)


def walker(painter: Painter, x: float, z: float) -> tuple[float, Callable[[], None]]:
    camera = painter.camera
    edge = camera.focal * camera.eye / (painter.canvas.size[1] - camera.horizon)
    z = max(z, 0.9 * edge)  # feet may leave the picture, not the whole person
    return z, lambda: person(painter, x, z)


def car(painter: Painter, x: float, z: float, turn: float) -> tuple[float, Callable[[], None]]:
    return z, lambda: vehicle(painter, x, z, turn)


def traffic(painter: Painter, middle: float, half: float) -> Planted:
    """Vehicles parked at both kerbs and driving in both lanes of a road that leads away."""
    rng, things = painter.rng, []
    for side in (-1, 1):
        heading = 0.0 if side > 0 else np.pi
        if half > 4.4 and rng.random() < 0.8:
            z = rng.uniform(5, 12)
            while z < 34:
                if rng.random() < 0.7:
                    things.append(car(painter, middle + side * (half - 1.1), z, heading))
                z += rng.uniform(6.2, 11)
        if rng.random() < 0.75:
            lane = side * half * 0.4 if half <= 4.4 else side * 1.5
            for z in np.cumsum(rng.uniform(7, 14, 3)):
                things.append(car(painter, middle + lane, float(z), heading))
    return things


def country(painter: Painter) -> None:
    """A road through meadows, with trees, a farm, mountains."""
    rng = painter.rng
    mountains(painter, rng.uniform(0.12, 0.42))
    if rng.random() < 0.6:
        skyline(painter, rng.uniform(90, 200), TREE)
    meadow = pick(rng, MEADOW)
    land(painter, GRASS, meadow)
    for _ in range(3):
        z = rng.uniform(12, 70)
        field = meadow * (1 + rng.uniform(-0.16, 0.16, 3))
        x = rng.uniform(-60, 30)
        ground(painter, GRASS, field, (x, x + rng.uniform(20, 80)), (z, z * 1.6))
    if rng.random() < 0.35:
        x, z = rng.uniform(-30, 10), rng.uniform(10, 24)
        ground(painter, WATER, rgb(96, 128, 150), (x, x + rng.uniform(12, 30)), (z, z * 1.7))
    bend, middle, half = rng.uniform(-0.005, 0.005), rng.uniform(-3.5, 3.5), rng.uniform(2.2, 3.6)
    sides = (middle - half, middle + half)
    ground(painter, ROAD, pick(rng, ASPHALT), sides, (0.5, 85.0), bend)
    lines(painter, middle, dashed=True, bend=bend)
    things: Planted = []
    for _ in range(int(rng.integers(0, 4))):
        side, z = rng.choice((-1, 1)), rng.uniform(18, 60)
        x = middle + bend * z**2 + side * rng.uniform(half + 4, half + 22) - (9 if side < 0 else 0)
        size = rng.uniform(8, 14), rng.uniform(7, 10), rng.uniform(3.5, 6.5)
        things.append((z, lambda x=x, z=z, size=size: building(painter, x, z, *size)))  # type: ignore[misc]
    for _ in range(int(rng.integers(6, 22))):
        z = float(rng.uniform(2.7, 9) ** 2)
        x = middle + bend * z**2 + rng.choice((-1, 1)) * (half + rng.uniform(1.8, 5 + z * 0.5))
        things.append(planted_tree(painter, x, z, rng.uniform(4, 11)))
    if rng.random() < 0.75:
        side = rng.choice((-1, 1))
        x, z = middle + side * (half + rng.uniform(0.8, 1.6)), rng.uniform(12, 30)
        fence(painter, (x, 1.2), (x + bend * z**2, z))
    for z in np.cumsum(rng.uniform(6, 16, int(rng.integers(0, 4)))):
        side = rng.choice((-1, 1))
        turn = (0.0 if side > 0 else np.pi) + 2 * bend * z
        things.append(car(painter, middle + bend * z**2 + side * half / 2, float(z), turn))
    for _ in range(int(rng.integers(0, 4))):
        x = middle + rng.choice((-1, 1)) * half * rng.uniform(0.9, 1.6)
        things.append(walker(painter, x, rng.uniform(3.0, 6.5)))
    plant(things)


def waterfront(painter: Painter) -> None:
    """A promenade above a lake, with the far shore beyond."""
    rng = painter.rng
    if rng.random() < 0.8:
        mountains(painter, rng.uniform(0.12, 0.4))
    if rng.random() < 0.75:
        skyline(painter, rng.uniform(150, 250), TREE if rng.random() < 0.4 else BUILDING)
    shore, lawn = rng.uniform(7, 14), rng.uniform(0.6, 2.5)
    tone = rgb(58, 96, 116) * (painter.light.ambient + painter.light.sun * 0.5)
    lake(painter, shore * 0.98, tone)
    wide = (-900.0, 900.0)
    ground(painter, GRASS, pick(rng, MEADOW), wide, (0.5, shore))
    paving = pick(rng, PAVING)
    ground(painter, SIDEWALK, paving, wide, (shore * 0.45, shore - lawn))
    joints(painter, paving, (-18.0, 18.0), (shore * 0.45, shore - lawn))
    if rng.random() < 0.5:
        ground(painter, ROAD, pick(rng, ASPHALT), wide, (0.5, shore * 0.45))
    things: Planted = []
    if rng.random() < 0.6:
        stop = rng.uniform(-2, 30)
        things.append((shore, lambda: fence(painter, (-40.0, shore), (stop, shore))))
    for _ in range(int(rng.integers(1, 8))):
        x, z = rng.uniform(-1.1, 1.1) * shore, shore - rng.uniform(0.1, lawn)
        things.append(planted_tree(painter, x, z, rng.uniform(3.5, 8)))
    for _ in range(int(rng.integers(2, 7))):
        z = rng.uniform(3.0, 6.5)
        things.append(walker(painter, rng.uniform(-0.6, 0.6) * z, z))
    if rng.random() < 0.6:
        x, turn = rng.uniform(-5, 5), rng.choice((-1, 1)) * np.pi / 2
        things.append(car(painter, x, max(shore * 0.35, 4.5), turn))
    plant(things)


def row_of_houses(painter: Painter) -> None:
    """Houses seen from across their street."""
    rng = painter.rng
    background(painter)
    land(painter, GRASS, pick(rng, MEADOW))
    front, walk, wide = rng.uniform(13, 24), rng.uniform(1.8, 3.5), (-120.0, 120.0)
    lawn = rng.uniform(0, 4) if rng.random() < 0.6 else 0.0
    kerb = front - lawn - walk
    paving = pick(rng, PAVING)
    ground(painter, SIDEWALK, paving, wide, (NEAR, front - lawn))
    joints(painter, paving, (-25.0, 25.0), (1.5, front - lawn))
    ground(painter, SIDEWALK, paving * 1.2, wide, (kerb - 0.2, kerb + 0.15))
    ground(painter, ROAD, pick(rng, ASPHALT), wide, (rng.uniform(2, 4), kerb - 0.15))
    middle = kerb * 0.62
    for x in np.arange(-60, 60, 5.0):
        corners = np.array(((x, middle), (x + 2.5, middle), (x + 2.5, middle + 0.14)))
        flat = np.array((*corners, (x, middle + 0.14)))
        dash = np.column_stack((flat[:, 0], np.zeros(4), flat[:, 1]))
        lit = painter.light.on(rgb(224, 222, 212), UP, middle)
        painter.canvas.polygon(painter.camera.project(dash), lit)
    x, tallest = -45.0 + rng.uniform(0, 8), rng.choice((5.5, 9.0, 16.0))
    while x < 45:
        size = rng.uniform(7, 15)
        height = tallest * rng.uniform(0.7, 1.15)
        building(painter, x, front + rng.uniform(0, 1.5), size, 9.0, height)
        x += size + (rng.uniform(1, 7) if rng.random() < 0.65 else 0.0)
    if lawn > 1 and rng.random() < 0.8:
        stop = rng.uniform(0, 30)
        fence(painter, (-30.0, front - lawn), (stop, front - lawn))
    things: Planted = []
    for _ in range(int(rng.integers(1, 7))):
        z = front - rng.uniform(0.3, max(lawn, 0.5)) if lawn > 1 else kerb + 0.5
        things.append(planted_tree(painter, rng.uniform(-0.9, 0.9) * front, z, rng.uniform(3, 7)))
    for x in np.cumsum(rng.uniform(5.5, 13, 5)) - front * 0.9:
        turn = rng.choice((-1, 1)) * np.pi / 2
        z = kerb - 1.3 if rng.random() < 0.6 else middle - 1.6
        if rng.random() < 0.65:
            things.append(car(painter, float(x), max(z, 4.0), turn))
    for _ in range(int(rng.integers(0, 6))):
        z = rng.uniform(3.0, 6.5)
        things.append(walker(painter, rng.uniform(-0.6, 0.6) * z, z))
    plant(things)
