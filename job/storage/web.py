"""Web: folders and files of web servers, as they link them."""

from dataclasses import dataclass
from typing import Any

from fsspec.asyn import sync
from fsspec.implementations.http import HTTPFileSystem

from job.errors import ChangedError, ImageError
from job.storage.fsspec_location import FsspecLocation
from job.storage.packing import unpacked

_CHUNK = 1 << 20


@dataclass(frozen=True)
class WebLocation(FsspecLocation):
    """A place on a web server, which may tell neither the size nor a tag of what is there."""

    def fetch(
        self, path: str, etag: str | None, size: int | None, limit: int | None = None
    ) -> bytes:
        data, headers = sync(self.fs.loop, _get, self.fs, path, limit)
        encoding = str(headers.get("Content-Encoding", ""))
        found = headers.get("ETag")
        if etag and found:
            if _bare(found) != _bare(etag):
                raise ChangedError(path)
        elif size is not None and not encoding and len(data) != size:
            raise ChangedError(path)
        return bytes(data) if limit is None else unpacked(data, encoding, limit)


async def _get(fs: HTTPFileSystem, url: str, limit: int | None) -> tuple[bytes, Any]:
    """The bytes as they come, packed or not, and the headers of the answer."""
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
