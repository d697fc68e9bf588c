"""Pictures: maps for a person to look at."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from job.redact import redact


def overlay(
    image: np.ndarray, ids: np.ndarray, palette: np.ndarray, opacity: float = 0.55
) -> np.ndarray:
    """An image with its map's colours laid over it, (height, width, 3) uint8."""
    colours = palette[ids].astype(np.float32)
    return (image * (1 - opacity) + colours * opacity).round().astype(np.uint8)


def contact_sheet(
    pictures: Sequence[tuple[np.ndarray, np.ndarray]],
    palette: np.ndarray,
    names: Sequence[str],
    *,
    columns: int = 3,
    tile: int = 320,
) -> Image.Image:
    """Images above their overlays, in rows of tiles, with a legend of the classes shown.

    Args:
        pictures: pairs of an RGB image and its map.
        palette: (classes, 3) uint8 colours.
        names: class names by class id.
        columns: tiles side by side.
        tile: width of a tile in pixels; its height is three quarters of that.
    """
    height, gap, legend = tile * 3 // 4, 8, 30
    rows = -(-len(pictures) // columns)
    sheet = Image.new(
        "RGB",
        (columns * (tile + gap) + gap, rows * (2 * height + 2 * gap) + legend + gap),
        "white",
    )
    for index, (image, ids) in enumerate(pictures):
        left = gap + index % columns * (tile + gap)
        top = gap + index // columns * (2 * height + 2 * gap)
        for offset, picture in enumerate((image, overlay(image, ids, palette))):
            scaled = _fitted(Image.fromarray(picture), tile, height)
            sheet.paste(scaled, (left, top + offset * height))
    present = np.unique(np.concatenate([np.unique(ids) for _, ids in pictures]))
    _draw_legend(sheet, present, palette, names, gap, sheet.height - legend)
    return sheet


def _fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Scaled to cover the tile and cropped to its middle."""
    scale = max(width / picture.width, height / picture.height)
    size = (max(width, round(picture.width * scale)), max(height, round(picture.height * scale)))
    scaled = picture.resize(size, Image.Resampling.LANCZOS)
    left, top = (scaled.width - width) // 2, (scaled.height - height) // 2
    return scaled.crop((left, top, left + width, top + height))


def _draw_legend(
    sheet: Image.Image,
    labels: np.ndarray,
    palette: np.ndarray,
    names: Sequence[str],
    left: int,
    top: int,
) -> None:
    draw = ImageDraw.Draw(sheet)
    for label in labels:
        name = redact(names[label])
        width = 24 + int(draw.textlength(name)) + 14
        if left + width > sheet.width:
            return
        draw.rectangle((left, top + 4, left + 16, top + 20), fill=tuple(palette[label].tolist()))
        draw.text((left + 22, top + 6), name, fill="black")
        left += width
