"""Storage that renames, as HDFS and SFTP do: no file has its name before it is whole."""

from pathlib import Path
from typing import Any

import pyarrow.fs
import pytest
from fsspec.implementations.arrow import ArrowFSWrapper

from job.storage.fsspec_location import FsspecLocation
from job.storage.location import PARTIAL


class Folders(ArrowFSWrapper):
    """Arrow's view of this machine's folders, by the name of the one of HDFS."""

    cachable = False
    protocol = "hdfs"
    cuts_at: int | None = None

    def __init__(self) -> None:
        super().__init__(pyarrow.fs.LocalFileSystem())

    def pipe_file(self, path: str, value: bytes, **_: Any) -> None:
        with self.open(path, "wb") as file:
            file.write(value[: self.cuts_at])
        if self.cuts_at is not None:
            raise KeyboardInterrupt


@pytest.fixture
def place(tmp_path: Path) -> FsspecLocation:
    return FsspecLocation(Folders(), str(tmp_path), "hdfs://host/", "")


def names(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_a_file_has_its_name_when_it_is_whole(place: FsspecLocation, tmp_path: Path) -> None:
    (place / "commits/one.parquet").write_bytes(b"whole")
    assert (tmp_path / "commits/one.parquet").read_bytes() == b"whole"
    place.fs.cuts_at = 3
    with pytest.raises(KeyboardInterrupt):
        (place / "commits/two.parquet").write_bytes(b"whole")
    assert names(tmp_path) == ["commits/one.parquet"]


def test_what_is_there_is_written_over(place: FsspecLocation, tmp_path: Path) -> None:
    for beat in (b"1", b"22"):
        (place / "claims/c.json").write_bytes(beat)
    assert (tmp_path / "claims/c.json").read_bytes() == b"22"
    assert not [name for name in names(tmp_path) if name.endswith(PARTIAL)]


def test_a_file_is_moved_by_its_name_not_copied(place: FsspecLocation, tmp_path: Path) -> None:
    (place / "attempts/a[1]*").write_bytes(b"rows")
    inode = (tmp_path / "attempts/a[1]*").stat().st_ino
    (place / "attempts/a[1]*").move_to(place / "maps/b")
    assert names(tmp_path) == ["maps/b"]
    assert (tmp_path / "maps/b").stat().st_ino == inode
    with pytest.raises(FileNotFoundError):
        (place / "attempts/a[1]*").move_to(place / "maps/b")


def test_it_says_that_killed_writers_leave_files(place: FsspecLocation) -> None:
    assert place.leaves_half_written
