"""What surrounds the things: the light of the day, the sky, and the grain of every surface."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from job.demo.painting import (
    GRASS,
    MOUNTAIN,
    ROAD,
    SIDEWALK,
    SUPERSAMPLING,
    WATER,
    Camera,
    Canvas,
    Light,
    rgb,
)

GROUND = (WATER, GRASS, ROAD, SIDEWALK)
#          sky  mountain water grass road  walk  building tree vehicle person fence
GRAIN = (0.00, 0.07, 0.07, 0.17, 0.07, 0.06, 0.035, 0.17, 0.015, 0.04, 0.06)


def light(rng: np.random.Generator) -> Light:
    """Draw a time of day and a weather."""
    kind = rng.choice(("day", "golden", "dusk", "overcast", "mist"), p=(0.4, 0.2, 0.15, 0.17, 0.08))
    azimuth = rng.uniform(-np.pi, np.pi)
    clouds, sight, lamps = rng.uniform(0.15, 0.62), rng.uniform(170, 420), 0.0
    zenith, skyline = rgb(62, 122, 200), rgb(190, 214, 234)
    sun, ambient, elevation = rgb(0.62, 0.58, 0.5), rgb(0.5, 0.53, 0.6), rng.uniform(0.5, 1.1)
    if kind == "golden":
        zenith, skyline = rgb(92, 128, 186), rgb(250, 208, 158)
        sun, ambient, elevation = rgb(0.85, 0.62, 0.36), rgb(0.46, 0.43, 0.47), 0.28
        azimuth, lamps = rng.uniform(-1.9, 1.9), 0.1
    elif kind == "dusk":
        zenith, skyline = rgb(38, 48, 96), rgb(232, 140, 110)
        sun, ambient, elevation = rgb(0.34, 0.2, 0.17), rgb(0.47, 0.43, 0.53), 0.16
        azimuth, lamps, clouds = rng.uniform(-0.8, 0.8), 0.55, rng.uniform(0.2, 0.5)
    elif kind == "overcast":
        zenith, skyline = rgb(150, 160, 172), rgb(205, 209, 212)
        sun, ambient = rgb(0.1, 0.1, 0.1), rgb(0.68, 0.7, 0.73)
        clouds, lamps = rng.uniform(0.7, 0.95), 0.08
    elif kind == "mist":
        zenith, skyline = rgb(168, 184, 200), rgb(222, 222, 218)
        sun, ambient = rgb(0.22, 0.2, 0.17), rgb(0.58, 0.6, 0.63)
        clouds, sight = 0.4, rng.uniform(35, 80)
    exposure = rng.uniform(0.9, 1.12)
    hue = 1 + rng.uniform(-0.06, 0.06, 3)
    toward = np.array((np.sin(azimuth), np.tan(elevation), np.cos(azimuth)))
    return Light(
        zenith=zenith * hue * exposure,
        skyline=skyline * hue * exposure,
        sun=sun * exposure,
        ambient=ambient * exposure,
        direction=toward / np.linalg.norm(toward),
        clouds=clouds,
        sight=sight,
        lamps=lamps,
    )


def fractal(rng: np.random.Generator, size: int = 256, octaves: int = 6) -> NDArray[np.float32]:
    """Smooth noise with detail at every scale: size×size, mean 0, standard deviation 1."""
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        cells = 4 * 2**octave
        coarse = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
        fine = coarse.resize((size, size), Image.Resampling.BICUBIC)
        total += np.asarray(fine) * np.float32(0.55**octave)
    return (total - total.mean()) / total.std()


def mirrored(index: NDArray[np.float32], size: int) -> NDArray[np.intp]:
    """Whole indices into an axis of that size, going back and forth at its ends: no seam."""
    folded = np.abs(index.astype(np.int32)) % (2 * size - 2)
    return np.where(folded < size, folded, 2 * size - 2 - folded)


def backdrop(canvas: Canvas, camera: Camera, light: Light, noise: NDArray[np.float32]) -> None:
    """Paint the sky over the whole canvas: gradient, glow around the sun, clouds."""
    coarse = 4
    width, height = (-(-side // coarse) for side in canvas.size)
    rows = np.arange(height, dtype=np.float32)[:, None] * coarse
    columns = np.arange(width, dtype=np.float32)[None, :] * coarse
    up = np.clip((camera.horizon - rows) / camera.horizon, 0, 1)
    sky = light.skyline + (light.zenith - light.skyline) * (up**0.6)[..., None]
    sky = np.broadcast_to(sky, (height, width, 3)).astype(np.float32)
    x, y, z = light.direction
    if z > 0.2:
        column, row = camera.centre + camera.focal * x / z, camera.horizon - camera.focal * y / z
        distance = np.hypot(columns - column, rows - row) / camera.focal
        glow = np.exp(-distance * 5) * 0.7 + np.clip(1.6 - distance / 0.022, 0, 1)
        glow = np.clip(glow * (1.1 - light.clouds), 0, 1)[..., None]
        sky += (np.array((255, 244, 214), np.float32) - sky) * glow
    # Clouds lie on a plane overhead: they shrink and crowd towards the horizon.
    height_above = np.maximum(camera.horizon - rows, 1) / camera.focal + 0.12
    across = (columns - camera.centre) / camera.focal / height_above * 100 + 900
    away = np.broadcast_to(80 / height_above, across.shape)
    size = noise.shape[0] * 3  # finer than the picture where the clouds are nearest
    smooth = Image.fromarray(noise).resize((size, size), Image.Resampling.BILINEAR)
    noise = np.asarray(smooth)
    cover = noise[mirrored(away, size), mirrored(across, size)]
    lit = noise[mirrored(away + 15, size), mirrored(across - 12, size)]
    threshold = 1.4 - 2.8 * light.clouds
    density = np.clip((cover - threshold) * 0.9, 0, 0.95) * np.clip(up * 6, 0.25, 1)
    white = light.skyline * 0.35 + 160 * (light.ambient + light.sun * 0.6)
    shade = np.clip(0.9 - 0.16 * (lit - 0.3) + 0.1 * cover, 0.6, 1.12)[..., None]
    sky += (white.astype(np.float32) * shade - sky) * density[..., None]
    picture = Image.fromarray(np.clip(sky, 0, 255).astype(np.uint8))
    canvas.colours.paste(picture.resize(canvas.size, Image.Resampling.BILINEAR))


def grain(
    camera: Camera, noise: NDArray[np.float32], truth: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """A factor per pixel: the texture of the surface that the pixel shows."""
    height, width = truth.shape
    size = noise.shape[0]
    focal, horizon = camera.focal / SUPERSAMPLING, camera.horizon / SUPERSAMPLING
    rows = np.arange(height, dtype=np.float32)[:, None]
    columns = np.arange(width, dtype=np.float32)[None, :] - camera.centre / SUPERSAMPLING
    fine = noise[1:, 1:] - noise[:-1, :-1] * 0.8
    fine /= fine.std()
    slopes = noise[4:, 4:] - noise[:-4, :-4]
    size -= 4
    step = np.float32(420 / focal)  # texture cells per pixel: the same look at every size
    result = fine[mirrored(rows * step, size), mirrored(columns * step + 700, size)]
    # On the ground texture shrinks with distance, and blurs where it would be below a pixel.
    depth = camera.eye * focal / np.maximum(rows - horizon, 0.5)
    flat = noise[
        mirrored(np.broadcast_to(depth * 22, truth.shape), size),
        mirrored(columns * depth / focal * 22 + 700, size),
    ] * np.exp(-depth / 30)
    ripples = noise[
        mirrored(np.broadcast_to(depth * 9, truth.shape), size),
        mirrored(columns * depth / focal * 2 + 700, size),
    ]
    relief = slopes[mirrored(rows * step * 0.8, size), mirrored(columns * step * 0.5 + 700, size)]
    result = np.where(np.isin(truth, (GRASS, ROAD, SIDEWALK)), flat * 0.7 + result * 0.35, result)
    result = np.where(truth == WATER, ripples, result)
    result = np.where(truth == MOUNTAIN, relief * 1.4 + 0.5 * result, result)
    return 1 + result * np.array(GRAIN, np.float32)[truth]


def develop(
    canvas: Canvas,
    camera: Camera,
    light: Light,
    noise: NDArray[np.float32],
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The finished picture (shadows, grain, lens and sensor) and its class ids."""
    truth = canvas.truth()
    factor = grain(camera, noise, truth)
    soft = canvas.shadows.reduce(SUPERSAMPLING).filter(ImageFilter.BoxBlur(canvas.width / 400))
    depth_of_shadow = 0.55 * light.sun.mean() / (light.sun + light.ambient).mean() + 0.12
    dark = np.asarray(soft, np.float32) * np.float32(depth_of_shadow / 255)
    factor *= 1 - dark * np.isin(truth, GROUND[1:])
    picture = np.asarray(canvas.colours.reduce(SUPERSAMPLING), np.float32) * factor[..., None]
    sensor = rng.normal(0, rng.uniform(1.5, 4.5), (128, 160)).astype(np.float32)
    tiles = (-(-canvas.height // 128), -(-canvas.width // 160))
    picture += np.tile(sensor, tiles)[: canvas.height, : canvas.width, None]
    lens = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    if rng.random() < 0.5:
        lens = lens.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.2, 0.7))))
    return np.asarray(lens), truth
