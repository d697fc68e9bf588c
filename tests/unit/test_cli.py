"""The command line, before it has anything to do."""

import subprocess
import sys

import pytest

from job import __version__
from job.cli import main


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([]) == 0
    assert "usage: python -m job" in capsys.readouterr().out


def test_version_is_told_with_those_of_what_it_leans_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(["--version"])
    assert ended.value.code == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"ray-batch-segmentation {__version__} (ray 2.")
    assert "torch 2." in line


@pytest.mark.parametrize(
    "module",
    ["job.cli.main", "job.pipeline", "job.storage.location", "job.inputs.listing", "job.cli.text"],
)
def test_what_a_finished_output_needs_loads_nothing_heavy(module: str) -> None:
    heavy = {"ray", "torch", "transformers", "pandas", "numba", "matplotlib", "datasets"}
    program = f"import sys, {module}; print(*{heavy!r}.intersection(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert loaded.stdout.split() == [], loaded.stderr
    assert loaded.returncode == 0, loaded.stderr
