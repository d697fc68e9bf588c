"""Patterns: paths that are meant as globs, such as ``photos/**/*.jpg``."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from fsspec.utils import glob_translate

_MARKS = "*?["


def is_pattern(path: str) -> bool:
    """Whether a path could be meant as a glob."""
    return any(mark in path for mark in _MARKS)


@dataclass(frozen=True)
class Pattern:
    """A glob, divided.

    Attributes:
        root: the folder that all that it matches is in, with a slash.
        rest: the pattern within that folder.
    """

    root: str
    rest: str

    @classmethod
    def of(cls, path: str, is_folder: Callable[[str], bool]) -> "Pattern":
        """Divide a path: folders on the way are taken by their very names where such are there."""
        start = min(path.index(mark) for mark in _MARKS if mark in path)
        place = path.rfind("/", 0, start) + 1
        root, rest = path[:place], path[place:]
        while "/" in rest:
            name, _, further = rest.partition("/")
            if is_pattern(name) and not is_folder(root + name):
                break
            root, rest = f"{root}{name}/", further
        return cls(root, rest)

    @property
    def path(self) -> str:
        """The whole glob, in which the folder's own name matches nothing else."""
        return re.sub(r"[*?\[]", r"[\g<0>]", self.root) + self.rest

    def matcher(self) -> Callable[[str], bool]:
        """What tells whether a path is matched."""
        match = re.compile(glob_translate(self.path)).match
        return lambda path: match(path) is not None

    def parts_within(self) -> Callable[[str], frozenset[int]]:
        """What tells which parts of the pattern may match the names in a folder, by their numbers;
        none where it holds nothing that is matched. Its path ends with a slash."""
        parts = self.rest.split("/")
        matches = [re.compile(glob_translate(part)).match for part in parts]

        def begun(numbers: Iterable[int]) -> Iterator[int]:
            for number in numbers:
                while number < len(parts):
                    yield number
                    if parts[number] != "**":  # which stands for no folder, too
                        break
                    number += 1

        def within(folder: str) -> frozenset[int]:
            found = frozenset(begun([0]))
            for name in folder.removeprefix(self.root).split("/")[:-1]:
                found = frozenset(
                    begun(
                        number if parts[number] == "**" else number + 1
                        for number in found
                        if parts[number] == "**" or matches[number](name)
                    )
                )
            return found

        return within
