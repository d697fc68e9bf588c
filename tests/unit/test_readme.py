"""The README tells the truth: its snippets run, its verbs are those of the code."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from job.cli import main

ROOT = Path(__file__).parents[2]


README = (ROOT / "README.md").read_text()


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_every_verb_has_help_and_an_example() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "job", "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    verbs = re.findall(r"^    ([a-z]+) ", result.stdout, re.MULTILINE)
    assert {"run", "plan", "evaluate", "compare", "demo"} <= set(verbs)
    for verb in verbs:
        assert f"python -m job {verb}" in README
        with pytest.raises(SystemExit) as ended:
            main.main([verb, "--help"])
        assert ended.value.code == 0


def test_every_module_is_told_of() -> None:
    told = README[README.index("## How it works") : README.index("## The verbs")]
    for module in (ROOT / "job").iterdir():
        if not module.name.startswith(("__", "py.typed")):
            assert module.stem in told, f"{module.name} is missing from How it works"


def test_make_help_names_what_the_readme_uses() -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    environment = {**os.environ, "MAKEFLAGS": ""}
    result = subprocess.run(
        ["make", "help"], capture_output=True, text=True, cwd=ROOT, env=environment, check=True
    )
    for target in re.findall(r"^make ([a-z]+)", "\n".join(snippets("bash")), re.MULTILINE):
        assert f"make {target}" in result.stdout
