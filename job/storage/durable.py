"""Durable: local folders and files that stay when the power fails.

A file system may keep what it is told in memory for a while, and in another order: a name without
its bytes, a file without its folder. ``fsync`` of a file has its bytes on the disk when it returns,
and ``fsync`` of a folder the names in it.
"""

import errno
import os
import posixpath

# Answers of file systems that cannot do it, some of FUSE among them: they keep what they keep.
_CANNOT = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


def make_folder(folder: str) -> None:
    """Make a folder, and those around it, each to stay before anything is made in it.

    Raises:
        FileExistsError: a file is in the way.
    """
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = posixpath.dirname(folder)
    if missing:
        sync_folder(posixpath.dirname(folder))
    for path in reversed(missing):
        try:
            os.mkdir(path)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
        sync_folder(posixpath.dirname(path))


def keep(folder: str) -> None:
    """Have the names in a folder on the disk, and the folder's own.

    Whoever has made the folder may have been killed before its name was there to stay.
    """
    sync_folder(folder)
    sync_folder(posixpath.dirname(folder))


def sync_folder(folder: str) -> None:
    """Have the names in a folder on the disk, where it may be read."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        return
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def sync(descriptor: int) -> None:
    """Have an open file's bytes on the disk, where the file system can tell."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
