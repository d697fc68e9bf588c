"""Packing: what is stored packed (``Content-Encoding: gzip``) is unpacked, within a limit."""

import zlib

from job.errors import ImageError

# What a decompressor may be told to expect: gzip's header, zlib's, or none.
_GZIP, _ZLIB, _BARE = 31, 15, -15
_PLAIN = {"", "aws-chunked", "identity"}
# How the files of the usual formats begin: what is one already is not packed, whatever is said.
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")


def unpacked(data: bytes, encoding: str, limit: int) -> bytes:
    """The bytes of an object as they were before the storage, or who put them there, packed them.

    Args:
        data: as they came.
        encoding: of HTTP: ``gzip``, ``deflate``, or several with commas, the first one innermost.
        limit: bytes that may come of it.

    Raises:
        ImageError: it is packed in a way that is not known here, damaged, or too large.
    """
    for name in reversed([part.strip().lower() for part in encoding.split(",")]):
        if name in _PLAIN or data.startswith(_PICTURES):
            continue
        if name in ("gzip", "x-gzip"):
            data = inflated(data, name, limit) if is_gzip(data) else data
        elif name == "deflate":
            header = data[:1] and data[0] & 15 == 8
            data = inflated(data, name, limit, _ZLIB if header else _BARE)
        else:
            raise ImageError(
                "unsupported",
                f"the object is packed with {name} (its Content-Encoding). Store it unpacked, or"
                " packed with gzip",
            )
    return data


def is_gzip(data: bytes) -> bool:
    """Whether something begins as gzip has it."""
    return data.startswith(b"\x1f\x8b")


def inflated(
    data: bytes, name: str, limit: int, kind: int = _GZIP, *, option: str = "--byte-limit"
) -> bytes:
    """What was packed, if it is no more than ``limit`` bytes.

    Args:
        data: the packed bytes.
        name: of the packing, for the errors.
        limit: bytes that may come of it.
        kind: what header zlib is to expect.
        option: what the limit follows from.

    Raises:
        ImageError: it is damaged, cut short, or too large.
    """
    whole = bytearray()
    while data:
        stream = zlib.decompressobj(kind)
        try:
            whole += stream.decompress(data, limit + 1 - len(whole))
        except zlib.error as error:
            raise ImageError(
                "corrupt", f"the object is packed with {name}, and damaged: {error}"
            ) from error
        if len(whole) > limit:
            raise ImageError(
                "too_large",
                f"over the limit of {limit:,} bytes when unpacked ({name}); raise {option} if such"
                " images are expected",
            )
        if not stream.eof:
            raise ImageError("truncated", f"the object is packed with {name}, and its end is lost")
        # gzip files may be joined; what else comes after the end belongs to nobody.
        data = stream.unused_data if is_gzip(stream.unused_data) else b""
    return bytes(whole)
