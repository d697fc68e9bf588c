"""Ledger: which images are being worked on, so that one that kills a process can be told."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Ledger:
    """Which images are being worked on, by stage; part of the run's tracker."""

    _begun: dict[tuple[str, tuple[int, ...]], int] = field(default_factory=dict)
    _hung: set[tuple[str, int]] = field(default_factory=set)

    def begin(self, stage: str, ids: Sequence[int]) -> tuple[int, list[int]]:
        """Images are begun together: how often before, without an end, and which of them hung."""
        key = (stage, tuple(ids))
        before = self._begun.get(key, 0)
        self._begun[key] = before + 1
        return before, [number for number in ids if (stage, number) in self._hung]

    def end(self, stage: str, ids: Sequence[int]) -> None:
        """The same images are through, one way or another."""
        self._begun.pop((stage, tuple(ids)), None)

    def hang(self, stage: str, ids: Sequence[int]) -> None:
        """One of these images holds up its stage."""
        if len(ids) == 1:
            self._hung.add((stage, ids[0]))
