"""WebP: the size of a picture, by its header alone."""

import struct


def size(webp: bytes) -> tuple[int, int] | None:
    """Width and height of the canvas (RFC 9649, 2.5 to 2.7); None of a header that is damaged.

    Pillow makes room for all pixels when it opens a WebP.
    """
    kind, head = webp[12:16], webp[:30].ljust(30, b"\0")
    if webp[8:12] != b"WEBP":
        return None
    if kind == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if kind == b"VP8L" and head[20] == 0x2F:
        (bits,) = struct.unpack_from("<I", head, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None
