"""Evaluation: how well the maps of an OUTPUT agree with annotations."""

from dataclasses import dataclass

import numpy as np

from job.errors import ConfigError, StorageError
from job.inputs.listing import list_objects
from job.outputs import receipts
from job.outputs.dataset_card import read_labels
from job.outputs.encoder import without_signature
from job.results.annotations import match, read
from job.results.maps import class_ids, read_maps
from job.results.reached import reached_names
from job.storage import parquet
from job.storage.location import Location, StorageOptions
from job.storage.opening import locate
from job.storage.refusals import REFUSALS, explain
from job.storage.uris import absolute

# What annotations mark pixels with that belong to no class.
IGNORED = 255
_IGNORED_OF_16_BITS = 65_535


@dataclass(frozen=True)
class Scores:
    """Agreement over all annotated pixels of all images.

    Attributes:
        confusion: (classes, classes) int64 pixel counts; rows are the truth, columns the maps.
        names: class names by class id.
        images: images that had an annotation.
        without_truth: maps that had none.
        reduced: the annotations were taken to count from 1.
    """

    confusion: np.ndarray
    names: tuple[str, ...]
    images: int
    without_truth: int
    reduced: bool = False

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
    def accuracy_if_shifted(self) -> float:
        """Pixel accuracy if the annotations counted from the other of 0 and 1."""
        shifted = np.trace(self.confusion, offset=1 if self.reduced else -1)
        return float(shifted / max(1, self.confusion.sum()))

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
    """Compare each map with the annotation of its image, see :func:`job.results.annotations.match`.

    Args:
        output: the OUTPUT with the maps.
        truth: folder or prefix of annotations: PNGs whose pixel values are class ids, 255 for
            pixels that do not count (65535 where the model has so many classes that 255 is one).
        options: what fsspec needs for the annotations' storage.
        reduce_labels: annotations count from 1, and 0 is what does not count (ADE20K).

    Raises:
        OutputConflictError: the OUTPUT has a format that this version does not know.
        StorageError: no OUTPUT, no map, no annotation for any map, one that cannot be read, or that
            is of another size than its map.
        ConfigError: images and annotations cannot be paired without doubt, or an annotation has
            classes that the model has not.
    """
    receipts.check_format(output)
    uris = _images(output)
    if not uris:
        raise StorageError(f"OUTPUT {output.uri} has no manifest: no run has begun there")
    place = locate(truth, options)
    paths = {place.at(found.path).uri: found.path for found in list_objects(place, truth)}
    roots = _roots(output)
    reached = reached_names(uris, roots)
    annotations = match(list(dict.fromkeys(reached.values())), roots, paths, place.uri)
    labels = read_labels(output) or []
    names = {label["id"]: label["name"] for label in labels}
    ignored = IGNORED if len(labels) <= IGNORED else _IGNORED_OF_16_BITS
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    images = without_truth = 0
    for row in read_maps(output, ["id", "uri", "map", "classes"]):
        shown = annotations.get(reached[row["uri"]])
        if shown is None:
            without_truth += 1
            continue
        images += 1
        names.update({found["label"]: found["name"] for found in row["classes"]})
        data = _fetched(place, paths[shown], shown)
        expected = _expected(data, shown, ignored, reduce_labels)
        if labels:
            _check_classes(expected, shown, ignored, len(labels), reduce_labels)
        confusion = _added(confusion, _confusion(class_ids(row), expected, ignored, shown))
    if not images and not without_truth:
        raise StorageError(f"OUTPUT {output.uri} has no maps: there is nothing to compare")
    if not images:
        raise StorageError(
            f"{truth}: no annotation bears the name of an image in {output.uri}. Annotations are"
            " found by the image's path, extension aside"
        )
    by_id = tuple(names.get(label, f"class {label}") for label in range(len(confusion)))
    return Scores(confusion, by_id, images, without_truth, reduce_labels)


def _images(output: Location) -> list[str]:
    """URIs of all images, as maps have them: also of those without a map."""
    listed = [table["uri"].to_pylist() for table in parquet.tables(output / "manifest", ["uri"])]
    mapped = [table["uri"].to_pylist() for table in parquet.tables(output / "maps", ["uri"])]
    uris = [without_signature(uri) for part in listed for uri in part]
    return list(dict.fromkeys(uris + [uri for part in mapped for uri in part]))


def _roots(output: Location) -> list[str]:
    """What runs have listed, as they were told and without links."""
    inputs = [receipt.input for receipt in receipts.read_all(output)]
    return list(dict.fromkeys([*inputs, *(absolute(source) for source in inputs)]))


def _fetched(place: Location, path: str, shown: str) -> bytes:
    try:
        return place.fetch(path, None, None)
    except REFUSALS as error:
        raise StorageError(f"{shown} cannot be read: {explain(error)}") from error


def _expected(data: bytes, path: str, ignored: int, reduce_labels: bool) -> np.ndarray:
    expected = read(data, path).astype(np.int64)
    if reduce_labels:
        counted = (expected != 0) & (expected != ignored)
        return np.where(counted, expected - 1, ignored)
    return expected


def _check_classes(
    expected: np.ndarray, path: str, ignored: int, classes: int, reduce_labels: bool
) -> None:
    largest = int(expected[expected != ignored].max(initial=0))
    if largest < classes:
        return
    remedy = "Are these the annotations of other classes?"
    if largest == classes and not reduce_labels:
        remedy = "Annotations that count from 1, as ADE20K's do, need --reduce-labels"
    elif not reduce_labels:
        remedy += " Those that count from 1, as ADE20K's do, need --reduce-labels"
    raise ConfigError(
        f"{path} has class {largest + reduce_labels}, but the model's {classes:,} classes are"
        f" {int(reduce_labels)} to {classes - 1 + reduce_labels}, and {ignored} is what does not"
        f" count. {remedy}"
    )


def _confusion(found: np.ndarray, expected: np.ndarray, ignored: int, path: str) -> np.ndarray:
    if found.shape != expected.shape:
        raise StorageError(
            f"{path}: the annotation is {expected.shape[1]}×{expected.shape[0]}, the map"
            f" {found.shape[1]}×{found.shape[0]}"
        )
    counted = expected != ignored
    truth, maps = expected[counted], found[counted].astype(np.int64)
    classes = int(max(truth.max(initial=0), maps.max(initial=0))) + 1
    return np.bincount(truth * classes + maps, minlength=classes**2).reshape(classes, classes)


def _added(total: np.ndarray, more: np.ndarray) -> np.ndarray:
    classes = max(len(total), len(more))
    result = np.zeros((classes, classes), np.int64)
    for part in (total, more):
        result[: len(part), : len(part)] += part
    return result
