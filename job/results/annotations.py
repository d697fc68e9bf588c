"""Annotations: which file is the truth of which image, and what it says."""

import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile

import numpy as np
from PIL import UnidentifiedImageError

from job.errors import ConfigError, StorageError
from job.images.map_png import decode_map
from job.kernels.png import SIGNATURE
from job.storage.uris import plain, without_copies

# Of PNG's grey values of 2 and 4 bits decoders make the full range of 8.
_STRETCHED = {2: 85, 4: 17}
_GREYSCALE = 0

Parts = tuple[str, ...]


def match(
    images: Sequence[str], roots: Sequence[str], annotations: Iterable[str], truth: str
) -> dict[str, str]:
    """The annotation of each image that has one.

    An annotation belongs to the image with the same path, extension aside: the image's below
    INPUT, the annotation's below TRUTH. Where that is so for no image at all, whole paths may
    differ in one place where one of them has a single folder (``s1/images/1.jpg`` and
    ``s1/masks/1.png``). Where that is so for none either, it is enough that an image's path ends in
    the annotation's below TRUTH. Of several the one belongs whose folders agree most, from the file
    upward.

    Args:
        images: URIs.
        roots: what the images were listed under, as URIs; globs as well.
        annotations: URIs or paths of files at or below ``truth``.
        truth: URI or path of the folder of annotations.

    Returns:
        Annotations, as they were given, by the images' URIs.

    Raises:
        ConfigError: more than one annotation could be an image's, or the other way round; or
            names are the same, and folders speak against each pair.
    """
    folders = _folders(images, roots)
    wanted: defaultdict[str, list[str]] = defaultdict(list)
    for uri in images:
        wanted[_parts(uri)[-1]].append(uri)
    named: defaultdict[str, list[str]] = defaultdict(list)
    for path in annotations:
        name = _parts(path)[-1]
        if name in wanted:
            named[name].append(path)
    groups = [
        (wanted[name], {path: _parts(_under_truth(path, truth)) for path in _alone(paths)})
        for name, paths in named.items()
    ]
    for claims in (
        (_by_path(uris, folders, below) for uris, below in groups),
        (_by_name(uris, below, _differ_in_one_place) for uris, below in groups),
        (_by_name(uris, below, _ends_in) for uris, below in groups),
    ):
        found = _settled(claims)
        if found or not groups:
            return found
    uris, below = groups[0]
    remedy = "Lay annotations out in the same folders as the images"
    if len({posixpath.dirname(_file(path)) for _, paths in groups for path in paths}) == 1:
        remedy += ", or give --truth the folder that they are directly in"
    raise ConfigError(
        f"{next(iter(below))} has the name of {uris[0]}, and is in another folder. {remedy}"
    )


def _folders(images: Sequence[str], roots: Sequence[str]) -> list[str]:
    """The folders that listings began in."""
    asked = [folder for root in roots for folder in (root.rstrip("/"), before_pattern(root))]
    around = [folder for folder in asked if any(_below(uri, folder) for uri in images)]
    if around or not images:
        return list(dict.fromkeys(around))
    # Of older receipts that say a relative path: where all images are.
    files = [posixpath.dirname(uri) for uri in images if uri.startswith("/")]
    return [posixpath.commonpath(files)] if len(files) == len(images) else []


def _by_path(
    images: Sequence[str], folders: Sequence[str], below: Mapping[str, Parts]
) -> dict[str, list[str]]:
    """By annotation the images that have the same path."""
    claims: defaultdict[str, list[str]] = defaultdict(list)
    for uri in images:
        own = {_parts(rest) for folder in folders if (rest := _below(uri, folder))}
        for parts in sorted(own, key=len, reverse=True):
            same = [path for path in below if below[path] == parts]
            for path in same:
                claims[path].append(uri)
            if same:
                break
    return claims


def _by_name(
    images: Sequence[str],
    below: Mapping[str, Parts],
    may_be: Callable[[Parts, Parts, Parts], bool],
) -> dict[str, list[str]]:
    """By annotation the images of its name.

    Args:
        images: their URIs.
        below: the annotations, and their paths below TRUTH.
        may_be: of an image's path, an annotation's, and that below TRUTH, whether it allows a pair.
    """
    claims: defaultdict[str, list[str]] = defaultdict(list)
    agreement: dict[str, int] = {}
    for uri in images:
        scores = {
            path: _agreement(_parts(uri), _parts(path))
            for path, parts in below.items()
            if may_be(_parts(uri), _parts(path), parts)
        }
        if not scores:
            continue
        agreement[uri] = max(scores.values())
        best = [path for path, score in scores.items() if score == agreement[uri]]
        if len(best) > 1:
            raise ConfigError(
                f"both {best[0]} and {best[1]} could be the annotation of {uri}. Lay annotations"
                " out in the same folders as the images"
            )
        claims[best[0]].append(uri)
    for path, uris in claims.items():
        most = max(agreement[uri] for uri in uris)
        claims[path] = [uri for uri in uris if agreement[uri] == most]
    return claims


def _settled(claims: Iterable[Mapping[str, list[str]]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path, uris in (each for group in claims for each in group.items()):
        if len(uris) > 1:
            raise ConfigError(
                f"{path} could be the annotation of both {uris[0]} and {uris[1]}. Lay annotations"
                " out in the same folders as the images, and give images of one folder names that"
                " differ in more than the extension"
            )
        if found.setdefault(uris[0], path) != path:
            raise ConfigError(
                f"both {found[uris[0]]} and {path} could be the annotation of {uris[0]}. Leave one"
                " of them in --truth"
            )
    return found


def _alone(paths: Sequence[str]) -> list[str]:
    """Without what lies beside a PNG of the same name: polygons, previews."""
    pngs = {posixpath.splitext(path)[0] for path in paths if path.lower().endswith(".png")}
    return [
        path
        for path in paths
        if path.lower().endswith(".png") or posixpath.splitext(path)[0] not in pngs
    ]


def _differ_in_one_place(image: Parts, annotation: Parts, _: Parts) -> bool:
    """Whether one of two paths has at most one folder where they are not the same.

    That folder says what is in it, images or annotations. Where both have more, one may say of
    which part, as in images/val and annotations/train.
    """
    shorter = min(len(image), len(annotation))
    end = _agreement(image, annotation)
    begin = _agreement(image[::-1], annotation[::-1])
    return shorter - begin - end <= 1


def _ends_in(image: Parts, _: Parts, below: Parts) -> bool:
    return image[-len(below) :] == below


def _agreement(one: Parts, other: Parts) -> int:
    """How many parts of two paths are the same, from the file upward."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _parts(uri: str) -> Parts:
    """The folders and the name of a file, without its extension."""
    path = posixpath.splitext(_file(uri))[0].rpartition("://")[2]
    return tuple(part for part in path.split("/") if part)


def _file(uri: str) -> str:
    """A URI without what does not name the file: the archive that it is in, a web query."""
    return plain(without_copies(uri).split("::", 1)[0] if "://" in uri else uri)


def _under_truth(path: str, truth: str) -> str:
    """The path of an annotation relative to the folder that was asked for, or the one around."""
    for folder in truth, before_pattern(truth), posixpath.dirname(truth):
        if rest := _below(path, folder):
            return rest
    return path


def before_pattern(root: str) -> str:
    """The folder that a glob begins in; what is no glob stays as it is."""
    scheme, mark, path = without_copies(root).split("::", 1)[0].rpartition("://")
    if not mark:
        path = root
    kept = re.split(r"[^/]*[*?\[]", path, maxsplit=1)[0]
    return (scheme + mark + kept).rstrip("/")


def _below(uri: str, folder: str) -> str | None:
    """The path of a file relative to a folder that it is in."""
    file, around = _file(uri), _file(folder)
    return file[len(around) + 1 :] if file.startswith(f"{around}/") else None


def read(data: bytes, path: str) -> np.ndarray:
    """The class ids of an annotation, (height, width).

    Args:
        data: the file.
        path: its name, for the errors.

    Raises:
        StorageError: it is no PNG of class ids.
    """
    try:
        ids = decode_map(data)
    except (OSError, ValueError, SyntaxError) as error:
        raise StorageError(
            f"{path} is no annotation: {_reason(error, data)}. A PNG is expected whose pixel values"
            " are class ids"
        ) from error
    if data[25] == _GREYSCALE and data[24] in _STRETCHED:
        return ids // _STRETCHED[data[24]]
    return ids


def _reason(error: Exception, data: bytes) -> str:
    if not data.startswith(SIGNATURE):
        return "it is no PNG" if data else "it is empty"
    if isinstance(error, UnidentifiedImageError):  # of which Pillow says an address in memory
        return "it begins like a PNG, but its header is damaged"
    return str(error)
