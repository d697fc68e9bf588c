"""The README tells the truth: its snippets run, its options and verbs are those of the code."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from PIL import Image

from job import pipeline
from job.cli import main
from job.config import JobConfig
from tests.end_to_end.hub import fake_hub
from tests.end_to_end.processes import finish
from tests.installed import install

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def option_rows() -> list[str]:
    """The table of options, as README.md has to have it."""
    rows = []
    for name, field in JobConfig.model_fields.items():
        if name in ("input", "output"):
            continue
        default = "" if field.default is None or field.default_factory else f"`{field.default}`"
        description = str(field.description).replace("|", "\\|")
        rows.append(f"| `--{name.replace('_', '-')}` | {default} | {description} |")
    return rows


def test_every_option_stands_in_the_readme_with_its_default() -> None:
    for row in option_rows():
        assert row in README.splitlines()


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


@pytest.mark.usefixtures("ray_session")
def test_duckdb_and_datasets_snippets_run(
    pictures: Path, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = JobConfig(
        input=str(pictures), output=str(tmp_path / "maps"), model=str(model_dir), progress="none"
    )
    pipeline.run(config)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    duckdb_snippet, datasets_snippet = (
        next(text for text in snippets("python") if f"import {name}" in text)
        for name in ("duckdb", "datasets")
    )
    found: dict[str, object] = {}
    exec(duckdb_snippet, found)
    assert isinstance(found["mostly_sky"], list)
    assert all(0.5 < share <= 1 for _, share in found["mostly_sky"])
    exec(datasets_snippet, found)
    assert len(found["maps"]) == 24
    assert found["first"].size == (found["maps"][0]["width"], found["maps"][0]["height"])


def test_library_snippet_is_a_script_that_runs_anywhere(
    pictures: Path, model_dir: Path, tmp_path: Path
) -> None:
    (snippet,) = (text for text in snippets("python") if "from job import" in text)
    here = tmp_path / "here"
    here.mkdir()
    (here / "script.py").write_text(snippet)
    photos = sorted(pictures.glob("*.jpg"))[:6]
    (here / "photos").mkdir()
    for photo in photos:
        shutil.copy(photo, here / "photos")
    python = install(tmp_path, editable=True).python
    with fake_hub(model_dir) as endpoint:
        env = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "cache")}
        finished = finish([python, "script.py"], env, cwd=here)
    assert finished.exit_code == 0, finished.stderr
    said = dict(line.split(" ", 1) for line in finished.stdout.splitlines())
    assert {Path(path).name: shape for path, shape in said.items()} == {
        # Ray Data reads images as they are stored, whatever EXIF says of their orientation.
        photo.name: str(Image.open(photo).size[::-1])
        for photo in photos
    }


def test_make_help_names_what_the_readme_uses() -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    environment = {**os.environ, "MAKEFLAGS": ""}
    result = subprocess.run(
        ["make", "help"], capture_output=True, text=True, cwd=ROOT, env=environment, check=True
    )
    for target in re.findall(r"^make ([a-z]+)", "\n".join(snippets("bash")), re.MULTILINE):
        assert f"make {target}" in result.stdout
