"""Console: what a person reads on standard error; a reader who leaves does not end the run."""

import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

from job.redact import redact

# What is told, line by line, what happens.
Say = Callable[[str], None]


def say(line: str) -> None:
    """Tell the person who watches, on standard error; secrets are hidden."""
    for part in line.splitlines():
        print(redact(part), file=sys.stderr, flush=True)


def outlast_readers() -> None:
    """Let this process go on when nobody reads what it says, or its log cannot be written.

    That is so after ``run … | head -1``, on a closed terminal, and with a log on a full disk. The
    receipt tells the rest.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # closed by whoever started it: the next file to be opened would be it
            _lead_nowhere(number)
    sys.stdout = _Outlasting(sys.stdout or os.fdopen(1, "w"))
    sys.stderr = _Outlasting(sys.stderr or os.fdopen(2, "w"))


class _Outlasting:
    """A stream that turns to nowhere when it cannot be written any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding
            return self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except OSError:
            _lead_nowhere(self._stream.fileno())
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            _lead_nowhere(self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _lead_nowhere(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
