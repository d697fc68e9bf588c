"""Faults: what befalls the requests of a host, and which ones."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

Kind = Literal[
    "killed before",  # the process, with all its tasks; the request is not sent
    "killed after",  # … once the request took effect
    "killed midway",  # … with the request on its way: it takes effect some seconds later
    "paused before",  # the process, for some seconds, before the request is sent
    "paused after",  # … before the answer is taken
    "cut off",  # the process from the storage, for some seconds: what it sends arrives then
    "slow before",  # the request, for some seconds, before it takes effect
    "slow after",  # … before it is answered
    "error before",  # instead of an effect
    "error after",  # instead of the answer
    "zombie",  # given up and sent again, while the first one is still on its way
]
KINDS: tuple[Kind, ...] = get_args(Kind)
# A run whose beats stop is taken for dead while it lives on: most that can go wrong does so then.
_WEIGHTS = (1, 1, 4, 4, 3, 4, 2, 1, 1, 1, 2)
# Those that last.
_SILENCES: tuple[Kind, ...] = ("killed midway", "paused before", "paused after", "cut off")
# Bounds of the seconds that a fault takes. A run that does nothing for 15 is taken for dead, and
# some seconds later the next one puts OUTPUT in order.
_SHORT, _TAKEN_OVER, _LONG = (0.5, 5.0), (14.0, 32.0), (45.0, 75.0)
_LASTING = (_SHORT, _TAKEN_OVER, _LONG)
# Of what lasts until another run has come to some point.
_LONGEST = 90.0

# Requests by what they do, and how often a fault is about one of them: most about those by which
# runs see each other.
_DEEDS = {
    "put claims": 3,
    "get claims": 1,
    "list claims": 4,
    "list attempts": 2,
    "list maps": 1,
    "list errors": 1,
    "list manifest": 1,
    "list commits": 3,
    "get commits": 1,
    "put seal": 3,
    "put commits": 4,
    "copy maps": 3,
    "copy errors": 1,
    "copy manifest": 1,
    "delete attempts": 2,
    "put attempts": 1,
    "head maps": 1,
}
# Requests that a host of a run makes, at least and at most, when nothing disturbs it.
_FEWEST, _MOST = 4, 150


@dataclass(frozen=True)
class Fault:
    """One disturbance.

    Attributes:
        kind: what happens.
        deed: to which requests, as :func:`deed` calls them; ``*`` for all.
        ordinal: to which one of those, from 1.
        seconds: how long at most, where it is for some time.
        until: a request of the run after this one that ends it sooner, as ``deed`` and ``ordinal``
            name it.
        surfaces: whether the client gives up at an error, instead of trying again.
    """

    kind: Kind
    deed: str
    ordinal: int
    seconds: float = 0.0
    until: tuple[str, int] | None = None
    surfaces: bool = False

    @property
    def silences(self) -> bool:
        """Whether its host makes no further requests that take effect, for some time or ever."""
        return self.kind.startswith(("killed", "paused", "cut off"))

    def __str__(self) -> str:
        seconds = f" {self.seconds:.3g} s" if self.seconds else ""
        until = f" or until request {self.until[1]} {self.until[0]!r}" if self.until else ""
        return f"{self.kind}{seconds}{until}{', given up' if self.surfaces else ''}"


def draw(random: Random, count: int) -> tuple[Fault, ...]:
    """Faults for one host, of any kind, at any of its requests."""
    return tuple(_draw_one(random) for _ in range(count))


def draw_silence(random: Random) -> Fault:
    """A fault in which another run takes over, until that has come to some point."""
    kind = random.choice(_SILENCES)
    return Fault(kind, *_draw_deed(random), _LONGEST, until=_draw_deed(random))


def _draw_one(random: Random) -> Fault:
    kind = random.choices(KINDS, _WEIGHTS)[0]
    which, ordinal = _draw_request(random)
    if kind.startswith("error"):
        return Fault(kind, which, ordinal, surfaces=random.random() < 0.5)
    if kind in ("killed before", "killed after"):
        return Fault(kind, which, ordinal)
    if random.random() < 0.6:
        return Fault(kind, which, ordinal, _LONGEST, until=_draw_request(random))
    return Fault(kind, which, ordinal, random.uniform(*random.choice(_LASTING)))


def _draw_request(random: Random) -> tuple[str, int]:
    if random.random() < 0.3:
        return "*", int(_FEWEST * (_MOST / _FEWEST) ** random.random())
    return _draw_deed(random)


def _draw_deed(random: Random) -> tuple[str, int]:
    which = random.choices(tuple(_DEEDS), tuple(_DEEDS.values()))[0]
    more = 0.85 if which == "list claims" else 0.5
    ordinal = 1
    while ordinal < 30 and random.random() < more:
        ordinal += 1
    return which, ordinal


def deed(operation: str, path: str) -> str:
    """What a request does, for :attr:`Fault.deed`: ``put commits``.

    Args:
        operation: of the storage.
        path: from OUTPUT on.
    """
    if path.endswith(".seal.parquet"):
        return f"{operation} seal"
    return f"{operation} {path.partition('/')[0]}"


class Progress:
    """How many requests a host has made, of each kind, and what is to happen at which.

    Args:
        faults: what befalls some of them.
    """

    def __init__(self, faults: tuple[Fault, ...] = ()) -> None:
        self._faults = {(fault.deed, fault.ordinal): fault for fault in faults}
        self._made: Counter[str] = Counter()
        self._awaiting: defaultdict[tuple[str, int], list[Callable[[], None]]] = defaultdict(list)

    def when(self, request: tuple[str, int], do: Callable[[], None]) -> None:
        """Do something when it makes a request, as :attr:`Fault.until` names it."""
        self._awaiting[request].append(do)

    def count(self, operation: str, path: str) -> Fault | None:
        """Count its next request; returns what befalls it, nothing most of the time."""
        befalls = None
        for name in ("*", deed(operation, path)):
            self._made[name] += 1
            request = name, self._made[name]
            befalls = self._faults.pop(request, None) or befalls
            if request in self._awaiting:
                for do in self._awaiting.pop(request):
                    do()
        return befalls
