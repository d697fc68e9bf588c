"""Annotations: which file is the truth of which image, and what it says."""

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import UnidentifiedImageError

from job.archives import without_copies
from job.errors import ConfigError, StorageError
from job.kernels.png import decode_map
from job.web import plain

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
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
    to the image of the same name in a folder of the same name, of several to the one with which
    more folders agree. The name alone is enough where images or annotations are in no folders.

    Args:
        images: URIs.
        roots: what the images were listed under, as URIs; globs as well.
        annotations: paths of files at or below ``truth``.
        truth: path of the folder of annotations.

    Returns:
        Paths of annotations by the images' URIs.

    Raises:
        ConfigError: more than one annotation could be an image's, or the other way round; or
            names are the same, and all folders are others.
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
    found = _settled(_by_path(uris, folders, below) for uris, below in groups)
    if found or not groups:
        return found
    images_are_flat = all(_is_directly_in(uri, folders) for uris, _ in groups for uri in uris)
    truth_is_flat = all(len(parts) == 1 for _, below in groups for parts in below.values())
    least = 1 if images_are_flat or truth_is_flat else 2
    found = _settled(_by_name(uris, below, least) for uris, below in groups)
    if not found:
        uris, below = groups[0]
        raise ConfigError(
            f"{next(iter(below))} has the name of {uris[0]}, and is in another folder. Lay"
            " annotations out in the same folders as the images, or give --truth the folder that"
            " they are directly in"
        )
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


def _is_directly_in(uri: str, folders: Sequence[str]) -> bool:
    return any(rest and "/" not in rest for rest in (_below(uri, folder) for folder in folders))


def _by_name(images: Sequence[str], below: Mapping[str, Parts], least: int) -> dict[str, list[str]]:
    """By annotation the images whose name, and as many folders as are asked for, are the same."""
    claims: defaultdict[str, list[str]] = defaultdict(list)
    agreement: dict[str, int] = {}
    for uri in images:
        scores = {path: _agreement(_parts(uri), parts) for path, parts in below.items()}
        agreement[uri] = max(scores.values())
        if agreement[uri] < least:
            continue
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
    return plain(without_copies(uri).split("::", 1)[0] if "://" in uri else uri)


def _under_truth(path: str, truth: str) -> str:
    """The path of an annotation relative to the folder that was asked for, or the one around."""
    for folder in truth, _before_pattern(truth), posixpath.dirname(truth):
        if rest := _below(path, folder):
            return rest
    return path


def _before_pattern(root: str) -> str:
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
    if not data.startswith(_SIGNATURE):
        return "it is no PNG" if data else "it is empty"
    if isinstance(error, UnidentifiedImageError):  # of which Pillow says an address in memory
        return "it begins like a PNG, but its header is damaged"
    return str(error)
