"""Icon: the largest picture of an ICO, which is a PNG or a bitmap."""

import io
import struct

from job.images import png_chunks
from job.images.pillow import DibImageFile, IcoImagePlugin
from job.images.reasons import refuse_oversized

SIGNATURE = b"\0\0\1\0"


def png_within(icon: bytes, pixel_limit: int) -> bytes | None:
    """The largest picture of an icon, if it is a PNG.

    Pillow decodes an icon when it opens it, so the size of any other picture is looked at here.

    Raises:
        ImageError: it is another picture, and too large.
    """
    try:
        file = io.BytesIO(icon)
        offset = IcoImagePlugin.IcoFile(file).entry[0].offset
        if icon.startswith(png_chunks.SIGNATURE, offset):
            return icon[offset:]
        file.seek(offset)
        width, height = DibImageFile(file).size
    except (struct.error, IndexError, SyntaxError, OSError):  # of damage its decoder tells, too
        return None
    refuse_oversized((width, height // 2), pixel_limit)  # below it stands a mask of the same size
    return None
