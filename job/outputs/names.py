"""Names of what a run leaves in OUTPUT: they say its epoch, its run and which file of it.

An epoch is a run's place in the order of runs on an OUTPUT, from 1. Formats 1 and 2 had none, which
counts as 0; names with an epoch sort behind those.
"""

import re
from dataclasses import dataclass

_FORM = re.compile(
    r"(?:e(?P<epoch>\d{6,})-)?(?P<run>.+?)-(?P<number>\d{6,})(?:\.pending)?\.parquet", re.ASCII
)
_WITH_EPOCH = re.compile(r"e(\d{6,})-.", re.ASCII)

# Record of a write that formats 1 and 2 had begun and not committed.
PENDING = ".pending.parquet"


def stem(epoch: int, run_id: str) -> str:
    """What the names of all that a run writes begin with."""
    return f"e{epoch:06d}-{run_id}"


def epoch_of(name: str) -> int:
    """The epoch that a name says; 0 where it says none."""
    found = _WITH_EPOCH.match(name)
    return int(found[1]) if found else 0


def order(name: str) -> tuple[int, str]:
    """What to sort names by, from OUTPUT on or without their folders, to have them as their runs
    are: by epoch, and by run for those that took the same one at once.
    """
    base = name.rpartition("/")[2]
    return epoch_of(base), base


@dataclass(frozen=True)
class Parts:
    """What the name of a record, or of a file that it names, is made of.

    Attributes:
        epoch: of the run.
        run_id: the run.
        number: which of its files, in the order of their commits.
    """

    epoch: int
    run_id: str
    number: int


def parts_of(name: str) -> Parts | None:
    """What a name is made of; None for one that no run has given."""
    found = _FORM.fullmatch(name)
    return Parts(int(found["epoch"] or 0), found["run"], int(found["number"])) if found else None
