"""Commits: which images of an OUTPUT are done, as its commit records say.

A record names the files of one task with their sizes. It is written when they are, and they are
moved to their places behind it: data without a record that counts is nobody's. Which records count
is told in docs/operations.md.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from job.errors import StorageError
from job.outputs import names
from job.outputs.attempts import FOLDER as ATTEMPTS
from job.outputs.attempts import Attempt
from job.storage import parquet
from job.storage.at_once import at_once
from job.storage.location import Location

FOLDER = "commits"
# Where format 1 had its records: they count, and nothing is added.
_EARLIER = "checkpoint"
_SEAL = ".seal.parquet"
_DATA = ("maps", "errors", "manifest")
ALL_FOLDERS = (FOLDER, _EARLIER, ATTEMPTS, *_DATA)
_COLUMNS = pa.schema([pa.field("id", pa.int64(), False), pa.field("error_type", pa.string())])
# Run ids of formats 1 and 2, whose files have no epoch in their names.
_EARLIER_RUN = re.compile(r"\d{8}T\d{6}-[0-9a-f]{4}", re.ASCII)


@dataclass(frozen=True)
class CommittedFile:
    """A file of maps/, errors/ or manifest/.

    Attributes:
        name: from OUTPUT on.
        size: in bytes; None in formats 1 and 2, which did not say.
        attempt: where it lies until it is moved to its place, from OUTPUT on; likewise.
    """

    name: str
    size: int | None = None
    attempt: str | None = None


@dataclass(frozen=True)
class Record:
    """A commit record.

    Attributes:
        name: from OUTPUT on.
        rows: ``id`` (int64) of each image that is done, and ``error_type``: why it has no map, or
            null; formats 1 and 2 had only the ids.
        files: what was written.
    """

    name: str
    rows: pa.Table
    files: tuple[CommittedFile, ...]

    @classmethod
    def of(cls, attempt: Attempt, stem: str) -> "Record":
        """The record by which an attempt is committed.

        Args:
            attempt: the attempt.
            stem: what its names begin with.
        """
        rows = pa.table({"id": attempt.ids, "error_type": attempt.error_types}, schema=_COLUMNS)
        files = (
            CommittedFile(f"{folder}/{stem}.parquet", size, name)
            for folder, (name, size) in attempt.files.items()
        )
        return cls(f"{FOLDER}/{stem}.parquet", rows, tuple(files))

    @property
    def ids(self) -> np.ndarray:
        """Of the images that are done, int64."""
        ids: np.ndarray = self.rows["id"].to_numpy()
        return ids

    @property
    def base(self) -> str:
        """The name without its folder."""
        return self.name.rpartition("/")[2]

    @property
    def run_id(self) -> str:
        """The run that has committed it."""
        parts = names.parts_of(self.base)
        return parts.run_id if parts else ""

    def to_bytes(self) -> bytes:
        """As it is stored."""
        files = [[file.name, file.size, file.attempt] for file in self.files]
        return parquet.to_bytes(self.rows.replace_schema_metadata({"files": json.dumps(files)}))


@dataclass(frozen=True)
class Commits:
    """What is committed in an OUTPUT, and what else lies there.

    Attributes:
        output: the OUTPUT.
        records: those that count, in the order of their runs.
        void: names of those that do not, from OUTPUT on, and why.
        unmoved: files of records that count which are not in their places yet.
        strays: files that no record that counts names, from OUTPUT on.
    """

    output: Location
    records: tuple[Record, ...] = ()
    void: dict[str, str] = field(default_factory=dict)
    unmoved: tuple[CommittedFile, ...] = ()
    strays: tuple[str, ...] = ()

    @classmethod
    def read(cls, output: Location) -> "Commits":
        """Read the records of an OUTPUT, and see whether their data are there.

        Raises:
            StorageError: a record is damaged.
        """
        # Data before records, or the data of a record that is written meanwhile would be strays;
        # attempts before the places that they are moved to.
        sizes = {
            f"{folder}/{name}": size
            for folder in (ATTEMPTS, *_DATA)
            for name, size in (output / folder).entries().items()
        }
        records, void = _counting(output, sizes)
        unmoved: list[CommittedFile] = []
        whole = []
        for record in records:
            try:
                unmoved += [file for file in record.files if not _is_in_place(output, file, sizes)]
                whole.append(record)
            except StorageError as error:
                void[record.name] = str(error)
        named = {file.name for record in whole for file in record.files}
        named.update(file.attempt for file in unmoved if file.attempt)
        strays = tuple(name for name in sizes if name not in named and _is_of_a_run(name))
        return cls(output, tuple(whole), void, tuple(unmoved), strays)

    def done(self) -> np.ndarray:
        """The ids that are committed, sorted, int64."""
        return np.unique(np.concatenate([np.empty(0, np.int64), *(r.ids for r in self.records)]))

    def count(self, run_id: str) -> tuple[int, dict[str, int]]:
        """How many maps a run has committed, and how many errors of each kind."""
        records = [record for record in self.records if record.run_id == run_id]
        kinds = Counter(kind for part in at_once(self._kinds, records) for kind in part)
        return sum(len(record.ids) for record in records) - kinds.total(), dict(kinds)

    def _kinds(self, record: Record) -> list[str]:
        if "error_type" in record.rows.column_names:
            return [kind for kind in record.rows["error_type"].to_pylist() if kind is not None]
        errors = [file for file in record.files if file.name.startswith("errors/")]
        tables = [parquet.read(self.output / file.name, ["error_type"]) for file in errors]
        return [kind for table in tables for kind in table["error_type"].to_pylist()]

    def manifest_files(self) -> list[Location]:
        """The parts of the manifest, wherever they lie now."""
        unmoved = {file.name: file.attempt for file in self.unmoved}
        committed = [file.name for record in self.records for file in record.files]
        committed = [name for name in committed if name.startswith("manifest/")]
        earlier = [
            f"manifest/{name}"
            for name in (self.output / "manifest").names()
            if name.endswith(".parquet") and not names.epoch_of(name)
        ]
        return [self.output / (unmoved.get(name) or name) for name in (*earlier, *committed)]


def has_begun(output: Location) -> bool:
    """Whether any run has committed anything, or begun to."""
    return bool(runs(output))


def runs(output: Location) -> list[str]:
    """Ids of the runs that have left a record, whether or not it counts, oldest first."""
    found = {
        (parts.epoch, parts.run_id)
        for folder in (FOLDER, _EARLIER)
        for name in (output / folder).names()
        if (parts := names.parts_of(name))
    }
    return list(dict.fromkeys(run_id for _, run_id in sorted(found)))


def seal(output: Location, claim: str, records: tuple[Record, ...]) -> None:
    """Say for good which records of all runs before count.

    Args:
        output: the OUTPUT.
        claim: name of the claim of the run that says so, which has made no record yet.
        records: those that count.
    """
    accepted = pa.table({"record": pa.array([record.base for record in records], pa.string())})
    (output / FOLDER / f"{claim}{_SEAL}").write_bytes(parquet.to_bytes(accepted))


def _counting(output: Location, sizes: dict[str, int]) -> tuple[list[Record], dict[str, str]]:
    """Records that count as far as their names say, and the others with the reason."""
    found = {
        f"{folder}/{name}": size
        for folder in (FOLDER, _EARLIER)
        for name, size in (output / folder).entries().items()
        if name.endswith(".parquet")
    }
    seals = [name for name in found if name.endswith(_SEAL)]
    last = max(seals, key=_epoch, default=None)
    accepted = set() if last is None else _accepted(output / last)
    void, counting = {}, []
    for name in sorted(set(found).difference(seals), key=lambda name: (_epoch(name), name)):
        if name.endswith(names.PENDING):
            void[name] = "it was never finished"
        elif not found[name]:
            void[name] = "it is empty, as a power cut may leave a file"
        elif last is not None and _epoch(name) < _epoch(last) and _base(name) not in accepted:
            void[name] = "it came when a later run had gone on without it"
        else:
            counting.append(name)
    return at_once(lambda name: _read(output, name, sizes), counting), void


def _accepted(place: Location) -> set[str]:
    return set(parquet.read(place, ["record"])["record"].to_pylist())


def _read(output: Location, name: str, sizes: dict[str, int]) -> Record:
    rows = parquet.read(output / name)
    said = (rows.schema.metadata or {}).get(b"files")
    if said is not None:
        files = tuple(CommittedFile(*file) for file in json.loads(said))
    else:
        places = (f"{folder}/{_base(name)}" for folder in ("maps", "errors"))
        files = tuple(CommittedFile(place) for place in places if place in sizes)
        # One that is void, for want of data.
        files = files or (CommittedFile(f"maps/{_base(name)}"),)
    return Record(name, rows, files)


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
    # A listing may be late; these are not.
    if has(file.name, there := (output / file.name).size()):
        return True
    if file.attempt and has(file.attempt, (output / file.attempt).size()):
        return False
    raise StorageError(
        f"{file.name} is missing"
        if there is None
        else f"{file.name} has {there:,} bytes" + (f" of {file.size:,}" if file.size else "")
    )


def _is_of_a_run(name: str) -> bool:
    """Whether a run has given a file its name: anything else is somebody's own."""
    folder, _, base = name.partition("/")
    if folder == ATTEMPTS or names.epoch_of(base):
        return True
    parts = names.parts_of(base)
    is_earlier = parts is not None and _EARLIER_RUN.fullmatch(parts.run_id) is not None
    return is_earlier and folder != "manifest"


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _epoch(name: str) -> int:
    return names.epoch_of(_base(name))
