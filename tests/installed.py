"""The project as a user installs it, into an environment of its own, without the network."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_WHAT_IS_BUILT = ("pyproject.toml", "README.md", "LICENSE")


@dataclass(frozen=True)
class Installed:
    """An environment in which the project is installed.

    Attributes:
        programs: the folder of its ``python`` and of the project's own program.
        source: the copy of the project that was installed.
    """

    programs: Path
    source: Path

    @property
    def python(self) -> str:
        return str(self.programs / "python")


def copy_source(to: Path) -> Path:
    """Copy what the project is built from; gives the folder."""
    shutil.copytree(ROOT / "job", to / "job", ignore=shutil.ignore_patterns("__pycache__"))
    for name in _WHAT_IS_BUILT:
        shutil.copy(ROOT / name, to)
    return to


def pip(*words: str, python: str = sys.executable) -> None:
    """Run pip, which may look nothing up: what a build needs is in this environment."""
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--check-build-dependencies"]
    command = [sys.executable, "-m", "pip", "--python", python, "-q", *words, *offline]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def install(folder: Path, *, editable: bool) -> Installed:
    """Install a copy of the project beside the packages of this environment.

    The packages are found by a path: what is installed editably here is not found there.
    """
    source = copy_source(folder / "source")
    venv.create(folder / "venv", symlinks=True)
    programs = folder / "venv" / "bin"
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    if editable:
        pip("install", "-e", str(source), python=str(programs / "python"))
    else:
        pip("wheel", str(source), "--wheel-dir", str(folder))
        (wheel,) = folder.glob("*.whl")
        pip("install", str(wheel), python=str(programs / "python"))
    return Installed(programs, source)
