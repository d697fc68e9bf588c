"""Arrow: a storage as a filesystem of Arrow's, which takes every path literally."""

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.fs

if TYPE_CHECKING:
    from job.storage.fsspec_location import FsspecLocation


class LiteralHandler(pyarrow.fs.FSSpecHandler):
    """Passes on to fsspec what is asked of a filesystem of Arrow's.

    Arrow's own handler calls ``mv``, ``copy`` and ``rm``, which take a path for a pattern: with
    what is at ``a*b`` they move or remove what is at ``axb``. It also calls a file missing when
    the storage does not answer.

    Args:
        place: any place on the filesystem.
    """

    def __init__(self, place: "FsspecLocation") -> None:
        super().__init__(place.fs)
        self._place = place

    def open_input_file(self, path: str) -> pa.PythonFile:
        if self.fs.info(path)["type"] != "file":
            raise FileNotFoundError(path)
        return pa.PythonFile(self.fs.open(path, mode="rb"), mode="r")

    def open_input_stream(self, path: str) -> pa.PythonFile:
        return self.open_input_file(path)

    def move(self, src: str, dest: str) -> None:
        self._place.at(src).move_to(self._place.at(dest))

    def copy_file(self, src: str, dest: str) -> None:
        self.fs.cp_file(src, dest)

    def delete_file(self, path: str) -> None:
        self._place.at(path).delete()

    def delete_dir(self, path: str) -> None:
        """Refused: no run removes a folder, and ``rm`` would read a pattern into its path.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"{path}: folders are not removed")

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self.delete_dir(path)
