"""Versions: of this program, and of what decides what it makes."""

__version__ = "0.2.0"

PROGRAM = "ray-batch-segmentation"
_PACKAGES = ("ray", "torch", "transformers", "pyarrow", "pillow", "numpy")


def versions() -> dict[str, str]:
    """By name: this program, which may run without being installed, and packages."""
    from importlib import metadata  # not for whoever only imports the package

    return {PROGRAM: __version__, **{name: metadata.version(name) for name in _PACKAGES}}


def in_a_line() -> str:
    """All of them, for ``--version``."""
    import platform

    (program, version), *others = versions().items()
    others.append(("Python", platform.python_version()))
    return f"{program} {version} ({', '.join(f'{name} {number}' for name, number in others)})"
