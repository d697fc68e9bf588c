"""Annotations: which file is the truth of which image, and what it says."""

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from job.errors import ConfigError, StorageError
from job.kernels.png import decode_map
from job.refusals import REFUSALS, explain

# Of PNG's grey values of 2 and 4 bits decoders make the full range of 8.
_STRETCHED = {2: 85, 4: 17}
_GREYSCALE = 0

Parts = tuple[str, ...]


def match(
    images: Sequence[str], roots: Sequence[str], annotations: Iterable[str], truth: str
) -> dict[str, str]:
    """The annotation of each image that has one.

    An annotation belongs to the image with the same path, extension aside: the image's below
    INPUT, the annotation's below TRUTH. Where that is so for no image at all, an annotation belongs
    to the image of the same name, of several to the one whose folders agree with its own.

    Args:
        images: URIs.
        roots: what the images were listed under, as URIs; globs as well.
        annotations: paths of files at or below ``truth``.
        truth: path of the folder of annotations.

    Returns:
        Paths of annotations by the images' URIs.

    Raises:
        ConfigError: more than one annotation could be an image's, or the other way round.
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
    groups = [(wanted[name], _alone(paths)) for name, paths in named.items()]
    for find in (_by_path, _by_name):
        found: dict[str, str] = {}
        for uris, paths in groups:
            below = {path: _parts(_below(path, truth) or path) for path in paths}
            found.update(_settled(find(uris, folders, below)))
        if found:
            break
    return found


def _folders(images: Sequence[str], roots: Sequence[str]) -> list[str]:
    """The folders that listings began in."""
    asked = [folder for root in roots for folder in (root.rstrip("/"), _before_pattern(root))]
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
    images: Sequence[str], folders: Sequence[str], below: Mapping[str, Parts]
) -> dict[str, list[str]]:
    """By annotation the images that only have the same name."""
    claims: defaultdict[str, list[str]] = defaultdict(list)
    agreement: dict[str, int] = {}
    for uri in images:
        scores = {path: _agreement(_parts(uri), parts) for path, parts in below.items()}
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


def _settled(claims: Mapping[str, list[str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path, uris in claims.items():
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


def _agreement(image: Parts, annotation: Parts) -> int:
    """How many folders, from the file upward, have the same names."""
    same = 0
    for one, other in zip(reversed(image), reversed(annotation), strict=False):
        if one != other:
            break
        same += 1
    return same


def _parts(uri: str) -> Parts:
    """The folders and the name of a file, without its extension."""
    return tuple(posixpath.splitext(_file(uri))[0].strip("/").split("/"))


def _file(uri: str) -> str:
    """A URI without what does not name the file: the archive that it is in, a web query."""
    if "://" not in uri:
        return uri
    uri = uri.split("::", 1)[0]
    return uri.split("?", 1)[0] if uri.startswith("http") else uri


def _before_pattern(root: str) -> str:
    """The folder that a glob begins in; what is no glob stays as it is."""
    scheme, mark, path = _file(root).rpartition("://")
    kept = re.split(r"[^/]*[*?\[]", path, maxsplit=1)[0]
    return (scheme + mark + kept).rstrip("/")


def _below(uri: str, folder: str) -> str | None:
    """The path of a file relative to a folder that it is in."""
    file = _file(uri)
    return file[len(folder) + 1 :] if file.startswith(f"{folder}/") else None


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
    except (*REFUSALS, ValueError, SyntaxError) as error:
        reason = explain(error) if isinstance(error, REFUSALS) else str(error)
        raise StorageError(
            f"{path} is no annotation: {reason}. A PNG is expected whose pixel values are class ids"
        ) from error
    if data[25] == _GREYSCALE and data[24] in _STRETCHED:
        return ids // _STRETCHED[data[24]]
    return ids
