"""Things that stand before the buildings: trees, vehicles, people, fences."""

from dataclasses import dataclass

import numpy as np

from job.demo.painting import FENCE, NEAR, PERSON, TREE, VEHICLE, Colour, Painter, Points, pick, rgb

LEAVES = (
    rgb(86, 122, 50), rgb(64, 104, 52), rgb(112, 136, 58), rgb(78, 112, 70),
    rgb(176, 122, 44), rgb(168, 84, 44),
)  # fmt: skip
PAINTS = (
    rgb(190, 40, 36), rgb(40, 72, 140), rgb(228, 228, 226), rgb(52, 54, 60), rgb(150, 154, 160),
    rgb(216, 168, 44), rgb(52, 104, 78), rgb(120, 60, 40),
)  # fmt: skip
CLOTHES = (
    rgb(200, 60, 56), rgb(48, 70, 130), rgb(232, 228, 220), rgb(58, 58, 64), rgb(222, 170, 60),
    rgb(80, 130, 96), rgb(150, 80, 140), rgb(120, 150, 190),
)  # fmt: skip
SKINS = (rgb(236, 196, 166), rgb(206, 156, 120), rgb(150, 102, 74), rgb(98, 66, 50))
ROOF, REAR, _, FRONT = range(4)  # the faces of a prism whose base begins at the rear
BOARDS = (rgb(226, 222, 212), rgb(134, 98, 66), rgb(98, 76, 58), rgb(140, 136, 128))


def tree(painter: Painter, x: float, z: float, height: float) -> None:
    """A broadleaf, a conifer or a poplar, of many strokes of leaf colour."""
    rng, light, camera = painter.rng, painter.light, painter.camera
    foot = camera.project(np.array((x, 0.0, z)))
    scale = camera.scale(z)
    kind = rng.choice(("broadleaf", "conifer", "poplar"), p=(0.6, 0.25, 0.15))
    leaf = pick(rng, LEAVES[:4] if kind == "conifer" or rng.random() < 0.75 else LEAVES[4:], 0.12)
    crown = {"broadleaf": 0.36, "conifer": 0.22, "poplar": 0.16}[str(kind)] * height
    painter.ground_shadow(x, z, 0.25, height * 0.4, 0.2)
    sun = light.direction
    reach = height * 0.65 / max(float(sun[1]), 0.3)
    spot = camera.project(np.array((x - sun[0] * reach, 0.0, max(z - sun[2] * reach, NEAR))))
    angle = np.linspace(0, 2 * np.pi, 20)
    flat = crown * scale
    oval = np.column_stack((np.cos(angle) * flat, np.sin(angle) * flat * camera.eye / (z + 2)))
    painter.canvas.shadow(spot + oval)
    bark = light.on(rgb(96, 74, 56), (0.3 * np.sign(sun[0]), 0, -0.9), z)
    thick, bole = max(height * 0.028 * scale, 0.8), height * 0.5 * scale
    trunk = np.array(((-1.3, 0), (1.3, 0), (0.7, -bole / thick), (-0.7, -bole / thick))) * thick
    painter.canvas.polygon(foot + trunk, bark, TREE)
    strokes = int(np.clip(height * scale * 0.5, 30, 260))
    if kind == "conifer":
        down = np.sort(rng.random(strokes)) ** 0.8
        offset = np.column_stack(
            (rng.uniform(-1, 1, strokes) * down * crown, height * (1 - 0.9 * down))
        )
        radius = crown * (0.1 + 0.22 * down)
    else:
        ring, turn = np.sqrt(rng.random(strokes)), rng.uniform(0, 2 * np.pi, strokes)
        tall = height * (0.33 if kind == "broadleaf" else 0.42)
        offset = np.column_stack((np.cos(turn) * crown * ring, np.sin(turn) * tall * ring))
        offset[:, 1] += height - tall - crown * 0.1
        radius = crown * rng.uniform(0.7, 1.5, strokes) * (0.09 if strokes > 120 else 0.2)
        radius[: strokes // 3] *= 1.9 if strokes > 120 else 1.2
    towards = offset[:, 0] / crown * sun[0] + (offset[:, 1] / height - 0.55) * 1.8
    brightness = 0.72 + 0.3 * towards + rng.normal(0, 0.07, strokes)
    leaves = leaf * (light.ambient + light.sun * 0.55) * np.maximum(brightness, 0.35)[:, None]
    shades = light.through_air(leaves, z)
    at = foot + offset * (scale, -scale)
    # Dark strokes first: what the sun reaches lies outside.
    for index in np.argsort(brightness + rng.normal(0, 0.12, strokes)).tolist():
        wide = radius[index] * scale
        painter.canvas.ellipse(at[index, 0], at[index, 1], wide, wide * 0.8, shades[index], TREE)


def _prism(low: Points, high: Points) -> list[tuple[Points, Points]]:
    """The faces of a body between two quads, as (corners, outward normal)."""
    middle = (low.mean(axis=0) + high.mean(axis=0)) / 2
    faces = [high]
    for first in range(4):
        second = (first + 1) % 4
        faces.append(np.stack((low[first], low[second], high[second], high[first])))
    result = []
    for corners in faces:
        normal = np.cross(corners[1] - corners[0], corners[3] - corners[0])
        normal = normal / np.linalg.norm(normal)
        if np.dot(normal, corners.mean(axis=0) - middle) < 0:
            normal = -normal
        result.append((corners, normal))
    return result


def _inset(corners: Points, left: float, right: float, low: float, high: float) -> Points:
    """The part of a quad between those shares of its width and height."""
    bottom, top = corners[1] - corners[0], corners[2] - corners[3]
    shares = ((left, low), (right, low), (right, high), (left, high))
    points = [
        (corners[0] + bottom * across) * (1 - up) + (corners[3] + top * across) * up
        for across, up in shares
    ]
    return np.stack(points)


@dataclass(frozen=True)
class Build:
    """The shape of a kind of vehicle: metres, then shares of half its length, then windows."""

    long: float
    wide: float
    waist: float
    top: float
    tail: float  # where the windows begin and end, −1 at the rear, 1 at the front
    nose: float
    slant: float
    panes: int


BUILDS = (
    Build(4.3, 1.8, 0.95, 1.5, tail=-0.78, nose=0.42, slant=0.2, panes=2),
    Build(4.9, 1.95, 1.2, 2.1, tail=-0.99, nose=0.72, slant=0.06, panes=2),
    Build(9.5, 2.5, 1.3, 3.0, tail=-0.99, nose=0.98, slant=0.06, panes=6),
)


def vehicle(painter: Painter, x: float, z: float, turn: float) -> None:
    """A car, van or bus around (x, z); `turn` is its heading, 0 driving away from the camera."""
    rng = painter.rng
    build = BUILDS[int(rng.choice(3, p=(0.72, 0.18, 0.1)))]
    paint = pick(rng, PAINTS)
    half, end = build.wide / 2, build.long / 2
    along = np.array((np.sin(turn), 0.0, np.cos(turn)))
    aside = np.array((np.cos(turn), 0.0, -np.sin(turn)))
    middle = np.array((x, 0.0, z))

    def level(height: float, side: float, rear: float, front: float) -> Points:
        """A rectangle at that height: rear left, rear right, front right, front left."""
        corners = ((-side, rear), (side, rear), (side, front), (-side, front))
        flat = np.stack([middle + aside * a + along * b for a, b in corners])
        flat[:, 1] = height
        return flat

    reach = np.abs(aside) * half + np.abs(along) * end
    painter.ground_shadow(x, z - reach[2], 2 * reach[0], 1.0, 2 * reach[2])
    chassis = level(0.05, half * 0.9, -end * 0.82, end * 0.82)
    for corners, normal in _prism(chassis, level(0.35, half * 0.98, -end * 0.9, end * 0.9)):
        painter.face(corners, rgb(18, 18, 20), VEHICLE, normal)
    body = _prism(level(0.3, half, -end, end), level(build.waist, half, -end, end))
    for index, (corners, normal) in enumerate(body):
        if painter.face(corners, paint, VEHICLE, normal) and index in (REAR, FRONT):
            _bumper(painter, corners, rear=index == REAR, depth=z - end)
    for side in (-1.0, 1.0):
        hubs = [middle + aside * side * half + along * axle * end for axle in (-0.62, 0.62)]
        _wheels(painter, hubs, along, aside * side)
    rear, front = build.tail + build.slant, build.nose - build.slant * 1.2
    belt = level(build.waist, half, build.tail * end, build.nose * end)
    cabin = _prism(belt, level(build.top, half * 0.82, rear * end, front * end))
    for index, (corners, normal) in enumerate(cabin):
        if painter.face(corners, paint * 0.96, VEHICLE, normal) and index != ROOF:
            _glass(painter, corners, 1 if index in (REAR, FRONT) else build.panes)


def _bumper(painter: Painter, corners: Points, rear: bool, depth: float) -> None:
    """Lamps, bumper and number plate on the rear or the front of a vehicle."""
    light = painter.light
    lamps = rgb(220, 30, 26) if rear else rgb(250, 246, 226)
    glow = light.through_air(lamps * (1.0 if light.lamps > 0.3 else 0.8), depth)
    for left in (0.04, 0.78):
        lamp = _inset(corners, left, left + 0.18, 0.55, 0.82)
        painter.canvas.polygon(painter.camera.project(lamp), glow)
    painter.detail(_inset(corners, 0.0, 1.0, 0.0, 0.22), rgb(40, 40, 44))
    painter.detail(_inset(corners, 0.38, 0.62, 0.25, 0.45), rgb(214, 214, 206))


def _glass(painter: Painter, corners: Points, panes: int) -> None:
    glass = rgb(52, 64, 78) + 0.22 * painter.light.zenith
    for pane in range(panes):
        start, stop = (pane + 0.06) / panes, (pane + 0.94) / panes
        painter.detail(_inset(corners, start, stop, 0.1, 0.86), glass)


def _wheels(painter: Painter, hubs: list[Points], along: Points, outward: Points) -> None:
    """The wheels of one side of a vehicle, if the camera sees that side."""
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)[:, None]
    rim = along * np.cos(angle) + np.array((0.0, 1.0, 0.0)) * np.sin(angle)
    for hub in hubs:
        hub = hub + np.array((0.0, 0.33, 0.0))
        if painter.face(hub + rim * 0.34, rgb(26, 26, 28), VEHICLE, outward):
            painter.detail(hub + rim * 0.18, rgb(150, 150, 154))


def person(painter: Painter, x: float, z: float) -> None:
    """Somebody who stands or walks."""
    rng, light = painter.rng, painter.light
    scale, foot = painter.camera.scale(z), painter.camera.project(np.array((x, 0.0, z)))
    tall = rng.uniform(0.88, 1.08)
    painter.ground_shadow(x, z, 0.4, 1.6, 0.2)
    flip = rng.choice((-1, 1))
    sideways = 0.5 * light.direction[0]

    def shape(points: list[tuple[float, float]], colour: Colour) -> None:
        flat = np.array(points) * (flip * 1.15, -1) * tall * scale
        painter.canvas.polygon(foot + flat, light.on(colour, (sideways, 0, -0.8), z), PERSON)

    top, trousers, skin = pick(rng, CLOTHES), pick(rng, CLOTHES) * 0.7, pick(rng, SKINS)
    stride, swing = rng.uniform(0.02, 0.3), rng.uniform(0.05, 0.25)
    skirt = rng.random() < 0.25
    for side, shade in ((-1, 0.8), (1, 1.0)):
        ankle = side * (0.07 + stride * 0.8)
        leg = [(ankle - 0.07, 0.06), (ankle + 0.08, 0.06), (0.16, 0.88), (-0.16, 0.88)]
        shape(leg, (skin if skirt else trousers) * shade)
        shape(
            [(ankle - 0.08, 0), (ankle + 0.18, 0), (ankle + 0.1, 0.1), (ankle - 0.08, 0.1)],
            rgb(44, 38, 36),
        )
    if skirt:
        shape([(-0.3, 0.5), (0.3, 0.5), (0.16, 0.98), (-0.16, 0.98)], trousers)
    for side in (-1, 1):
        hand = side * (0.22 + swing)
        shape(
            [(hand - 0.05, 0.78), (hand + 0.06, 0.78), (side * 0.24, 1.42), (side * 0.12, 1.42)],
            top * 0.85,
        )
        shape(
            [(hand - 0.05, 0.72), (hand + 0.06, 0.72), (hand + 0.05, 0.82), (hand - 0.05, 0.82)],
            skin,
        )
    shape(
        [(-0.17, 0.84), (0.17, 0.84), (0.24, 1.3), (0.18, 1.46), (-0.18, 1.46), (-0.24, 1.3)], top
    )
    if rng.random() < 0.3:
        shape([(-0.15, 0.95), (0.15, 0.95), (0.15, 1.38), (-0.15, 1.38)], pick(rng, PAINTS))
    shape([(-0.06, 1.4), (0.06, 1.4), (0.05, 1.54), (-0.05, 1.54)], skin * 0.85)
    column, row = foot[0], foot[1] - 1.63 * tall * scale
    size = 0.135 * tall * scale
    hair = pick(rng, (rgb(52, 38, 30), rgb(116, 82, 50), rgb(196, 166, 110), rgb(80, 60, 46)))
    lit = light.on(hair, (sideways, 0, -0.8), z)
    painter.canvas.ellipse(column, row - size * 0.15, size, size * 1.12, lit, PERSON)
    if rng.random() < 0.6:
        lit = light.on(skin, (sideways, 0, -0.8), z)
        painter.canvas.ellipse(column, row + size * 0.25, size * 0.8, size * 0.9, lit, PERSON)


def fence(painter: Painter, start: tuple[float, float], stop: tuple[float, float]) -> None:
    """A board fence or a stone wall between two ground points."""
    rng, light = painter.rng, painter.light
    a, b = np.array((start[0], 0.0, start[1])), np.array((stop[0], 0.0, stop[1]))
    length = float(np.linalg.norm(b - a))
    along = (b - a) / length
    normal = np.array((along[2], 0.0, -along[0]))
    if np.dot(normal, a - (0, painter.camera.eye, 0)) > 0:
        normal = -normal
    stone = rng.random() < 0.35
    colour = pick(rng, (rgb(150, 140, 126), rgb(172, 110, 90))) if stone else pick(rng, BOARDS)
    height, pitch = rng.uniform(0.9, 1.5), 0.7 if stone else 0.28
    pointed = 0.0 if stone else 0.12 * rng.integers(2)
    count = int(length / pitch)
    depths = a[2] + (b[2] - a[2]) * np.arange(count) / count
    shades = rng.uniform(0.84, 1.08, count)
    for index in np.argsort(-depths):
        left, right = a + along * pitch * index, a + along * pitch * (index + 1)
        if min(left[2], right[2]) < NEAR:
            continue
        up = np.array((0.0, height, 0.0))
        peak = (left + right) / 2 + up * (1 + pointed)
        corners = np.stack((left, right, right + up, peak, left + up))
        seen = light.on(colour * shades[index], normal.tolist(), float(left[2]))
        painter.canvas.polygon(painter.camera.project(corners), seen, FENCE)
        if painter.camera.scale(float(left[2])) < 14:
            continue
        if stone:
            for row in (0.33, 0.66):
                low = left + up * row
                joint = np.stack(
                    (low, right + up * row, right + up * (row + 0.03), low + up * 0.03)
                )
                painter.canvas.polygon(painter.camera.project(joint), seen * 0.75)
        else:
            gap = np.stack((left, left + along * 0.035, left + along * 0.035 + up, left + up))
            painter.canvas.polygon(painter.camera.project(gap), seen * 0.6)
