"""Commits: which images of an OUTPUT are done, as its commit records say.

A record names the files of one task with their sizes. It is written when they are, and they are
moved to their places behind it: data without a record that counts is nobody's. Which records count
is told in docs/operations.md.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from job.errors import StorageError
from job.outputs import names
from job.outputs.records import CommittedFile, Record, places_of, read_record
from job.storage import parquet
from job.storage.at_once import at_once
from job.storage.location import Location


@dataclass(frozen=True)
class Commits:
    """What is committed in an OUTPUT, and what else lies there.

    Attributes:
        output: the OUTPUT.
        records: those that count, in the order of their runs.
        void: names of those that do not, from OUTPUT on, and why.
        unmoved: files of records that count which are not in their places yet.
        strays: files that no record that counts names, from OUTPUT on.
        lost: of the records that do not count, those whose data have vanished.
        damaged: names of records and seals that cannot be read, from OUTPUT on, and why.
    """

    output: Location
    records: tuple[Record, ...] = ()
    void: dict[str, str] = field(default_factory=dict)
    unmoved: tuple[CommittedFile, ...] = ()
    strays: tuple[str, ...] = ()
    lost: tuple[Record, ...] = ()
    damaged: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, output: Location) -> "Commits":
        """Read the records of an OUTPUT, and see whether their data are there.

        Raises:
            StorageError: a record is damaged.
        """
        found = cls.look(output)
        for reason in found.damaged.values():
            raise StorageError(reason)
        return found

    @classmethod
    def look(cls, output: Location) -> "Commits":
        """What :meth:`read` gives, also where records are damaged: those do not count."""
        # Data before records, or the data of a record that is written meanwhile would be strays;
        # attempts before the places that they are moved to.
        sizes = {
            f"{folder}/{name}": size
            for folder in (names.ATTEMPTS, *names.DATA)
            for name, size in (output / folder).entries().items()
        }
        damaged: dict[str, str] = {}
        records, void = _counting(output, sizes, damaged)
        unmoved: list[CommittedFile] = []
        whole, lost = [], []
        for record in records:
            try:
                unmoved += [file for file in record.files if not _is_in_place(output, file, sizes)]
                whole.append(record)
            except StorageError as error:
                void[record.name] = str(error)
                lost.append(record)
        named = {file.name for record in whole for file in record.files}
        named.update(file.attempt for file in unmoved if file.attempt)
        strays = tuple(name for name in sizes if name not in named and names.is_of_a_run(name))
        return cls(output, tuple(whole), void, tuple(unmoved), strays, tuple(lost), damaged)

    def done(self) -> np.ndarray:
        """The ids that are committed, sorted, int64."""
        ids = np.concatenate([np.empty(0, np.int64), *(record.ids for record in self.records)])
        # Without counts numpy 2.4 takes twenty times as long.
        return np.unique(ids, return_counts=True)[0]

    def count(self, run_id: str) -> tuple[int, dict[str, int]]:
        """How many maps a run has committed, and how many errors of each kind."""
        records = [record for record in self.records if record.run_id == run_id]
        kinds = Counter(kind for part in at_once(self._kinds, records) for kind in part)
        return sum(len(record.ids) for record in records) - kinds.total(), dict(kinds)

    def failed(self, record: Record, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Error rows that a record has committed.

        Args:
            record: one of :attr:`records`.
            columns: of :data:`job.schema.ERRORS`.
        """
        unmoved = {file.name: file.attempt for file in self.unmoved}
        files = [file.name for file in record.files if file.name.startswith("errors/")]
        places = [self.output / (unmoved.get(name) or name) for name in files]
        return [row for place in places for row in parquet.read(place, columns).to_pylist()]

    def _kinds(self, record: Record) -> list[str]:
        if "error_type" in record.rows.column_names:
            return [kind for kind in record.rows["error_type"].to_pylist() if kind is not None]
        return [row["error_type"] for row in self.failed(record, ["error_type"])]

    def check_manifest(self) -> None:
        """Check that no part of the manifest is lost: images would get the ids of others.

        Raises:
            StorageError: one is; says which.
        """
        for record in self.lost:
            if any(file.name.startswith("manifest/") for file in record.files):
                raise StorageError(
                    f"a part of the manifest of {self.output.uri} is lost"
                    f" ({self.void[record.name]}), which says what images the rows are of. Get it"
                    " back from a copy, or use another OUTPUT"
                )

    def manifest_files(self) -> list[Location]:
        """The parts of the manifest, wherever they lie now.

        Raises:
            StorageError: one is lost.
        """
        self.check_manifest()
        unmoved = {file.name: file.attempt for file in self.unmoved}
        committed = [file.name for record in self.records for file in record.files]
        committed = [name for name in committed if name.startswith("manifest/")]
        earlier = [
            f"manifest/{name}"
            for name in (self.output / "manifest").names()
            if name.endswith(".parquet") and not names.claim_of(name)
        ]
        return [self.output / (unmoved.get(name) or name) for name in (*earlier, *committed)]


def has_begun(output: Location) -> bool:
    """Whether any run has committed anything, or begun to."""
    return bool(runs(output))


def runs(output: Location) -> list[str]:
    """Ids of the runs that have left rows of ``maps/`` or ``errors/``, oldest first."""
    found = {
        (names.order(parts.claim), parts.run_id)
        for folder in ("maps", "errors")
        for name in (output / folder).names()
        if (parts := names.parts_of(name))
    }
    return list(dict.fromkeys(run_id for _, run_id in sorted(found)))


def seal(output: Location, claim: str, records: Iterable[Record]) -> None:
    """Say for good which records of all runs before count.

    Args:
        output: the OUTPUT.
        claim: name of the claim of the run that says so, which has made no record yet.
        records: those that count.
    """
    accepted = pa.array([names.base(record.name) for record in records], pa.string())
    # Beside the claims: who removes these, and so begins to count anew, has no seal of before.
    place = output / names.CLAIMS / f"{claim}{names.SEAL}"
    place.write_bytes(parquet.to_bytes(pa.table({"record": accepted})))


def _counting(
    output: Location, sizes: dict[str, int], damaged: dict[str, str]
) -> tuple[list[Record], dict[str, str]]:
    """Records that count as far as their names and contents say, and the others with the reason.

    Args:
        output: the OUTPUT.
        sizes: of all data, by their names from OUTPUT on.
        damaged: is told of what cannot be read.
    """
    found = {
        f"{folder}/{name}": size
        for folder in (names.COMMITS, names.COMMITS_OF_FORMAT_1)
        for name, size in (output / folder).entries().items()
        if names.is_of_a_run(name)
    }
    # After the records: of those that a seal does not name, none was there when it was written.
    sealed_by, accepted = _last_seal(output, damaged)
    void, counting = {}, []
    for name in sorted(found, key=names.order_of):
        is_sealed = names.order(names.claim_of(name)) < names.order(sealed_by)
        if name.endswith(names.PENDING):
            void[name] = "it was never finished"
        elif not found[name] and not names.claim_of(name):
            # Formats 1 and 2 waited for no disk, and had data in place before their record.
            void[name] = "it is empty, as a power cut may leave a file"
        elif is_sealed and names.base(name) not in accepted:
            void[name] = "it came when a later run had gone on without it"
        else:
            counting.append(name)
    records = []
    for name, record in zip(
        counting, at_once(lambda name: _read_or_why(output, name, sizes), counting), strict=True
    ):
        if isinstance(record, str):
            damaged[name] = record
        elif record is None:
            void[name] = "it was not written to its end"
        else:
            records.append(record)
    return records, void


def _last_seal(output: Location, damaged: dict[str, str]) -> tuple[str, set[str]]:
    """The highest claim that has a seal, and what that names; nothing where there is none."""
    seals = [name for name in (output / names.CLAIMS).names() if name.endswith(names.SEAL)]
    last = max(seals, key=names.order_of, default="")
    if not last:
        return "", set()
    try:
        accepted = parquet.read(output / names.CLAIMS / last, ["record"])["record"]
    except StorageError as error:
        damaged[f"{names.CLAIMS}/{last}"] = str(error)
        return "", set()
    return names.claim_of(last), set(accepted.to_pylist())


def _read_or_why(output: Location, name: str, sizes: dict[str, int]) -> Record | str | None:
    """A record, or why it cannot be read; None for one that was cut short, and so moved no file."""
    try:
        return read_record(output, name, sizes)
    except StorageError as error:
        return str(error) if any(place in sizes for place in places_of(name)) else None


def _is_in_place(output: Location, file: CommittedFile, sizes: dict[str, int]) -> bool:
    """Whether a committed file is where readers look; False when it has to be moved there.

    Raises:
        StorageError: it is nowhere, or not the one that was committed.
    """

    def has(name: str, size: int | None) -> bool:
        # A power cut may have left an empty file where sizes were not recorded.
        return size is not None and (size == file.size or (file.size is None and size > 0))

    if has(file.name, sizes.get(file.name)):
        return True
    if file.attempt and has(file.attempt, sizes.get(file.attempt)):
        return False
    # A listing may be late; these are not. A file that is being moved is at one of both, or at
    # the second when it was at the first.
    if file.attempt and has(file.attempt, (output / file.attempt).size()):
        return False
    if has(file.name, there := (output / file.name).size()):
        return True
    raise StorageError(
        f"{file.name} is missing"
        if there is None
        else f"{file.name} has {there:,} bytes" + (f" of {file.size:,}" if file.size else "")
    )
