"""Maps: class ids to PNG and pixel counts, and pictures of them for a person to look at."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from job.cluster.metrics import StageTimer
from job.kernels.png import class_counts, encode_map
from job.redact import redact
from job.rows import ENCODED, reasons


class MapEncoder:
    """Turns predicted rows into rows of ``maps/``, with ``error`` still beside them.

    Args:
        names: class names by class id.
        palette: (classes, 3) uint8 colours, as the PNGs show them.
        model: name of the model, as every row carries it.
        run_id: name of the run, likewise.
        grayscale: PNGs without the palette.
        timer: where the seconds spent are reported.
    """

    def __init__(
        self,
        names: Sequence[str],
        palette: np.ndarray,
        *,
        model: str,
        run_id: str,
        grayscale: bool = False,
        timer: StageTimer | None = None,
    ) -> None:
        self._names = tuple(names)
        self._palette = palette
        self._model = model
        self._run_id = run_id
        self._grayscale = grayscale
        self._timer = timer or StageTimer()

    def __call__(self, batch: Any) -> pa.Table:
        """Encode a batch with ``id uri height width map confidence error``."""
        rows = len(batch["id"])
        errors = reasons(batch["error"])
        encoded: list[Any] = [None] * rows
        classes: list[Any] = [None] * rows
        with self._timer.stage("encode", rows):
            for row in range(rows):
                if errors[row] is None:
                    ids = np.asarray(batch["map"][row])
                    png = encode_map(ids, self._palette, grayscale=self._grayscale)
                    encoded[row] = {"bytes": png, "path": None}
                    classes[row] = self.classes(ids)
        self._timer.report()
        columns = {
            "id": batch["id"],
            "uri": [without_signature(str(uri)) for uri in batch["uri"]],
            "height": batch["height"],
            "width": batch["width"],
            "map": encoded,
            "classes": classes,
            "confidence": batch["confidence"],
            "model": [self._model] * rows,
            "run_id": [self._run_id] * rows,
            "error": errors,
        }
        return pa.table(columns, schema=ENCODED)

    def classes(self, ids: np.ndarray) -> list[dict[str, Any]]:
        """The classes of one map, largest first, each with its pixels."""
        counts = class_counts(ids, len(self._names))
        present = np.flatnonzero(counts)
        ordered = present[np.argsort(-counts[present], kind="stable")]
        return [
            {"label": int(label), "name": self._names[label], "pixels": int(counts[label])}
            for label in ordered
        ]


def without_signature(uri: str) -> str:
    """Only the URLs of web servers carry secrets; other URIs are kept as they are, to the byte."""
    return redact(uri) if uri.startswith(("http://", "https://")) else uri


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
