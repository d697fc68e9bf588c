"""Made outputs: an OUTPUT as runs leave it, by what writes one, without Ray and without a model."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from job import schema
from job.errors import ImageError
from job.inputs.manifest import freeze
from job.outputs.attempts import Attempt, write_attempt, write_manifest
from job.outputs.claims import OutputClaim
from job.outputs.commits import Commits
from job.outputs.committer import Committer
from job.outputs.dataset_card import write_card, write_maps_schema
from job.outputs.encoder import MapEncoder
from job.outputs.error_rows import open_errors
from job.outputs.palette import palette
from job.outputs.receipts import new_run_id
from job.outputs.recovery import recover
from job.rows import failure
from job.storage import parquet
from job.storage.location import Location
from tests.conftest import LABELS
from tests.inputs import MadeInput
from tests.runs import Hands

COLOURS = palette(LABELS)
URIS = tuple(f"s3://photos/{number:03d}.jpg" for number in range(12))


def do_run(
    output: Location,
    uris: Sequence[str] = URIS,
    *,
    failing: Collection[int] = (),
    retries: bool = False,
    per_task: int = 5,
    tasks: int | None = None,
) -> list[Attempt]:
    """Do what a run does.

    Args:
        output: where.
        uris: of the images.
        failing: ids of those that get an error row.
        retries: does again what has failed.
        per_task: images in a task.
        tasks: how many are committed; what the others have written is left behind, as by a run that
            is killed. None commits all, and ends as a run does.

    Returns:
        The attempts that are not committed.
    """
    with OutputClaim(output, new_run_id(), clock=Hands()) as claim:
        found = recover(output, claim)
        committer = Committer(output, claim)
        manifest = freeze(MadeInput(tuple(uris)), found.manifest_files())
        for part in manifest.new_parts:
            committer.commit([write_manifest(output, claim.name, part)])
        write_card(output, LABELS, COLOURS)
        done = found.done()
        if retries:
            done = np.setdiff1d(done, open_errors(found, only_retryable=False))
        rows = manifest.without(done)
        committer.expect(np.sort(rows["id"].to_numpy()))
        attempts = [
            _attempt(output, claim, rows.slice(start, per_task), failing)
            for start in range(0, len(rows), per_task)
        ]
        committer.commit(attempts[:tasks])
        if tasks is None:
            committer.clear()
            write_maps_schema(output, LABELS, COLOURS)
        return [] if tasks is None else attempts[tasks:]


def _attempt(
    output: Location, claim: OutputClaim, listed: pa.Table, failing: Collection[int]
) -> Attempt:
    rows = encoded(listed, claim.run_id, failing)
    maps = schema.maps(LABELS, COLOURS)
    return write_attempt(output, claim.name, claim.run_id, rows, maps)


def encoded(listed: pa.Table, run_id: str, failing: Collection[int] = ()) -> pa.Table:
    """Rows as the encoder gives them, of rows of the manifest."""
    reason = failure("decode", ImageError("truncated", "the file ends early", retryable=True))
    ids = listed["id"].to_pylist()
    shapes = [(1, 1) if number in failing else (6 + number % 5, 9) for number in ids]
    batch = {
        "id": ids,
        "uri": listed["uri"].to_pylist(),
        "height": [height for height, _ in shapes],
        "width": [width for _, width in shapes],
        "map": [class_ids(number, *shape) for number, shape in zip(ids, shapes, strict=True)],
        "confidence": [0.5] * len(ids),
        "error": [reason if number in failing else None for number in ids],
    }
    return MapEncoder(LABELS, COLOURS, model="made", run_id=run_id)(batch)


def class_ids(number: int, height: int, width: int) -> np.ndarray:
    """The map of an image: (height, width) uint8."""
    ids = np.random.default_rng(number).integers(0, len(LABELS), (height, width))
    return ids.astype(np.uint8)


def files(output: Location, folder: str) -> list[str]:
    """Names, from OUTPUT on, of the files that runs have committed to a folder."""
    names = (output / folder).names()
    return [f"{folder}/{name}" for name in names if name.startswith("e")]


def table(output: Location, name: str) -> pa.Table:
    """A file."""
    return parquet.read(output / name)


def write(output: Location, name: str, rows: pa.Table) -> None:
    """Write a file, and its size to the record that names it."""
    data = parquet.to_bytes(rows)
    records = Commits.read(output).records
    (output / name).write_bytes(data)
    for record in records:
        sized = tuple(
            replace(file, size=len(data)) if file.name == name else file for file in record.files
        )
        if sized != record.files:
            (output / record.name).write_bytes(replace(record, files=sized).to_bytes())


def change(output: Location, name: str, row: int, **values: Any) -> None:
    """Change columns of a row in a file; the record gets the file's new size."""
    before = table(output, name)
    rows = before.to_pylist()
    rows[row].update(values)
    loose = pa.schema([field.with_nullable(True) for field in before.schema])
    changed = pa.Table.from_pylist(rows, schema=loose)
    write(output, name, changed.replace_schema_metadata(before.schema.metadata))
