"""The temporary directory: where Ray cannot start in it, the reason is told and the way out."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from job.cluster import temporary_directory
from job.errors import JobError


def test_a_directory_that_is_there_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    temporary_directory.check()


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_a_path_too_long_for_sockets_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(name, f"/tmp/{'x' * 60}")
    with pytest.raises(JobError, match=rf"\({name}\) is \d+ characters too long.*Set RAY_TMPDIR"):
        temporary_directory.check()
    assert not Path(f"/tmp/{'x' * 60}").exists()


def test_a_path_that_is_a_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/dev/null")
    with pytest.raises(JobError, match=r"/dev/null/ray .* cannot be written.*Set RAY_TMPDIR"):
        temporary_directory.check()


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A file system with next to no space."""
    place = Path("/tmp") / f"full-{os.getpid()}"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        place.rmdir()
        pytest.skip("needs root, to mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)
    place.rmdir()


def test_a_full_file_system_is_refused(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(full))
    with pytest.raises(JobError, match="no space is left on it"):
        temporary_directory.check()


def test_what_ray_says_of_sockets_and_memory_is_explained() -> None:
    long = OSError("validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes")
    assert "Set RAY_TMPDIR" in str(temporary_directory.explain(long))
    small = ValueError("The configured object store size exceeds /dev/shm")
    assert "Give /dev/shm more room" in str(temporary_directory.explain(small))
    assert temporary_directory.explain(RuntimeError("something else")) is None
