"""URIs: what they name, before anything is opened."""

import os
import posixpath
import re
from urllib.parse import parse_qsl, unquote

from fsspec.implementations.local import LocalFileSystem

from job.image_names import is_image_name
from job.storage.patterns import Pattern, is_pattern

_ARCHIVES = {"dir", "libarchive", "reference", "tar", "zip"}
# Links of a chain that only keep copies of what the next one names.
_COPIES = {"blockcache", "cached", "filecache", "simplecache"}
# Filesystems of fsspec that cannot be written, by their schemes; archives cannot either.
_READ_ONLY = {"data", "github", "http", "https"}
# Schemes that are other names of one.
_SAME_SCHEMES = {
    "abfss": "abfs",
    "az": "abfs",
    "gcs": "gs",
    "local": "file",
    "s3a": "s3",
    "ssh": "sftp",
}
# Schemes whose URIs name a host, in letters of either case; and the ports that go without saying.
_HOSTS = {"ftp", "hdfs", "http", "https", "sftp", "smb", "webhdfs"}
_PORTS = {"http": ":80", "https": ":443"}


def scheme_of(uri: str) -> str:
    """What a URI begins with, ``file`` for a path."""
    scheme, mark, _ = uri.partition("://")
    return scheme if mark and "/" not in scheme else "file"


def absolute(uri: str) -> str:
    """What an INPUT is called from any folder, whatever links lead to it; also a glob.

    The URIs of its images begin so, see :class:`job.storage.canonical.Canonical`. A file that is a
    link keeps its own name.
    """
    if not uri:
        return uri
    if scheme_of(uri) not in ("file", "local"):
        *chain, last = uri.split("::")
        last = absolute(last) if chain and is_within_archive(uri) else with_plain_host(last)
        return "::".join([*chain, last])
    path = absolute_path(uri).rstrip("/") or "/"
    if os.path.isdir(path):
        return without_links(path)
    if is_pattern(path) and not os.path.lexists(path):
        pattern = Pattern.of(path, os.path.isdir)
        return posixpath.join(without_links(pattern.root), pattern.rest)
    folder, name = posixpath.split(path)
    return posixpath.join(without_links(folder), name)


def without_links(path: str) -> str:
    """A whole path as the system takes it: ``..`` behind a link leads to where that is."""
    return "/" + os.path.realpath(path).lstrip("/")


def with_plain_host(uri: str) -> str:
    """A URI with its scheme and its host as most people write them: ``s3a://``, ``http://HOST:80``.

    What is behind the host stays, to the byte.
    """
    scheme, mark, rest = uri.partition("://")
    if not mark:
        return uri
    scheme = _SAME_SCHEMES.get(scheme, scheme)
    if scheme == "s3":
        return f"s3://{rest.lstrip('/')}"
    if scheme in _HOSTS:
        authority = re.split("[/?#]", rest, maxsplit=1)[0]
        user, at, host = authority.rpartition("@")
        host = host.lower().removesuffix(_PORTS.get(scheme, "//"))
        rest = f"{user}{at}{host}{rest.removeprefix(authority)}"
    return f"{scheme}{mark}{rest}"


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
