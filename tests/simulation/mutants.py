"""Mutants: the protocol with one rule broken each; the simulation has to catch every one."""

import contextlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from job.outputs import attempts, claims, commits, committer, recovery


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


MUTANTS = (
    Mutant(
        "files are moved without asking",
        committer.Committer,
        "commit",
        (("    self._claim.ask()\n    move_to_places(", "    move_to_places("),),
    ),
    Mutant(
        "files are moved before their record is written",
        committer.Committer,
        "commit",
        (
            (
                "    at_once(lambda record: (self._output / record.name)",
                "    move_to_places(self._output, [file for record in records for file in record.files])\n    at_once(lambda record: (self._output / record.name)",
            ),
        ),
    ),
    Mutant(
        "an image is committed as often as it comes",
        committer.Committer,
        "_takes",
        (("if not len(attempt.ids):", "if True:"),),
    ),
    Mutant(
        "what others have left is removed as well at the end",
        committer.Committer,
        "clear",
        (('if name.startswith(f"{self._claim.name}-")', ""),),
    ),
    Mutant(
        "a committed file is removed when another run took over",
        committer.Committer,
        "commit",
        (
            (
                "    self._claim.ask()\n    move_to_places(",
                "    try:\n        self._claim.ask()\n    except Exception:\n        for record in records:\n            for file in record.files:\n                (self._output / file.name).delete()\n        raise\n    move_to_places(",
            ),
        ),
    ),
    Mutant(
        "records count without the seal",
        commits,
        "_counting",
        (("elif last is not None and ", "elif False and "),),
    ),
    Mutant(
        "nothing is sealed",
        recovery,
        "recover",
        (("commits.seal(output, claim.name, found.records)", "pass"),),
    ),
    Mutant(
        "what has been found is removed before it is sealed",
        recovery,
        "recover",
        (
            (
                "    claim.ask()\n    if ",
                "    claim.ask()\n    _remove(output, [*found.strays, *found.void])\n    if ",
            ),
        ),
    ),
    Mutant(
        "OUTPUT is put in order without asking after the seal",
        recovery,
        "recover",
        (("found.records)\n        claim.ask()", "found.records)"),),
    ),
    Mutant(
        "data are listed behind the records",
        commits.Commits,
        "read",
        (
            ("sizes = {", "records, void = _counting(output, {})\n    sizes = {"),
            ("\n    records, void = _counting(output, sizes)", ""),
        ),
    ),
    Mutant(
        "a record counts whatever its files are",
        commits,
        "_is_in_place",
        (
            (
                "return size is not None and (size == file.size or (file.size is None and size > 0))",
                "return True",
            ),
        ),
    ),
    Mutant(
        "a run takes over from one that is alive",
        claims.OutputClaim,
        "_refuse_if_alive",
        (("if self._is_alive(claim):", "if False:"),),
    ),
    Mutant(
        "a run does not wait until others see its claim",
        claims.OutputClaim,
        "_take",
        (("settling * self._beat_seconds", "0.0"),),
    ),
    Mutant(
        "a claim has the epoch of the one before",
        claims.OutputClaim,
        "_take",
        (('names.epoch_of(seen or "") + 1', 'max(1, names.epoch_of(seen or ""))'),),
    ),
    Mutant(
        "nobody asks whether the claim holds",
        claims.OutputClaim,
        "ask",
        (("    check_held(self._output, self.name)", "    pass"),),
    ),
    Mutant(
        "an attempt is named after its first image",
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
        "a run without beats goes on",
        claims.OutputClaim,
        "ask",
        (("if self._clock.now() - self._acknowledged > ", "if False and "),),
    ),
)
