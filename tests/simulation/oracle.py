"""Oracle: what must be true of OUTPUT, at each moment and at the end."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from job.outputs.dataset_card import SCHEMA
from tests.simulation import images, tables

# Folders in which files stay as they are once they are there.
_KEPT = ("maps", "errors", "manifest")


class Oracle:
    """Watches an OUTPUT.

    Attributes:
        violations: what must not be, in words.
    """

    def __init__(self) -> None:
        self.violations: list[str] = []
        self._files: dict[str, bytes] = {}
        self._mapped: dict[int, str] = {}

    def see(self, operation: str, path: str, data: bytes | None) -> None:
        """Look at an effect, as it happens: see :data:`tests.simulation.store.Watcher`."""
        folder, _, name = path.partition("/")
        if folder not in _KEPT or name == SCHEMA:
            return
        before = self._files.get(path)
        if before is not None and data != before:
            how = "removed" if data is None else "changed"
            self.violations.append(f"{path} was {how} ({operation})")
        if data is None or before is not None:
            return
        self._files[path] = data
        if folder == "maps":
            for number in tables.from_bytes(data)["id"].to_pylist():
                if self._mapped.setdefault(number, path) != path:
                    first = self._mapped[number]
                    self.violations.append(f"image {number} is in {path} and in {first}")

    def check_end(
        self, files: Mapping[str, bytes], listed: frozenset[str], may_fail_again: bool
    ) -> None:
        """Look at what is there when all is over.

        Args:
            files: by their paths.
            listed: URIs that runs have listed.
            may_fail_again: whether a run was asked to do again what had failed.
        """
        manifest = _rows(files, "manifest")
        uris = {row["id"]: row["uri"] for row in manifest}
        self._blame_twice("id", Counter(row["id"] for row in manifest))
        self._blame_twice("URI", Counter(row["uri"] for row in manifest))
        missing = listed - set(uris.values())
        if missing:
            self.violations.append(f"{min(missing)} was listed and has no id")
        maps, errors = _rows(files, "maps"), _rows(files, "errors")
        self._blame_twice("image in maps/", Counter(row["id"] for row in maps))
        for row in (*maps, *errors):
            if uris.get(row["id"]) != row["uri"]:
                self.violations.append(f"image {row['id']} has the URI {row['uri']}")
        for row in maps:
            if row["map"]["bytes"] != images.png(row["uri"]):
                self.violations.append(f"image {row['id']} has another map")
            if not images.may_have_map(row["uri"]):
                self.violations.append(f"image {row['id']} has a map, and always fails")
        for row in errors:
            if not images.may_fail(row["uri"]):
                self.violations.append(f"image {row['id']} has an error, and never fails")
        self._check_each_is_done(uris, maps, errors, may_fail_again)
        left = sorted(path for path in files if path.startswith("attempts/"))
        if left:
            self.violations.append(f"{left[0]} is left, and {len(left) - 1} more")

    def _check_each_is_done(
        self,
        uris: Mapping[int, str],
        maps: list[dict[str, Any]],
        errors: list[dict[str, Any]],
        may_fail_again: bool,
    ) -> None:
        rows: defaultdict[int, list[str]] = defaultdict(list)
        for row in errors:
            rows[row["id"]].append(row["run_id"])
        mapped = {row["id"] for row in maps}
        for number in uris:
            runs = rows[number]
            if number not in mapped and not runs:
                self.violations.append(f"image {number} has neither a map nor an error")
            if len(set(runs)) < len(runs):
                self.violations.append(f"image {number} has two errors of one run")
            if not may_fail_again and len(runs) + (number in mapped) > 1:
                self.violations.append(f"image {number} was done twice")

    def _blame_twice(self, what: str, counts: Counter[Any]) -> None:
        twice = [value for value, count in counts.items() if count > 1]
        if twice:
            self.violations.append(f"{what} {twice[0]} is there twice, and {len(twice) - 1} more")


def _rows(files: Mapping[str, bytes], folder: str) -> list[dict[str, Any]]:
    return [
        row
        for path, data in sorted(files.items())
        if path.startswith(f"{folder}/")
        for row in tables.from_bytes(data).to_pylist()
    ]
