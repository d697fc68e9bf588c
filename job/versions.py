"""Versions: of this program, and of what decides what it makes."""

import platform
from importlib import metadata

from job import __version__

PROGRAM = "ray-batch-segmentation"
_PACKAGES = ("ray", "torch", "transformers", "pyarrow", "pillow", "numpy")


def versions() -> dict[str, str]:
    """By name: this program, which may run without being installed, and packages."""
    return {PROGRAM: __version__, **{name: metadata.version(name) for name in _PACKAGES}}


def in_a_line() -> str:
    """All of them, for ``--version``."""
    (program, version), *others = versions().items()
    others.append(("Python", platform.python_version()))
    return f"{program} {version} ({', '.join(f'{name} {number}' for name, number in others)})"
