"""Pillow: a copy of its Python modules whose settings are ours alone.

Pillow keeps its limits in module variables (``Image.MAX_IMAGE_PIXELS``,
``ImageFile.LOAD_TRUNCATED_IMAGES``, ``AvifImagePlugin.DEFAULT_MAX_THREADS``), and has no other way
to set them. They belong to the program that uses this library: it may have changed them, and other
threads of it may decode at this moment. So the modules are loaded a second time, under a name of
their own; the compiled code, which has no settings, is shared.
"""

import importlib
import importlib.util
import logging
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import PIL.Image

# Formats that Pillow decodes by itself, without starting another program (EPS would).
_SAFE_FORMATS = (
    *("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "PPM", "AVIF", "ICO", "TGA"),
)
_PLUGINS = (
    *("Jpeg", "Mpo", "Png", "WebP", "Tiff", "Bmp", "Gif", "Jpeg2K", "Ppm", "Avif", "Ico", "Tga"),
)
_COMPILED = ("_imaging", "_imagingcms", "_webp", "_avif")


def loaded_again(package: str, compiled: tuple[str, ...] = ()) -> str:
    """Load a package once more; gives the name that the copy has.

    Args:
        package: the package's own name.
        compiled: those of its modules that the copy shares with it.
    """
    original = importlib.util.find_spec(package)
    if original is None or original.origin is None:
        raise ModuleNotFoundError(f"no module named {package!r}", name=package)
    name = f"{__name__}.{package}"
    spec = importlib.util.spec_from_file_location(
        name, original.origin, submodule_search_locations=original.submodule_search_locations
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {package!r} again", name=package)
    for module in compiled:
        try:
            sys.modules[f"{name}.{module}"] = importlib.import_module(f"{package}.{module}")
        except ImportError:  # a build of Pillow without it
            continue
    sys.modules[name] = copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    return name


if TYPE_CHECKING:
    from PIL import IcoImagePlugin, Image, ImageOps, UnidentifiedImageError
    from PIL.BmpImagePlugin import DibImageFile
else:
    _name = loaded_again("PIL", _COMPILED)
    # Remarks on files: the ImageError says it already.
    logging.getLogger(_name).setLevel(logging.CRITICAL)
    # Whoever catches it has it from Pillow itself.
    UnidentifiedImageError = PIL.UnidentifiedImageError
    sys.modules[_name].UnidentifiedImageError = UnidentifiedImageError
    Image = importlib.import_module(f"{_name}.Image")
    ImageOps = importlib.import_module(f"{_name}.ImageOps")
    _plugins = [importlib.import_module(f"{_name}.{plugin}ImagePlugin") for plugin in _PLUGINS]
    Image.preinit()
    # Sizes are compared with the limit of each call, before there is room for pixels.
    Image.MAX_IMAGE_PIXELS = None
    # One task has one CPU; by default every AVIF would start a thread on each.
    importlib.import_module(f"{_name}.AvifImagePlugin").DEFAULT_MAX_THREADS = 1
    IcoImagePlugin = importlib.import_module(f"{_name}.IcoImagePlugin")
    DibImageFile = importlib.import_module(f"{_name}.BmpImagePlugin").DibImageFile
    # catch_warnings would change the filters of all threads.
    for _module in (Image, *_plugins):
        if hasattr(_module, "warnings"):
            _module.warnings = SimpleNamespace(warn=lambda *_, **__: None)

# The safe formats that this build of Pillow has.
FORMATS = tuple(name for name in _SAFE_FORMATS if name in Image.OPEN)


def shared(image: Image.Image) -> PIL.Image.Image:
    """The same pixels as an image of the Pillow that everyone uses."""
    return PIL.Image.Image()._new(image.im)
