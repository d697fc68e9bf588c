"""Left out: what lies under INPUT and is no image of the user's, counted and told."""

from collections import Counter
from typing import Literal

Reason = Literal["no_image", "system", "dangling", "again", "renamed", "special"]

_WORDS: dict[Reason, tuple[str, str]] = {
    "no_image": ("object without an image's name", "objects without an image's name"),
    "system": ("file of an operating system", "files of operating systems"),
    "dangling": ("link that leads nowhere", "links that lead nowhere"),
    "again": (
        "link to a folder that is listed anyway",
        "links to folders that are listed anyway",
    ),
    "renamed": (
        "image that is listed again under another name",
        "images that are listed again under another name",
    ),
    "special": ("pipe, socket or device", "pipes, sockets or devices"),
}
# What macOS, Windows and network storage put beside people's files: names, and those of folders.
_SYSTEM_NAMES = {".ds_store", "desktop.ini", "ehthumbs.db", "thumbs.db"}
_SYSTEM_FOLDERS = {"$recycle.bin", "@eadir", "__macosx", "system volume information"}


class LeftOut:
    """Counts what a listing leaves out, by reason, and keeps a name of each."""

    def __init__(self) -> None:
        self._counts: Counter[Reason] = Counter()
        self._examples: dict[Reason, str] = {}

    def add(self, reason: Reason, path: str) -> None:
        self._counts[reason] += 1
        self._examples.setdefault(reason, path.rstrip("/").rpartition("/")[2])

    @property
    def total(self) -> int:
        return self._counts.total()

    def __str__(self) -> str:
        """``3 files of operating systems (such as ._a.jpg), 1 link that leads nowhere (b.jpg)``."""
        parts = []
        for reason, (one, many) in _WORDS.items():
            count = self._counts[reason]
            if count:
                such = "such as " if count > 1 else ""
                words = many if count > 1 else one
                parts.append(f"{count:,} {words} ({such}{self._examples[reason]})")
        return ", ".join(parts)


def why_left_out(path: str) -> Reason | None:
    """Why a file is left out whatever its extension; None for one that may be an image.

    Args:
        path: from INPUT on: INPUT itself may well lie in a folder of such a name.
    """
    *folders, name = [part for part in path.split("/") if part not in ("", ".", "..")] or [""]
    if name.lower() in _SYSTEM_NAMES or name.startswith("._"):
        return "system"
    if any(folder.lower() in _SYSTEM_FOLDERS for folder in folders):
        return "system"
    return None
