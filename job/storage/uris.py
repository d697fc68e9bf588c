"""URIs: what their text says, before anything is opened."""

from urllib.parse import parse_qsl, unquote

from fsspec.implementations.local import LocalFileSystem

from job.image_names import is_image_name

_ARCHIVES = {"dir", "libarchive", "reference", "tar", "zip"}
# Links of a chain that only keep copies of what the next one names.
_COPIES = {"blockcache", "cached", "filecache", "simplecache"}
# Filesystems of fsspec that cannot be written, by their schemes; archives cannot either.
_READ_ONLY = {"data", "github", "http", "https"}


def scheme_of(uri: str) -> str:
    """What a URI begins with, ``file`` for a path."""
    scheme, mark, _ = uri.partition("://")
    return scheme if mark and "/" not in scheme else "file"


def absolute(uri: str) -> str:
    """A path as it is called from any folder; a URI as it is."""
    return uri if "://" in uri else absolute_path(uri)


def absolute_path(uri: str) -> str:
    """The whole path of a local file, also of one with ``file://``."""
    return str(LocalFileSystem._strip_protocol(uri))


def without_copies(uri: str) -> str:
    """A URI without ``simplecache::`` and the like: it names the same, however that is read."""
    first, mark, rest = uri.partition("::")
    return without_copies(rest) if mark and first.removesuffix("://") in _COPIES else uri


def is_within_archive(uri: str) -> bool:
    """Whether a URI is of a place within an archive, whether or not it says which."""
    scheme, mark, _ = without_copies(uri).partition("://")
    return bool(mark) and scheme in _ARCHIVES


def archive_of(uri: str) -> str:
    """What a URI of a place within an archive ends with: ``::`` and where the archive is."""
    if not is_within_archive(uri):
        return ""
    _, mark, archive = without_copies(uri).partition("://")[2].partition("::")
    return mark + archive


def only_read(uri: str) -> str:
    """What a URI names, in words, where that can be read and never written; else nothing."""
    scheme, mark, _ = without_copies(uri).partition("://")
    if archive_of(uri) and scheme != "dir":
        return "an archive"
    return f"{scheme}://" if mark and scheme in _READ_ONLY else ""


def plain(uri: str) -> str:
    """A URL as a path, its escapes undone; any other URI as it is.

    Of the query nothing is left but an image's name, where the path has none: ``get?file=a.jpg`` is
    ``a.jpg``.
    """
    if not uri.startswith(("http://", "https://")):
        return uri
    url, _, query = uri.partition("#")[0].partition("?")
    path = unquote(url)
    if not query or is_image_name(path):
        return path
    names = (value for _, value in parse_qsl(query) if is_image_name(value))
    name = next(names, "").lstrip("/")
    return f"{path.rpartition('/')[0]}/{name}" if name else path
