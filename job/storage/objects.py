"""Objects: what lies in a storage, as a listing tells of it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class StoredObject:
    """One listed object.

    Attributes:
        path: on its filesystem.
        size: in bytes; None where the storage does not tell.
        etag: a tag that changes with it; None where the storage has none.
    """

    path: str
    size: int | None
    etag: str | None


@dataclass(frozen=True)
class Listing:
    """What a location names.

    Attributes:
        names: how: a folder or a prefix (``folder``), a pattern (``glob``), or one object by its
            own name (``object``).
        root: what the paths begin with before the part that the listing has found.
        objects: sorted by path; read from the storage as they are taken.
    """

    names: Literal["folder", "glob", "object"]
    root: str
    objects: Iterator[StoredObject]


# Files that a walk meets and does not list: links to nowhere, links to folders that it lists
# anyway, pipes and the like.
Unlisted = Literal["dangling", "again", "special"]
# Is told of each, with its path.
TellUnlisted = Callable[[Unlisted, str], None]


def described(entries: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[StoredObject]:
    """The files among what a filesystem of fsspec describes, by path."""
    for path, info in sorted(entries, key=lambda entry: entry[0]):
        if info.get("type") == "file":
            yield StoredObject(path, size_of(info), tag_of(info))


def size_of(info: dict[str, Any]) -> int | None:
    """Bytes of an object as its filesystem describes it; None where that is not told."""
    size = info.get("size")
    return None if size is None else int(size)


def tag_of(info: dict[str, Any]) -> str | None:
    """What changes with an object, as its filesystem describes it; None where nothing does."""
    for key in ("ETag", "etag", "md5Hash", "content_md5"):
        if info.get(key):
            return str(info[key]).strip('"')
    modified = info.get("mtime") or info.get("LastModified") or info.get("last_modified")
    return None if modified is None else f"{modified}-{info.get('size')}"
