"""Buildings: blocks with rows of windows, shops, houses under pitched roofs."""

import numpy as np

from job.demo.painting import BUILDING, NEAR, Colour, Painter, Points, pick, rgb

FACADES = (
    rgb(176, 98, 76), rgb(205, 178, 140), rgb(222, 214, 200), rgb(150, 152, 158),
    rgb(198, 146, 92), rgb(128, 146, 160), rgb(214, 190, 104), rgb(160, 172, 140),
    rgb(186, 124, 112), rgb(120, 106, 100),
)  # fmt: skip
ROOFS = (rgb(142, 70, 54), rgb(96, 84, 82), rgb(112, 62, 50), rgb(82, 90, 104))
SHOP_SIGNS = (rgb(170, 44, 40), rgb(40, 72, 130), rgb(206, 164, 60), rgb(48, 96, 76))


def _windows(
    painter: Painter, origin: Points, along: Points, length: float, height: float, spacing: float
) -> None:
    """Rows of windows on a wall that starts at `origin` and runs `length` metres `along`."""
    camera, light, rng = painter.camera, painter.light, painter.rng
    columns, floors = int(length / spacing), int((height - 0.6) / 3.1)
    if columns < 1 or floors < 1:
        return
    wide, high = rng.uniform(0.45, 0.72), rng.uniform(0.45, 0.62)
    glass = rgb(70, 86, 104) * rng.uniform(0.6, 1.3)
    frame = rgb(226, 224, 218) if rng.random() < 0.6 else rgb(80, 72, 66)
    pitch = length / columns
    for column in range(columns):
        start, stop = (column + 0.5 - wide / 2) * pitch, (column + 0.5 + wide / 2) * pitch
        left, right = origin + along * start, origin + along * stop
        depth = float(left[2] + right[2]) / 2
        if min(left[2], right[2]) < NEAR or camera.scale(depth) * 3.1 * high < 3:
            continue
        sky = light.through_air(0.25 * light.zenith + glass * light.ambient, depth)
        rim = light.through_air(frame * (light.ambient + 0.3 * light.sun), depth)
        lamp = light.through_air(rgb(255, 208, 128), depth)
        edge = 0.09 if camera.scale(depth) > 9 else 0.0
        chances = rng.random(floors)
        for floor in range(floors):
            low = floor * 3.1 + 3.1 * (1 - high) / 2 + 0.2
            top = low + 3.1 * high
            quad = np.array((left, right, right, left))
            quad[:, 1] += (low, low, top, top)
            if edge:
                rimmed = quad + along * np.array(((-edge,), (edge,), (edge,), (-edge,)))
                rimmed[:, 1] += (-edge, -edge, edge, edge)
                painter.canvas.polygon(camera.project(rimmed), rim)
            lit = chances[floor] < light.lamps
            shine = lamp if lit else sky * (0.8 + 0.4 * chances[floor])
            painter.canvas.polygon(camera.project(quad), shine)


def _wall(
    painter: Painter,
    start: tuple[float, float],
    stop: tuple[float, float],
    height: float,
    colour: Colour,
    spacing: float,
    shop: bool,
) -> None:
    """A wall between two ground points, seen from the side where `start` is on the left."""
    a, b = np.array((start[0], 0.0, start[1])), np.array((stop[0], 0.0, stop[1]))
    length = float(np.linalg.norm(b - a))
    along = (b - a) / length
    normal = np.array((along[2], 0.0, -along[0]))
    up = np.array((0.0, height, 0.0))
    if not painter.face(np.stack((a, b, b + up, a + up)), colour, BUILDING, normal):
        return
    base = np.array((0.0, 3.3 if shop else 0.0, 0.0))
    _windows(painter, a + base, along, length, height - float(base[1]), spacing)
    band = np.array((0.0, 0.45, 0.0))
    painter.detail(np.stack((a + up - band, b + up - band, b + up, a + up)), colour * 0.8)
    if shop:
        low, high = np.array((0.0, 0.4, 0.0)), np.array((0.0, 2.5, 0.0))
        painter.detail(np.stack((a + low, b + low, b + high, a + high)), rgb(62, 60, 64))
        sign = pick(painter.rng, SHOP_SIGNS)
        top = np.array((0.0, 3.2, 0.0))
        painter.detail(np.stack((a + high, b + high, b + top, a + top)), sign)
        for share in np.arange(0.06, 0.95, 0.16):
            left, right = a + along * length * share, a + along * length * (share + 0.11)
            if min(left[2], right[2]) > NEAR:
                pane = np.stack((left + low * 1.4, right + low * 1.4, right + high, left + high))
                warm = rgb(214, 190, 140) if painter.light.lamps > 0.3 else rgb(110, 122, 130)
                painter.detail(pane, warm)


def building(
    painter: Painter, x: float, z: float, width: float, depth: float, height: float
) -> None:
    """A block with its near left corner at (x, z), with a flat roof or, if low, a gable."""
    rng = painter.rng
    colour, spacing = pick(rng, FACADES), rng.uniform(1.9, 3.4)
    shop = bool(height > 6 and rng.random() < 0.4)
    near, far, right = max(z, NEAR), z + depth, x + width
    if far <= NEAR:
        return
    painter.ground_shadow(x + width / 2, near, width, height, far - near)
    gabled = height < 7.5
    if gabled:
        _gable(painter, (x, right), (near, far), height, colour)
    if x > 0:
        _wall(painter, (x, far), (x, near), height, colour, spacing, shop)
    if right < 0:
        _wall(painter, (right, near), (right, far), height, colour, spacing, shop)
    if z > NEAR:
        _wall(painter, (x, z), (right, z), height, colour, spacing, shop)
        if not shop:
            door = x + width * rng.uniform(0.15, 0.7)
            corners = np.array(
                ((door, 0, z), (door + 1.1, 0, z), (door + 1.1, 2.2, z), (door, 2.2, z))
            )
            painter.detail(corners, pick(rng, SHOP_SIGNS) * 0.8)


def _gable(
    painter: Painter,
    across: tuple[float, float],
    deep: tuple[float, float],
    height: float,
    colour: Colour,
) -> None:
    """A pitched roof whose ridge runs along X or along Z, with a chimney."""
    rng, (left, right), (near, far) = painter.rng, across, deep
    rise, tiles = min(right - left, far - near) * rng.uniform(0.3, 0.5), pick(rng, ROOFS)
    middle_x, middle_z, over, top = (left + right) / 2, (near + far) / 2, 0.35, height + rise
    along_x = rng.random() < 0.6
    chimney = left + (right - left) * rng.uniform(0.2, 0.8)
    stack = np.array(((0, 0), (0.8, 0), (0.8, 1), (0, 1))) * (1, rise * 0.5 + 1.2)
    corners = np.column_stack(
        (chimney + stack[:, 0], top - rise * 0.5 + stack[:, 1], [middle_z] * 4)
    )
    painter.face(corners, rgb(130, 78, 66), BUILDING, np.array((0.0, 0.0, -1.0)))
    if along_x:
        slope = np.array(
            (
                (left - over, height - 0.1, near - over),
                (right + over, height - 0.1, near - over),
                (right + over, top, middle_z),
                (left - over, top, middle_z),
            )
        )
        normal = np.array((0.0, middle_z - near, -rise)) / np.hypot(middle_z - near, rise)
        for side, towards in ((left, -1.0), (right, 1.0)):
            end = np.array(((side, height, near), (side, height, far), (side, top, middle_z)))
            painter.face(end, colour, BUILDING, np.array((towards, 0.0, 0.0)))
        lit = painter.light.on(tiles, normal.tolist(), near)
        painter.canvas.polygon(painter.camera.project(slope), lit, BUILDING)
        return
    front = np.array(((left, height, near), (right, height, near), (middle_x, top, near)))
    for eaves, towards in ((left - over, -1.0), (right + over, 1.0)):
        slope = np.array(
            ((eaves, height - 0.1, near - over), (eaves, height - 0.1, far), (middle_x, top, far),
             (middle_x, top, near - over))
        )  # fmt: skip
        normal = np.array((towards * rise, middle_x - left, 0.0))
        lit = painter.light.on(tiles, (normal / np.linalg.norm(normal)).tolist(), near)
        painter.canvas.polygon(painter.camera.project(slope), lit, BUILDING)
    painter.face(front, colour, BUILDING, np.array((0.0, 0.0, -1.0)))
