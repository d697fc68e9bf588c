"""README.md and docs/ tell the truth: snippets run, links lead somewhere, verbs and files exist."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from job.cli import main

ROOT = Path(__file__).parents[2]
# What a person reads on the way from the first page.
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Those and what contributors read.
ALL_PAGES = [*PAGES, *(page for page in sorted(ROOT.glob("*.md")) if page.name != "README.md")]


def snippets(language: str, pages: list[Path] = PAGES) -> list[str]:
    """The code blocks of a language, of all pages together."""
    text = "\n".join(page.read_text() for page in pages)
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The names that links give to a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{target.name} has no heading #{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_page_is_linked_from_the_readme(page: Path) -> None:
    if page.name != "README.md":
        assert f"](docs/{page.name})" in (ROOT / "README.md").read_text()


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
    examples = "\n".join(snippets("bash", [ROOT / "README.md"]))
    for verb in verbs:
        assert f"python -m job {verb}" in examples
        with pytest.raises(SystemExit) as ended:
            main.main([verb, "--help"])
        assert ended.value.code == 0


def test_the_architecture_names_what_is_in_job_and_nothing_else() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    told = set(re.findall(r"^\| `([a-z_]+(?:/|\.py))` \|", text, re.MULTILINE))
    there = {
        f"{entry.name}/" if entry.is_dir() else entry.name
        for entry in (ROOT / "job").iterdir()
        if not entry.name.startswith("__") and entry.name != "py.typed"
    }
    assert told == there


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return  # names what is gone as well
    named = re.findall(r"`((?:job|tests|deploy|docs|benchmarks)/[\w./-]+)`", page.read_text())
    for name in named:
        assert (ROOT / name).exists(), f"{name} is not there"


def test_make_has_the_targets_that_are_named() -> None:
    if shutil.which("make") is None:
        pytest.skip("needs make: apt-get install make")
    environment = {**os.environ, "MAKEFLAGS": ""}
    result = subprocess.run(
        ["make", "help"], capture_output=True, text=True, cwd=ROOT, env=environment, check=True
    )
    targets = re.findall(r"^  make ([a-z-]+)", result.stdout, re.MULTILINE)
    named = re.findall(r"^make ([a-z-]+)", "\n".join(snippets("bash", ALL_PAGES)), re.MULTILINE)
    assert {"demo", "test"} <= set(named)
    assert set(named) <= set(targets)


def test_the_layers_are_those_that_the_linter_holds() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = contracts["contracts"][0]["layers"]
    shown = (ROOT / "docs" / "architecture.md").read_text()
    assert "\n".join(layer.replace(" : ", ", ") for layer in layers) in shown
