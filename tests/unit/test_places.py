"""Places: what keeps INPUT and OUTPUT from being used is found before anything is started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from job.config import JobConfig
from job.errors import ConfigError, StorageError
from job.prepare import check_output, open_input_and_output, refuse_read_only
from job.storage.opening import locate


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"x")
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("zip://out::photos.zip", "an archive cannot be written"),
        ("simplecache::zip://out::photos.zip", "an archive cannot be written"),
        ("simplecache::https://127.0.0.1:1/out", "https:// cannot be written"),
        ("https://127.0.0.1:1/out", "https:// cannot be written"),
    ],
)
def test_an_output_that_is_only_read_is_refused(output: str, words: str, source: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        open_input_and_output(JobConfig(input=str(source), output=output))


def test_a_folder_of_another_filesystem_is_no_archive(tmp_path: Path) -> None:
    uri = f"dir://out::file://{tmp_path}"
    refuse_read_only(uri)
    check_output(locate(uri), uri)


@pytest.mark.skipif(
    os.geteuid() == 0, reason="needs a user who is not root: root may write everywhere"
)
def test_an_output_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="permission denied"):
            check_output(locate(str(tmp_path / "out")), "out")
    finally:
        tmp_path.chmod(0o700)


def test_places_are_looked_at_without_what_takes_seconds_to_load(
    source: Path, tmp_path: Path
) -> None:
    script = (
        "import sys; from job.config import JobConfig; from job.inputs import manifest;"
        "from job.prepare import open_input_and_output as opened;"
        f"opened(JobConfig(input={str(source)!r}, output={str(tmp_path / 'out')!r}));"
        "print({'ray', 'torch', 'transformers', 'pandas', 'numba'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.stdout.decode().strip() == "set()", done.stderr.decode()
