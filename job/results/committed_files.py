"""Committed files: which files of OUTPUT a commit record names, and what the others are."""

import re

from job.outputs import names
from job.outputs.commits import Commits
from job.outputs.dataset_card import SCHEMA
from job.outputs.records import Record
from job.results import verdict as verdicts
from job.results.verdict import Verdict
from job.storage.location import PARTIAL, Location, printable
from job.wording import counted

# Files of the manifest of formats 1 and 2, which no record names.
_EARLIER_PART = re.compile(r"manifest/part-\d{12}\.parquet", re.ASCII)
SCHEMAS = (f"maps/{SCHEMA}", f"errors/{SCHEMA}")


def found_files(output: Location) -> list[str]:
    """Names of all files in ``maps/``, ``errors/`` and ``manifest/``, from OUTPUT on.

    Also of those in folders within, and of links that lead nowhere.
    """
    return [f"{folder}/{name}" for folder in names.DATA for name in _names_below(output / folder)]


def check_files(found: list[str], commits: Commits, verdict: Verdict) -> None:
    """See whether every file is of a record that counts, and tell of the others.

    Args:
        found: names of what is there, as it was before the records were read.
        commits: of the OUTPUT.
        verdict: is told what is wrong, and what is only left.
    """
    verdict.blame("files that cannot be read", list(commits.damaged.values()))
    for record in commits.records:
        others = [f.name for f in record.files if names.base(f.name) != names.base(record.name)]
        said = [f"{name} of {record.name}" for name in others]
        verdict.blame("files with another name than their record", said)
    for record in commits.lost:
        _tell_of_lost(record, commits.void[record.name], verdict)
    lost = {record.name for record in commits.lost}
    void = [f"{name}: {reason}" for name, reason in commits.void.items() if name not in lost]
    verdict.note(verdicts.NOT_COUNTED, void)
    verdict.note(verdicts.NOT_MOVED, [file.name for file in commits.unmoved])
    left = [name for name in commits.strays if name.startswith("attempts/")]
    verdict.note(verdicts.NOT_COMMITTED, left)
    _tell_of_unnamed(found, commits, verdict)


def of_damaged_records(commits: Commits) -> set[str]:
    """Names that files of records have which cannot be read."""
    bases = [names.base(name) for name in commits.damaged]
    return {f"{folder}/{base}" for folder in names.DATA for base in bases}


def manifest_files(found: list[str], commits: Commits) -> list[str]:
    """Names of the files of the manifest, from OUTPUT on, in the order of their ids."""
    committed = [file.name for record in commits.records for file in record.files]
    earlier = sorted(name for name in found if _EARLIER_PART.fullmatch(name))
    return [*earlier, *(name for name in committed if name.startswith("manifest/"))]


def _names_below(folder: Location) -> list[str]:
    paths: list[str] = []
    listing = folder.listing(lambda _, path: paths.append(path))
    paths += [file.path for file in listing.objects]
    begin = f"{folder.path}/"
    # Object storage may keep a folder itself as an object, whose name ends with a slash.
    below = [path for path in paths if path.startswith(begin) and not path.endswith("/")]
    return [path.removeprefix(begin) for path in below]


def _tell_of_lost(record: Record, reason: str, verdict: Verdict) -> None:
    said = f"{record.name}: {reason}"
    if any(file.name.startswith("manifest/") for file in record.files):
        verdict.blame("lost or damaged parts of the manifest", [said])
    else:
        images = counted(len(record.ids), "image")
        verdict.blame("commit records without their files", [f"{said} ({images})"])


def _tell_of_unnamed(found: list[str], commits: Commits, verdict: Verdict) -> None:
    # Of lost and damaged records it is told already.
    records = (*commits.records, *commits.lost)
    known = {file.name for record in records for file in record.files}
    known.update(SCHEMAS, of_damaged_records(commits))
    strays = set(commits.strays)
    for name in found:
        if name in known or _EARLIER_PART.fullmatch(name):
            continue
        shown = [printable(name)]
        if name.endswith(PARTIAL):
            verdict.note(verdicts.HALF_WRITTEN, shown)
        elif name in strays:
            verdict.blame("files without a commit record that counts", shown)
        elif _is_hidden(name):
            verdict.note(verdicts.HIDDEN, shown)
        else:
            verdict.blame("files that no run has written", shown)


def _is_hidden(name: str) -> bool:
    """Whether most readers leave it out: what file systems and other programs put beside files."""
    parts = name.split("/")
    return not name.endswith(".parquet") and any(part.startswith((".", "_")) for part in parts)
