"""Sound rows: the rows of a file of OUTPUT that can be checked; what is wrong with others is told.

A file may hold anything: it may be damaged, or somebody else's.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from job.errors import StorageError
from job.results.verdict import Verdict
from job.storage import parquet
from job.storage.location import Location
from job.storage.refusals import ENVIRONMENT, explain, kind_of
from job.wording import counted


@dataclass(frozen=True)
class RowReader:
    """Reads files of an OUTPUT.

    Attributes:
        output: the OUTPUT.
        unmoved: of files that are not in their places yet, where they lie; both from OUTPUT on.
    """

    output: Location
    unmoved: Mapping[str, str] = field(default_factory=dict)

    def read(
        self, name: str, columns: pa.Schema, verdict: Verdict, optional: Collection[str] = ()
    ) -> pa.Table | None:
        """Some columns of a file, without the rows that lack a value they must have.

        Args:
            name: of the file, from OUTPUT on.
            columns: what to read.
            verdict: is told what is wrong.
            optional: those of the columns that the file may not have.

        Returns:
            Nothing where the file is damaged, gone, or has other columns.
        """
        try:
            found = self._read(name, None if optional else columns.names)
            wrong = _wrong_column(found.schema, columns, optional)
            if wrong:
                raise StorageError(f"{self._place(name).uri}: {wrong}")
        except (StorageError, OSError) as error:
            verdict.blame("files that cannot be read", [self._reason(name, error)])
            verdict.unreadable.add(self._place(name).uri)
            return None
        return _with_values(found, name, columns, verdict)

    def _read(self, name: str, columns: list[str] | None) -> pa.Table:
        if name in self.unmoved:
            try:
                return parquet.read(self.output / self.unmoved[name], columns)
            except FileNotFoundError:  # a run has moved it since
                pass
        return parquet.read(self.output / name, columns)

    def _place(self, name: str) -> Location:
        return self.output / self.unmoved.get(name, name)

    def _reason(self, name: str, error: StorageError | OSError) -> str:
        if isinstance(error, StorageError):
            return str(error)
        if kind_of(error) in ENVIRONMENT - {"node"}:
            raise error  # it says nothing about the file
        return f"{self._place(name).uri}: {explain(error)}"


def _wrong_column(there: pa.Schema, columns: pa.Schema, optional: Collection[str]) -> str:
    """What is wrong with the first column that is not as it should be; nothing if all are."""
    for column in columns:
        places = there.get_all_field_indices(column.name)
        if not places and column.name not in optional:
            return f"there is no column {column.name!r}, which a run writes"
        if len(places) > 1:
            return f"column {column.name!r} is there twice"
        if places and there.field(places[0]).type != column.type:
            kind = there.field(places[0]).type
            return f"column {column.name!r} is of the type {kind}, not {column.type}"
    return ""


def _with_values(rows: pa.Table, name: str, columns: pa.Schema, verdict: Verdict) -> pa.Table:
    needed = [column.name for column in columns if not column.nullable]
    lacking = [column for column in needed if rows[column].null_count]
    for column in lacking:
        missing = rows[column].null_count
        said = f"{name}: {column} of {counted(missing, 'row')}"
        verdict.blame("values that are missing", [said], missing)
    for column in lacking:
        rows = rows.filter(pc.is_valid(rows[column]))
    return rows
