"""Verdict: what an OUTPUT holds, what is wrong with it, and what a run has left to do."""

from collections.abc import Sequence
from dataclasses import dataclass, field

# Problems by their kind, and what one of them is called.
KINDS = {
    "lost or damaged parts of the manifest": "lost or damaged part of the manifest",
    "images that are listed more than once": "image that is listed more than once",
    "URIs with more than one id": "URI with more than one id",
    "rows of images that are not listed": "row of an image that is not listed",
    "rows of another URI than the manifest has": "row of another URI than the manifest has",
    "images with more than one map": "image with more than one map",
    "images with two error rows of one run": "image with two error rows of one run",
    "images with a map and an error row of one run": "image with a map and an error row of one run",
    "images with an error row later than their map": "image with an error row later than its map",
    "committed images without a row": "committed image without a row",
    "rows that were never committed": "row that was never committed",
    "rows that contradict their commit record": "row that contradicts its commit record",
    "images that a commit record has twice": "image that a commit record has twice",
    "commit records without their files": "commit record without its files",
    "files with another name than their record": "file with another name than its record",
    "files without a commit record that counts": "file without a commit record that counts",
    "files that no run has written": "file that no run has written",
    "files that cannot be read": "file that cannot be read",
    "values that are missing": "value that is missing",
    "damaged labels.json files": "damaged labels.json",
    "maps that do not decode": "map that does not decode",
    "maps of another size than their row says": "map of another size than its row says",
    "maps that contradict their classes": "map that contradicts its classes",
    "maps with classes that labels.json does not have": (
        "map with a class that labels.json does not have"
    ),
}

_OF_THE_LIST = {
    "lost or damaged parts of the manifest",
    "images that are listed more than once",
    "URIs with more than one id",
}
_OF_LIST_OR_ROWS = {
    "rows of images that are not listed",
    "rows of another URI than the manifest has",
}
_OF_THE_NEXT_RUN = {
    "commit records without their files",
    "files without a commit record that counts",
}
_OF_OTHERS = {"files that no run has written"}
_TOLD_WITH_IT = {"damaged labels.json files"}
_OF_ROWS = KINDS.keys() - _OF_THE_LIST - _OF_THE_NEXT_RUN - _OF_OTHERS - _TOLD_WITH_IT
# What to do, and about which problems.
REMEDIES = {
    "the manifest says which image a row is of: if it is wrong, get manifest/ back from a copy, or"
    " use another OUTPUT": _OF_THE_LIST | _OF_LIST_OR_ROWS,
    "the next run removes files without a record, and does images again whose files are gone": (
        _OF_THE_NEXT_RUN
    ),
    "move files that no run has written out of the way: readers take them for the run's": (
        _OF_OTHERS
    ),
    "to have the images of a file in maps/ or errors/ done again, remove the record of the same"
    " name in commits/": _OF_ROWS,
}


@dataclass(frozen=True)
class Note:
    """What is told besides, and is no problem by itself.

    Attributes:
        one: what one of the kind is called.
        what_then: what becomes of it, or of {them}.
    """

    one: str
    what_then: str

    def means(self, count: int) -> str:
        """What becomes of as many as there are."""
        return self.what_then.format(them="it" if count == 1 else "them")


NOT_MOVED = "committed files that are not in their places yet"
NOT_COMMITTED = "files in attempts/ that are not committed"
NOT_COUNTED = "commit records that do not count"
HALF_WRITTEN = "half-written files"
HIDDEN = "hidden files"
NO_LABELS = "missing labels.json files"
NOTES = {
    NOT_MOVED: Note(
        "committed file that is not in its place yet", "the next run moves {them} there"
    ),
    NOT_COMMITTED: Note(
        "file in attempts/ that is not committed",
        "a run that goes on may still commit {them}, and the next one removes {them}",
    ),
    NOT_COUNTED: Note("commit record that does not count", "the next run removes {them}"),
    HALF_WRITTEN: Note("half-written file", "the next run removes {them}"),
    HIDDEN: Note("hidden file", "most readers leave {them} out"),
    NO_LABELS: Note(
        "missing labels.json",
        "the names of classes were not compared, and the next run writes {them} again",
    ),
}

# By kind, the first few offenders, and how many there are.
Found = dict[str, tuple[int, list[str]]]
_FIRST = 5


@dataclass
class Verdict:
    """What an OUTPUT holds, and what is wrong with it.

    Attributes:
        images: rows of the manifest.
        maps: images that have a map.
        open_errors: images that have none, and an error row instead.
        not_done: images that have neither.
        to_do: those of them that the next run does: no record that counts has them.
        problems: what must not be, by kind: the first few offenders of each, and how many.
        notes: likewise what is not wrong by itself: what a run has left, or is about to finish.
        unreadable: files that cannot be read.
    """

    images: int = 0
    maps: int = 0
    open_errors: int = 0
    not_done: int = 0
    to_do: int = 0
    problems: Found = field(default_factory=dict)
    notes: Found = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)

    @property
    def is_complete(self) -> bool:
        """Every image has exactly one map or an error row, in its place, and nothing is wrong."""
        return not (self.problems or self.not_done or NOT_MOVED in self.notes)

    def blame(self, kind: str, offenders: Sequence[str], count: int | None = None) -> None:
        """Add offenders to a kind of problem.

        Args:
            kind: of :data:`KINDS`.
            offenders: the first few of them, or all.
            count: how many there are, where that are not all.
        """
        _add(self.problems, kind, offenders, count)

    def note(self, kind: str, named: Sequence[str]) -> None:
        """Add to what is told besides; ``kind`` is of :data:`NOTES`."""
        _add(self.notes, kind, named)

    def add(self, other: "Verdict") -> None:
        """Add what was found elsewhere; not the figures."""
        for kind, (count, first) in other.problems.items():
            self.blame(kind, first, count)
        for kind, (count, first) in other.notes.items():
            _add(self.notes, kind, first, count)
        self.unreadable |= other.unreadable


def _add(found: Found, kind: str, named: Sequence[str], count: int | None = None) -> None:
    count = len(named) if count is None else count
    if count:
        before, first = found.get(kind, (0, []))
        found[kind] = (before + count, [*first, *named[: _FIRST - len(first)]])
