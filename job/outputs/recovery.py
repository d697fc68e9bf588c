"""Recovery: what the runs before have left, put in order by the run that has taken over."""

from job.outputs import commits, names
from job.outputs.claims import FOLDER as CLAIMS
from job.outputs.claims import OutputClaim
from job.outputs.commits import Commits
from job.outputs.committer import move_to_places
from job.storage.at_once import at_once
from job.storage.local import PARTIAL
from job.storage.location import Location


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
        StorageError: a record is damaged, or data has vanished.
        OSError: OUTPUT cannot be read or written.
    """
    claim.ask()
    found = Commits.read(output)
    claim.ask()
    if claim.epoch > 1 or found.records or found.void:
        commits.seal(output, claim.name, found.records)
        claim.ask()
    move_to_places(output, found.unmoved)
    _remove(output, [name for name in (*found.strays, *found.void) if _is_before(name, claim)])
    if output.is_local:
        _remove_half_written(output, claim)
    return Commits(output, found.records, found.void, strays=found.strays)


def _is_before(name: str, claim: OutputClaim) -> bool:
    return names.epoch_of(name.rpartition("/")[2]) < claim.epoch


def _remove(output: Location, found: list[str]) -> None:
    at_once(lambda name: (output / name).delete(), found)


def _remove_half_written(output: Location, claim: OutputClaim) -> None:
    for folder in ("", *commits.ALL_FOLDERS, CLAIMS, "runs"):
        place = output / folder
        left = [name for name in place.names() if name.endswith(PARTIAL)]
        # The run's own beats go on meanwhile.
        _remove(place, [name for name in left if claim.name not in name])
