"""Evaluation: how well the maps of an OUTPUT agree with annotations."""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from job import artifacts
from job.errors import StorageError
from job.kernels.png import decode_map
from job.listing import list_objects
from job.storage import Location, StorageOptions, locate

# What annotations mark pixels with that belong to no class.
IGNORED = 255


@dataclass(frozen=True)
class Scores:
    """Agreement over all annotated pixels of all images.

    Attributes:
        confusion: (classes, classes) int64 pixel counts; rows are the truth, columns the maps.
        names: class names by class id.
        images: images that had an annotation.
        without_truth: maps that had none.
    """

    confusion: np.ndarray
    names: tuple[str, ...]
    images: int
    without_truth: int

    @property
    def pixel_accuracy(self) -> float:
        """Share of annotated pixels that have the right class."""
        return float(np.trace(self.confusion) / max(1, self.confusion.sum()))

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each class; NaN for one in neither truth nor maps."""
        right = np.diag(self.confusion).astype(np.float64)
        union = self.confusion.sum(0) + self.confusion.sum(1) - right
        return np.divide(right, union, out=np.full(len(right), np.nan), where=union > 0)

    @property
    def mean_iou(self) -> float:
        """Mean of the classes' IoU, over the classes that occur."""
        return float(np.nanmean(self.iou)) if np.isfinite(self.iou).any() else float("nan")


def evaluate(
    output: Location,
    truth: str,
    options: StorageOptions | None = None,
    *,
    reduce_labels: bool = False,
) -> Scores:
    """Compare each map with the annotation whose file has its image's name, extension aside.

    Args:
        output: the OUTPUT with the maps.
        truth: folder or prefix of annotations: PNGs whose pixel values are class ids, 255 for
            pixels that do not count.
        options: what fsspec needs for the annotations' storage.
        reduce_labels: annotations count from 1, and 0 is what does not count (ADE20K).

    Raises:
        StorageError: no map, no annotation for any map, or one of another size than its map.
    """
    place = locate(truth, options)
    annotations = {_stem(found.path): found.path for found in list_objects(truth, options)}
    names: dict[int, str] = {}
    confusion = np.zeros((0, 0), np.int64)
    images = without_truth = 0
    for row in _maps(output):
        path = annotations.get(_stem(row["uri"]))
        if path is None:
            without_truth += 1
            continue
        images += 1
        names.update({found["label"]: found["name"] for found in row["classes"]})
        expected = decode_map(place.fs.cat_file(path)).astype(np.int64)
        if reduce_labels:
            expected = np.where(expected == 0, IGNORED, expected - 1)
        confusion = _added(confusion, _confusion(decode_map(row["map"]["bytes"]), expected, path))
    if not images:
        raise StorageError(
            f"{truth}: no annotation bears the name of an image in {output.uri}. Annotations are"
            " found by the image's file name, extension aside"
        )
    labels = tuple(names.get(label, f"class {label}") for label in range(len(confusion)))
    return Scores(confusion, labels, images, without_truth)


def _maps(output: Location) -> Iterator[dict[str, Any]]:
    for table in artifacts.tables(output, "maps", ["uri", "map", "classes"]):
        yield from table.to_pylist()


def _stem(path: str) -> str:
    return posixpath.splitext(posixpath.basename(path))[0]


def _confusion(found: np.ndarray, expected: np.ndarray, path: str) -> np.ndarray:
    if found.shape != expected.shape:
        raise StorageError(
            f"{path}: the annotation is {expected.shape[1]}×{expected.shape[0]}, the map"
            f" {found.shape[1]}×{found.shape[0]}"
        )
    counted = expected != IGNORED
    truth, maps = expected[counted], found[counted].astype(np.int64)
    classes = int(max(truth.max(initial=0), maps.max(initial=0))) + 1
    return np.bincount(truth * classes + maps, minlength=classes**2).reshape(classes, classes)


def _added(total: np.ndarray, more: np.ndarray) -> np.ndarray:
    classes = max(len(total), len(more))
    result = np.zeros((classes, classes), np.int64)
    for part in (total, more):
        result[: len(part), : len(part)] += part
    return result
