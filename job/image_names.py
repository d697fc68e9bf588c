"""Image names: which files are images, as far as their names tell."""

import posixpath

EXTENSIONS = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff", ".bmp"),
        *(".dib", ".gif", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".avif"),
        *(".ico", ".tga", ".heic", ".heif", ".hif"),
    )
)


def is_image_name(path: str) -> bool:
    """Whether a file's name ends like an image's."""
    return posixpath.splitext(path)[1].lower() in EXTENSIONS
