"""Web: what a URL names, and that object, whole, if it is still the one that was listed."""

from typing import Any
from urllib.parse import parse_qsl, unquote

from fsspec.asyn import sync
from fsspec.implementations.http import HTTPFileSystem

from job.errors import ChangedError, ImageError
from job.image_names import is_image_name

_CHUNK = 1 << 20


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


def fetch(
    fs: HTTPFileSystem, url: str, etag: str | None, size: int | None, limit: int | None
) -> tuple[bytes, str]:
    """The bytes as they came, and how they are packed (``Content-Encoding``).

    Args:
        fs: the filesystem of fsspec.
        url: of the object.
        etag: what a listing had; None takes whatever is there.
        size: likewise; folders of web servers tell neither.
        limit: bytes that may come.

    Raises:
        ChangedError: it is another object by now.
        ImageError: more bytes come.
    """
    data, headers = sync(fs.loop, _get, fs, url, limit)
    encoding = str(headers.get("Content-Encoding", ""))
    found = headers.get("ETag")
    if etag and found:
        if _bare(found) != _bare(etag):
            raise ChangedError(url)
    elif size is not None and not encoding and len(data) != size:
        raise ChangedError(url)
    return data, encoding


async def _get(fs: HTTPFileSystem, url: str, limit: int | None) -> tuple[bytes, Any]:
    session = await fs.set_session()
    options = dict(fs.kwargs)
    # What aiohttp unpacks by itself has no bound, and ends in an error where it is not packed.
    headers = {"Accept-Encoding": "identity, gzip;q=0.5", **(options.pop("headers", None) or {})}
    request = session.get(fs.encode_url(url), headers=headers, auto_decompress=False, **options)
    async with request as answer:
        fs._raise_not_found_for_status(answer, url)
        data = bytearray()
        async for chunk in answer.content.iter_chunked(_CHUNK):
            data += chunk
            if limit is not None and len(data) > limit:
                raise ImageError(
                    "too_large",
                    f"more than the limit of {limit:,} bytes; raise --byte-limit if such images"
                    " are expected",
                )
        return bytes(data), answer.headers


def _bare(etag: str) -> str:
    """A tag without what servers add when they pack on the way: W/ in front, -gzip behind."""
    return etag.removeprefix("W/").strip('"').removesuffix("-gzip")
