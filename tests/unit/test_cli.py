"""The command line, before it has anything to do."""

import subprocess
import sys
from pathlib import Path

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


# Whoever asks for help, or writes a script that submits jobs, waits for none of these.
HEAVY = {
    *("ray", "torch", "transformers", "datasets", "huggingface_hub", "s3fs", "fsspec", "aiohttp"),
    *("botocore", "PIL", "numpy", "pandas", "pyarrow", "numba", "matplotlib", "psutil", "yaml"),
    *("asyncio", "importlib.metadata"),
}


@pytest.mark.parametrize(
    ("words", "may_load"),
    [
        ([], set()),
        (["--help"], set()),
        (["run", "--help"], set()),
        (["compare", "--help"], set()),
        (["--version"], {"importlib.metadata"}),
        (["run", "in", "out", "--nope"], set()),
    ],
    ids=lambda value: " ".join(value) or "nothing",
)
def test_what_has_nothing_to_do_loads_nothing_heavy(words: list[str], may_load: set[str]) -> None:
    program = (
        f"import sys, job.__main__; sys.argv[1:] = {words!r}\n"
        "try: job.__main__.main()\n"
        "except SystemExit: pass\n"
        f"print(*{HEAVY!r}.intersection(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()[-1].split()) <= may_load


def test_a_config_is_made_without_loading_anything_heavy() -> None:
    program = (
        "import sys; from job import JobConfig; JobConfig(input='in', output='out');"
        f"print(*{HEAVY - {'importlib.metadata'}!r}.intersection(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_options_that_exclude_each_other_end_with_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--reference", "--decode", "reduced"]
    for verb in ("run", "plan"):
        assert main.main([verb, str(tmp_path / "in"), str(tmp_path / "out"), *options]) == 2
        said = capsys.readouterr().err
        assert said == (
            "error: --decode reduced: --reference wants every bit. Leave one of them out\n"
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "module",
    ["job.cli.main", "job.pipeline", "job.storage.opening", "job.inputs.listing", "job.cli.text"],
)
def test_what_a_finished_output_needs_loads_nothing_heavy(module: str) -> None:
    heavy = {"ray", "torch", "transformers", "pandas", "numba", "matplotlib", "datasets"}
    program = f"import sys, {module}; print(*{heavy!r}.intersection(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert loaded.stdout.split() == [], loaded.stderr
    assert loaded.returncode == 0, loaded.stderr
