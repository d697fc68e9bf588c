"""Reached: images of linked folders, by the names that lead to them from INPUT."""

import os
from collections.abc import Sequence

from job.results.annotations import before_pattern

Folders = dict[str, str]


def reached_names(images: Sequence[str], roots: Sequence[str]) -> dict[str, str]:
    """The name of each image, by its URI: the URI, or a path below INPUT that links lead along.

    Args:
        images: URIs.
        roots: what was listed, also globs. Links are looked for in folders of this machine.
    """
    folders = dict.fromkeys(f"{before_pattern(root)}/" for root in roots)
    named = dict(zip(images, images, strict=True))
    outside = [uri for uri in images if uri.startswith("/") and not uri.startswith(tuple(folders))]
    if outside:
        linked: Folders = {}
        for folder in folders:
            linked = _linked(folder) | linked
        named |= {uri: _reached(uri, linked) for uri in outside}
    return named


def _linked(root: str) -> Folders:
    """Folders that links below a folder lead to: where they are, and by which name."""
    found: Folders = {}
    waiting = [root]
    while waiting:
        for path, folders, _ in os.walk(waiting.pop()):
            for name in sorted(folders):
                link = os.path.join(path, name)
                if os.path.islink(link) and (real := os.path.realpath(link)) not in found:
                    found[real] = link
                    waiting.append(link)
    return found


def _reached(uri: str, linked: Folders) -> str:
    """The name by which the innermost linked folder around a file leads to it."""
    folder = os.path.dirname(uri)
    while folder != "/":
        if folder in linked:
            return linked[folder] + uri.removeprefix(folder)
        folder = os.path.dirname(folder)
    return uri
