"""Verification: reconcile manifest, maps, errors and commit records of an OUTPUT."""

from functools import partial

import numpy as np

from job import schema
from job.errors import StorageError
from job.outputs.commits import Commits
from job.outputs.receipts import check_format
from job.results.committed_files import (
    SCHEMAS,
    check_files,
    found_files,
    manifest_files,
    of_damaged_records,
)
from job.results.committed_rows import FileRows, compare_record, read_unnamed
from job.results.listed_images import ListedImages
from job.results.map_check import check_maps
from job.results.once import check_once
from job.results.sound_rows import RowReader
from job.results.verdict import Verdict
from job.storage.at_once import at_once
from job.storage.location import Location, in_the_way

_NONE = np.empty(0, np.int64)


def verify(output: Location, *, deep: bool = False) -> Verdict:
    """Check that every image of the manifest is exactly one of map, error, not done.

    Each file is compared with the commit record that names it, each row with the manifest. Nothing
    is repaired. Of each image only a few numbers are in memory.

    Args:
        output: the OUTPUT.
        deep: decode every PNG as well, and compare it with its row.

    Raises:
        OutputConflictError: the OUTPUT has a format that this version does not know.
        StorageError: there is no manifest to check against.
    """
    check_format(output)
    verdict = Verdict()
    # Files before records, or one that is committed meanwhile would be nobody's.
    found = found_files(output)
    commits = Commits.look(output)
    check_files(found, commits, verdict)
    reader = RowReader(output, {file.name: file.attempt or "" for file in commits.unmoved})
    images = _read_manifest(reader, found, commits, verdict)
    files = _read_rows(reader, found, commits, images, verdict)
    check_once(files, verdict)
    _count(images, files, commits, verdict)
    if deep:
        maps = [file.name for file in files if file.is_committed and file.name.startswith("maps/")]
        check_maps(reader, [name for name in maps if name not in SCHEMAS], verdict)
    return verdict


def _read_manifest(
    reader: RowReader, found: list[str], commits: Commits, verdict: Verdict
) -> ListedImages:
    files = manifest_files(found, commits)
    lost = [file.name for record in commits.lost for file in record.files]
    is_whole = not commits.damaged and not any(name.startswith("manifest/") for name in lost)
    if not files and is_whole:
        raise _no_manifest(reader.output)
    return ListedImages.read(reader, files, is_whole, verdict)


def _no_manifest(output: Location) -> StorageError:
    is_file = output.size() is not None
    why = in_the_way(output.path) if is_file else "it has no manifest: no run has begun there"
    return StorageError(f"OUTPUT {output.uri}: {why}")


def _read_rows(
    reader: RowReader, found: list[str], commits: Commits, images: ListedImages, verdict: Verdict
) -> list[FileRows]:
    """The images of every file of maps/ and errors/."""
    files = {}
    for read in at_once(partial(compare_record, reader=reader, images=images), commits.records):
        verdict.add(read.verdict)
        files.update({file.name: file for file in read.files})
    named = {file.name for record in commits.records for file in record.files}
    others = [name for name in found if name not in named and not name.startswith("manifest/")]
    for name in set(SCHEMAS).intersection(others):
        _check_schema_file(name, reader, verdict)
    maybe = of_damaged_records(commits)
    return [
        *files.values(),
        *at_once(lambda name: read_unnamed(name, reader, name in maybe), others),
    ]


def _check_schema_file(name: str, reader: RowReader, verdict: Verdict) -> None:
    columns = schema.MAPS if name.startswith("maps/") else schema.ERRORS
    rows = reader.read(name, columns, verdict)
    if rows is not None:
        verdict.blame("rows that were never committed", [name] * min(1, len(rows)), len(rows))


def _count(images: ListedImages, files: list[FileRows], commits: Commits, verdict: Verdict) -> None:
    mapped, failed = (_ids(files, folder) for folder in ("maps/", "errors/"))
    # np.unique takes twenty times as long as sorting does, and so does all that is built on it.
    every = images.ids if images.is_whole else np.concatenate([images.ids, mapped, failed])
    every = np.sort(every)
    every = every[np.append(True, every[1:] != every[:-1])[: len(every)]]
    has_map, has_error = np.isin(every, mapped), np.isin(every, failed)
    left = every[~has_map & ~has_error]
    verdict.images = len(images.ids)
    verdict.maps = int(has_map.sum())
    verdict.open_errors = int((has_error & ~has_map).sum())
    verdict.not_done = len(left)
    if images.is_whole:
        committed = np.concatenate([_NONE, *(record.ids for record in commits.records)])
        verdict.to_do = int((~np.isin(left, committed)).sum())


def _ids(files: list[FileRows], folder: str) -> np.ndarray:
    """The images that have a committed row in the files of a folder."""
    found = [file.ids for file in files if file.is_committed and file.name.startswith(folder)]
    return np.concatenate([_NONE, *found])
