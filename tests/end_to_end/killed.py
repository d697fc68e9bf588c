"""The job, killed in the midst of a commit: ``DIES_AT=5 python -m tests.end_to_end.killed run …``.

The process that commits dies when it is about to change what is committed for that many times: to
write a record, to put it in its place, to move a file to where readers look, or to remove one.
"""

import itertools
import os
import re
import signal
import sys
from typing import Any

_CHANGES = ("open", "os.rename", "os.remove")
_COMMITTED = re.compile(r"/(commits|maps|errors|manifest)/[^/]+$")


def die_at(number: int) -> None:
    """Have this process killed in place of a change.

    Args:
        number: which one, from 1.
    """
    changes = itertools.count(1)

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _CHANGES or (event == "open" and "w" not in str(arguments[1])):
            return
        paths = arguments[: 2 if event == "os.rename" else 1]
        if any(_COMMITTED.search(str(path)) for path in paths) and next(changes) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


if __name__ == "__main__":
    from job.__main__ import main

    die_at(int(os.environ["DIES_AT"]))
    sys.exit(main())
