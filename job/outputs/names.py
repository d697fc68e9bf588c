"""Names of what a run leaves in OUTPUT: they say whose it is.

A claim's name has an epoch, which is the run's place in the order of runs on an OUTPUT, from 1, and
the run's id, which decides between runs that took the same epoch at once. Formats 1 and 2 had no
claims: their names come before all others.
"""

import re
from dataclasses import dataclass

CLAIMS = "claims"
ATTEMPTS = "attempts"
COMMITS = "commits"
# Where format 1 had its records: they count, and nothing is added.
COMMITS_OF_FORMAT_1 = "checkpoint"
# Folders of what records name.
DATA = ("maps", "errors", "manifest")

# Record of a write that formats 1 and 2 had begun and not committed.
PENDING = ".pending.parquet"
SEAL = ".seal.parquet"

_EPOCH = re.compile(r"e(\d{6,})-.", re.ASCII)
_OF_CLAIM = re.compile(
    r"(?P<claim>e\d{6,}-.+?)"
    r"(?:-(?P<number>\d{6,})\.parquet|-[0-9a-f]{16}\.[a-z]+\.parquet|\.seal\.parquet|\.json)",
    re.ASCII,
)
_EARLIER = re.compile(
    r"(?P<run>\d{8}T\d{6}-[0-9a-f]{4})-(?P<number>\d{6,})(?:\.pending)?\.parquet", re.ASCII
)


def claim_name(epoch: int, run_id: str) -> str:
    """What the names of all that a run writes begin with."""
    return f"e{epoch:06d}-{run_id}"


def epoch_of(name: str) -> int:
    """The epoch that a name says; 0 where it says none."""
    found = _EPOCH.match(name)
    return int(found[1]) if found else 0


def run_of(claim: str) -> str:
    """The run that has made a claim."""
    return claim.partition("-")[2]


def claim_of(name: str) -> str:
    """The claim of the run that has given a file its name; nothing where none has.

    Args:
        name: from OUTPUT on, or without its folder.
    """
    found = _OF_CLAIM.fullmatch(base(name))
    return found["claim"] if found else ""


def order(claim: str) -> tuple[int, str]:
    """What to sort claims by; the highest holds OUTPUT."""
    return epoch_of(claim), claim


def order_of(name: str) -> tuple[tuple[int, str], str]:
    """What to sort names of files by, to have them as their runs came."""
    return order(claim_of(name)), base(name)


def is_of_a_run(name: str) -> bool:
    """Whether a run has given a file its name: any other is somebody's own, and stays."""
    return bool(claim_of(name)) or _EARLIER.fullmatch(base(name)) is not None


def base(name: str) -> str:
    """A name without its folder."""
    return name.rpartition("/")[2]


@dataclass(frozen=True)
class Parts:
    """What the name of a record, or of a file that it names, is made of.

    Attributes:
        claim: of the run; empty in formats 1 and 2.
        run_id: the run.
        number: which of its files, in the order of their commits.
    """

    claim: str
    run_id: str
    number: int


def parts_of(name: str) -> Parts | None:
    """What the name of a record or a committed file is made of; None for any other."""
    found = _OF_CLAIM.fullmatch(base(name))
    if found is not None and found["number"]:
        return Parts(found["claim"], run_of(found["claim"]), int(found["number"]))
    found = _EARLIER.fullmatch(base(name))
    return Parts("", found["run"], int(found["number"])) if found else None
