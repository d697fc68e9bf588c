"""Recovery: what the runs before have left, put in order by the run that has taken over."""

import re

from job.outputs import commits, names
from job.outputs.claims import OutputClaim
from job.outputs.commits import Commits
from job.outputs.committer import move_to_places
from job.storage.at_once import at_once
from job.storage.location import PARTIAL, Location

# Files that a run was writing to a local OUTPUT when it was killed; formats 1 and 2 put no dot in
# front.
_HALF_WRITTEN = re.compile(rf"(?:\.?(?P<name>.+)\.|nodes-)[0-9a-f]{{32}}{re.escape(PARTIAL)}")
_FOLDERS = (
    "",
    names.CLAIMS,
    names.ATTEMPTS,
    names.COMMITS,
    names.COMMITS_OF_FORMAT_1,
    *names.DATA,
    "runs",
)


def recover(output: Location, claim: OutputClaim) -> Commits:
    """Settle what counts of all runs before, finish it, and remove the rest.

    From then on no record of theirs that comes late counts, whatever data it finds.

    Args:
        output: the OUTPUT.
        claim: of the run that recovers, which has committed nothing yet.

    Returns:
        What is committed; ``void`` and ``strays`` are those that were removed.

    Raises:
        OutputConflictError: another run took over.
        StorageError: a record is damaged, or data or a part of the manifest has vanished.
        OSError: OUTPUT cannot be read or written.
    """
    claim.ask()
    found = Commits.read(output)
    found.check_manifest()
    claim.ask()
    commits.seal(output, claim.name, found.records)
    claim.ask()
    move_to_places(output, found.unmoved)
    left = [name for name in (*found.strays, *found.void) if _is_before(name, claim)]
    _remove(output, left)
    if output.leaves_half_written:
        _remove_half_written(output, claim)
    return Commits(output, found.records, found.void, strays=tuple(left))


def _is_before(name: str, claim: OutputClaim) -> bool:
    return names.order(names.claim_of(name)) < names.order(claim.name)


def _remove(output: Location, found: list[str]) -> None:
    at_once(lambda name: (output / name).delete(), found)


def _remove_half_written(output: Location, claim: OutputClaim) -> None:
    """Those of runs before; a run that begins just now writes its claim meanwhile."""
    for folder in _FOLDERS:
        for name in (output / folder).names():
            half = _HALF_WRITTEN.fullmatch(name)
            if half is not None and _is_before(half["name"] or "", claim):
                (output / folder / name).delete()
