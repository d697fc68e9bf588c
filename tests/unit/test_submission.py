"""Submission: results never land where Ray deletes them; what was submitted may be read."""

import os
from pathlib import Path

import pytest

from job.cli import main
from job.cluster.submission import refuse_lost_results, refuse_missing_input
from job.errors import ConfigError


@pytest.fixture
def unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a submitted job."""
    place = tmp_path / "session_1" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    (place / "images").mkdir(parents=True)
    (place / "images" / "a.jpg").write_bytes(b"")
    monkeypatch.chdir(place)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    return place


@pytest.mark.parametrize("path", ["out", "./out", "../out", "file://out", "{cwd}/out"])
def test_results_in_a_folder_that_ray_deletes_are_refused(unpacked: Path, path: str) -> None:
    path = path.format(cwd=unpacked)
    with pytest.raises(ConfigError, match=r"OUTPUT .*/out on .*, which Ray deletes. Give a URI"):
        refuse_lost_results("OUTPUT", path)


@pytest.mark.parametrize("path", ["/data/out", "file:///data/out", "s3://bucket/out", "~/out"])
def test_results_elsewhere_are_not(unpacked: Path, path: str) -> None:
    refuse_lost_results("OUTPUT", path)


@pytest.mark.parametrize("path", ["images", "images/*.jpg", "s3://bucket/in", "/nowhere"])
def test_images_that_were_submitted_may_be_read(unpacked: Path, path: str) -> None:
    refuse_missing_input(path)


def test_images_that_were_not_submitted_are_missed_at_once(unpacked: Path) -> None:
    with pytest.raises(ConfigError, match="INPUT pictures: a submitted job finds only what was"):
        refuse_missing_input("pictures")


def test_a_job_that_was_not_submitted_may_name_any_place(tmp_path: Path) -> None:
    assert "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ
    refuse_lost_results("OUTPUT", "out")
    refuse_missing_input("pictures")


@pytest.mark.parametrize(
    "words",
    [
        ["run", "images", "out"],
        ["plan", "images", "out"],
        ["compare", "images"],
        ["compare", "images", "--output", "charts"],
        ["demo"],
    ],
)
def test_every_verb_that_writes_refuses_it(
    unpacked: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(words) == 2
    assert "which Ray deletes" in capsys.readouterr().err
