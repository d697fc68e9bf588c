"""Durable: what a local write or move has put on the disk when it returns, and in which order."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from pyarrow.dataset import dataset

from job.storage import durable
from job.storage.location import PARTIAL
from job.storage.opening import locate

Calls = list[tuple[str, str]]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What is asked of the disk below ``tmp_path``: mkdir, fsync and replace, with their paths."""
    made: Calls = []
    mkdir, fsync, replace = os.mkdir, os.fsync, os.replace

    def called(path: str) -> str:
        path = os.path.relpath(path, tmp_path)
        folder, name = os.path.split(path)
        return os.path.join(folder, "half") if name.endswith(PARTIAL) else path

    def recorded_mkdir(path: str, *options: Any) -> None:
        made.append(("mkdir", called(path)))
        mkdir(path, *options)

    def recorded_fsync(descriptor: int) -> None:
        made.append(("fsync", called(os.readlink(f"/proc/self/fd/{descriptor}"))))
        fsync(descriptor)

    def recorded_replace(source: str, target: str) -> None:
        made.append(("replace", f"{called(source)} {called(target)}"))
        replace(source, target)

    monkeypatch.setattr(os, "mkdir", recorded_mkdir)
    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    return made


def test_a_write_is_on_the_disk_before_it_has_its_name_and_then_the_name_is(
    tmp_path: Path, calls: Calls
) -> None:
    (tmp_path / "out").mkdir()
    calls.clear()
    (locate(str(tmp_path)) / "out" / "file").write_bytes(b"x" * 20_000)
    assert calls == [
        ("fsync", "out/half"),
        ("replace", "out/half out/file"),
        ("fsync", "out"),
        # The folder's own name: who has made it may have been killed before it was there to stay.
        ("fsync", "."),
    ]


def test_all_is_written_when_the_file_is_sent_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    (locate(str(tmp_path)) / "file").write_bytes(b"x" * 100)
    assert sizes[0] == 100


def test_a_folder_is_in_the_one_around_it_before_anything_is_made_in_it(
    tmp_path: Path, calls: Calls
) -> None:
    (tmp_path / "old").mkdir()
    calls.clear()
    (locate(str(tmp_path)) / "old" / "a" / "b" / "file").write_bytes(b"x")
    assert calls == [
        ("fsync", "."),
        ("mkdir", "old/a"),
        ("fsync", "old"),
        ("mkdir", "old/a/b"),
        ("fsync", "old/a"),
        ("fsync", "old/a/b/half"),
        ("replace", "old/a/b/half old/a/b/file"),
        ("fsync", "old/a/b"),
        ("fsync", "old/a"),
    ]


def test_a_move_is_in_its_new_folder_before_it_is_gone_from_the_old_one(
    tmp_path: Path, calls: Calls
) -> None:
    place = locate(str(tmp_path))
    (place / "attempts" / "a").write_bytes(b"x")
    (place / "maps" / "b").write_bytes(b"x")
    calls.clear()
    (place / "attempts" / "a").move_to(place / "maps" / "a")
    assert calls == [
        ("fsync", "attempts/a"),
        ("replace", "attempts/a maps/a"),
        ("fsync", "maps"),
        ("fsync", "."),
        ("fsync", "attempts"),
    ]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_filesystem_that_cannot_sync_folders_is_fine(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refused)
    written_and_moved(tmp_path)


def test_a_folder_that_may_be_entered_and_not_read_is_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refused(path: str, *options: Any) -> int:
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return opened(path, *options)

    monkeypatch.setattr(os, "open", refused)
    written_and_moved(tmp_path)


def written_and_moved(folder: Path) -> None:
    file = locate(str(folder)) / "new" / "file"
    file.write_bytes(b"x")
    file.move_to(locate(str(folder)) / "newer" / "file")
    assert (folder / "newer" / "file").read_bytes() == b"x"


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_disk_that_fails_is_told_and_the_old_file_stays_or_the_new_one_is_whole(
    is_folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = locate(str(tmp_path)) / "file"
    file.write_bytes(b"old")
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}") == is_folder:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="Input/output error"):
        file.write_bytes(b"new")
    assert file.read_bytes() == (b"new" if is_folder else b"old")
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(FileExistsError, match="file"):
        durable.make_folder(f"{tmp_path}/file/deep/er")
    assert (tmp_path / "file").read_bytes() == b"x"


def test_a_folder_that_another_process_makes_at_the_same_time_is_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = os.mkdir

    def late(path: str) -> None:
        mkdir(path)
        mkdir(path)

    monkeypatch.setattr(os, "mkdir", late)
    durable.make_folder(f"{tmp_path}/a/b")
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(lambda folder: len(pd.read_parquet(folder)), id="pandas"),
        pytest.param(lambda folder: len(pq.read_table(folder)), id="pyarrow"),
        pytest.param(lambda folder: dataset(folder).count_rows(), id="pyarrow.dataset"),
    ],
)
def test_who_reads_the_folder_does_not_see_a_file_that_is_half_written(
    count: Callable[[str], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "maps"
    folder.mkdir()
    pd.DataFrame({"id": [1, 2]}).to_parquet(folder / "a.parquet")
    replace, counted = os.replace, []

    def looking(source: str, target: str) -> None:
        counted.append(count(str(folder)))
        replace(source, target)

    monkeypatch.setattr(os, "replace", looking)
    (locate(str(folder)) / "b.parquet").write_bytes(b"PAR1 and no more")
    assert counted == [2]


def test_what_a_killed_writer_leaves_is_known_by_the_end_of_its_name(tmp_path: Path) -> None:
    script = (
        "import os, sys; from job.storage.opening import locate;"
        "os.replace = lambda *paths: os._exit(9);"
        "locate(sys.argv[1]).write_bytes(b'half')"
    )
    file = tmp_path / "claim.json"
    done = subprocess.run([sys.executable, "-c", script, file], check=False)
    assert done.returncode == 9
    (left,) = locate(str(tmp_path)).names()
    assert left.startswith(".claim.json.")
    assert left.endswith(PARTIAL)
