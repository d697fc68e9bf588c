"""Mutants: the protocol with one rule broken each; the simulation has to catch every one."""

import contextlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from job.outputs import attempts, claims, commits, committer, error_rows, recovery


@dataclass(frozen=True)
class Mutant:
    """A function with a few words changed.

    Attributes:
        name: which rule is broken.
        owner: the class or module of the function.
        function: its name.
        changes: what it says, once each, and what it says instead.
    """

    name: str
    owner: Any
    function: str
    changes: tuple[tuple[str, str], ...]

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the context, the function is the changed one.

        Raises:
            LookupError: the function does not say that any more.
        """
        kept = inspect.getattr_static(self.owner, self.function)
        function: Callable[..., Any] = getattr(self.owner, self.function)
        source = textwrap.dedent(inspect.getsource(function))
        for old, new in self.changes:
            if source.count(old) != 1:
                raise LookupError(f"{self.name}: {self.function} has no longer one {old!r}")
            source = source.replace(old, new)
        made: dict[str, Any] = {}
        code = compile(source, f"<mutant: {self.name}>", "exec")
        exec(code, vars(sys.modules[function.__module__]), made)
        changed = made[self.function]
        with patch.object(self.owner, self.function, changed):
            yield
        assert inspect.getattr_static(self.owner, self.function) is kept


_ASK_BEFORE_MOVING = "    self._claim.ask()\n    # They count"
_MOVE = "    move_to_places(self._output, [file for record in records for file in record.files])\n"
_REMOVE_WHEN_REPLACED = """\
    try:
        self._claim.ask()
    except Exception:
        for record in records:
            for file in record.files:
                (self._output / file.name).delete()
        raise
    # They count"""

# What only spares work is not among them: that a living run is not taken over from, that one which
# cannot renew its claim stops, and that it asks before it writes a record: the seal decides.
MUTANTS = (
    Mutant(
        "files are moved without asking",
        committer.Committer,
        "commit",
        ((_ASK_BEFORE_MOVING, "    # They count"),),
    ),
    Mutant(
        "files are moved before their record is written",
        committer.Committer,
        "commit",
        (("    at_once(lambda record:", f"{_MOVE}    at_once(lambda record:"),),
    ),
    Mutant(
        "an image is committed as often as it comes",
        committer.Committer,
        "_takes",
        (("if not len(attempt.ids):", "if True:"),),
    ),
    Mutant(
        "a committed file is removed when another run took over",
        committer.Committer,
        "commit",
        ((_ASK_BEFORE_MOVING, _REMOVE_WHEN_REPLACED),),
    ),
    Mutant(
        "records count without the seal",
        commits,
        "_counting",
        (("elif is_sealed and ", "elif False and "),),
    ),
    Mutant(
        "nothing is sealed",
        recovery,
        "recover",
        (("commits.seal(output, claim.name, found.records)", "pass"),),
    ),
    Mutant(
        "a record counts whatever its files are",
        commits,
        "_is_in_place",
        (("return size is not None and (", "return True or ("),),
    ),
    Mutant(
        "a run does not wait until others see its claim",
        claims.OutputClaim,
        "_take",
        (("min(settling, MISSED_BEATS * self._beat_seconds)", "0.0"),),
    ),
    Mutant(
        "nobody asks whether the claim holds",
        claims.OutputClaim,
        "ask",
        (("    check_held(self._output, self.name)", "    pass"),),
    ),
    Mutant(
        "an attempt is named after its size",
        attempts,
        "_write",
        (("secrets.token_hex(8)", "len(data)"),),
    ),
    Mutant(
        "what counts is not moved by the next run",
        recovery,
        "recover",
        (("move_to_places(output, found.unmoved)", "pass"),),
    ),
    Mutant(
        "the last word on an error is the first",
        error_rows,
        "open_errors",
        (("np.concatenate(mapped)", "np.empty(0, np.int64)"),),
    ),
)
