"""libtiff: kept from writing to standard error what it finds wrong with our files.

Pillow leaves libtiff's handler of errors alone, which is one for the whole process. Ours stands in
for it while a TIFF is decoded, and hands on what other threads have to say.
"""

import ctypes
import ctypes.util
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import PIL

# The arguments are those of vprintf; a va_list is, or is passed as, a pointer.
_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_lock = threading.Lock()
_here = threading.local()
_decoding = 0
_others: list[int | None] = []


@contextmanager
def quiet() -> Iterator[None]:
    """Keep libtiff quiet about what this thread decodes."""
    global _decoding
    with _lock:
        _decoding += 1
        if _decoding == 1:
            _others[:] = [exchange(_address(_handler)) for exchange in _exchanges()]
    was_quiet, _here.is_quiet = getattr(_here, "is_quiet", False), True
    try:
        yield
    finally:
        _here.is_quiet = was_quiet
        with _lock:
            _decoding -= 1
            if _decoding == 0:
                _restore()


def _restore() -> None:
    for exchange, before in zip(_exchanges(), _others, strict=True):
        found = exchange(before)
        if found != _address(_handler):  # somebody has set another one in the meantime
            exchange(found)


def _address(handler: object) -> int | None:
    return ctypes.cast(handler, ctypes.c_void_p).value  # type: ignore[arg-type]


@_HANDLER
def _handler(module: int | None, format_: int | None, values: int | None) -> None:
    if getattr(_here, "is_quiet", False):
        return
    for other in _others:
        if other:
            _HANDLER(other)(module, format_, values)


@cache
def _exchanges() -> list[Callable[[int | None], int | None]]:
    """Of each libtiff that Pillow may use: the function that sets its handler, and gives the old.

    A Pillow from a wheel brings its own.
    """
    home = Path(PIL.__file__).parent
    bundles = (home.parent / "pillow.libs", home / ".dylibs")
    bundled = [str(path) for bundle in bundles for path in bundle.glob("libtiff*")]
    found: list[Callable[[int | None], int | None]] = []
    for library in bundled or [ctypes.util.find_library("tiff") or "libtiff"]:
        with suppress(OSError, AttributeError):
            exchange = ctypes.CDLL(library).TIFFSetErrorHandler
            exchange.argtypes, exchange.restype = [ctypes.c_void_p], ctypes.c_void_p
            found.append(exchange)
    return found
