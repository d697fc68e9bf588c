"""Outage: what keeps images from being read that is no fault of theirs; too much of it ends a run.

Such images get no row: they stay not done, and the next run does them. A run that meets so many in
a row that it will hardly meet another kind begins nothing new, and ends in a sentence.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from job.rows import Fault

# Images in a row, of the run or of one node, that the environment has kept from being read.
LIMIT = 32
# Seconds for what is in flight to be committed, once the run is to end.
GRACE = 120.0


@dataclass(frozen=True)
class Verdict:
    """What a run's faults come to.

    Attributes:
        left_out: images that were not read.
        fault: the one that stands for all.
        nodes: where it was met while others went on; none when it was everywhere.
        ends_run: whether there were too many in a row.
        seconds: since when that is so.
    """

    left_out: int
    fault: Fault
    nodes: tuple[str, ...]
    ends_run: bool
    seconds: float

    @property
    def sentence(self) -> str:
        """What a person is told."""
        fault = self.fault
        where = f" on node {', '.join(self.nodes)}" if self.nodes else ""
        if self.ends_run:
            return (
                f"{fault.place} cannot be read{where}: {fault.reason}. The run ends early; what is"
                " committed stays, and the same command goes on"
            )
        images = f"{self.left_out:,} image{'s' if self.left_out > 1 else ''}"
        return (
            f"{images} of {fault.place} could not be read{where}: {fault.reason}. They are not"
            " done; the same command goes on"
        )


class Outage:
    """Counts the faults of a run against what was read; part of the run's tracker.

    Args:
        clock: tells the time.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._in_a_row: Counter[str] = Counter()
        self._faults: dict[int, Fault] = {}
        self._reading: set[str] = set()
        self._failing: dict[str, None] = {}
        self._since: float | None = None

    @property
    def ends_run(self) -> bool:
        """Whether there were too many faults in a row."""
        return self._since is not None

    def count(self, node: str, read: Sequence[int], faults: Mapping[int, Fault]) -> None:
        """A node has read some images, by their ids, and could not read others.

        An image that is read after all, when a worker was lost and its task is done again, was
        kept from nothing.
        """
        if read:
            self._reading.add(node)
            for row in ("", node):
                self._in_a_row[row] = 0
        for number in read:
            self._faults.pop(number, None)
        if faults:
            self._failing[node] = None
            self._faults.update(faults)
        for row in ("", node):
            self._in_a_row[row] += len(faults)
            if self._in_a_row[row] >= LIMIT and self._since is None:
                self._since = self._clock()

    def verdict(self) -> Verdict | None:
        """What it comes to; None as long as every image could be read."""
        if not self._faults:
            return None
        kinds = Counter((fault.place, fault.kind) for fault in self._faults.values())
        ((key, _),) = kinds.most_common(1)
        fault = next(f for f in reversed(self._faults.values()) if (f.place, f.kind) == key)
        # Where others read the same storage well, it is the node; and a mount always is.
        somewhere = bool(self._reading - set(self._failing)) or key[1] in ("mount", "node", "clock")
        nodes = tuple(self._failing)[:3] if somewhere else ()
        seconds = 0.0 if self._since is None else self._clock() - self._since
        return Verdict(len(self._faults), fault, nodes, self.ends_run, seconds)
