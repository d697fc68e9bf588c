"""Scenario: what a seed decides: INPUTs, runs, when each starts, what befalls it, and the storage.

A scenario that fails can be had with less in it (:func:`simpler`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from tests.simulation import images
from tests.simulation.faults import Fault, draw, draw_silence

# How many seconds requests and answers are on their way, at least and at most.
_LATENCIES = ((0.005, 0.05), (0.02, 0.5), (0.002, 3.0))
_JAMS = (0.0, 0.0, 0.01, 0.05)
# Names in one answer to a listing; a few, so that listings take several answers.
_PAGES = (1000, 1000, 1000, 3)

RetryErrors = Literal["retryable", "all"] | None


@dataclass(frozen=True)
class Start:
    """When a run starts: some seconds after something that the run before has come to.

    Attributes:
        event: its start; a fault that keeps it from renewing its claim, or else its end; its end.
        seconds: after that.
    """

    event: Literal["start", "silence", "end"]
    seconds: float


@dataclass(frozen=True)
class RunPlan:
    """One run.

    Attributes:
        start: when.
        uris: of its INPUT.
        retry_errors: as the option.
        machine: of its own process.
        skew: seconds that the clock there is ahead.
        workers: how many.
        images_per_task: at most.
        pace: seconds that a task takes on average.
        doubled: of a hundred tasks how many are done twice for no good reason.
        faults: of its own process.
        worker_faults: of its first workers, each.
    """

    start: Start
    uris: tuple[str, ...]
    retry_errors: RetryErrors
    machine: str
    skew: float
    workers: int
    images_per_task: int
    pace: float
    doubled: int = 0
    faults: tuple[Fault, ...] = ()
    worker_faults: tuple[tuple[Fault, ...], ...] = ()


@dataclass(frozen=True)
class Scenario:
    """What a seed decides beforehand; how long each thing takes it decides on the way.

    Attributes:
        seed: the seed.
        quickest: seconds that requests and answers are on their way, at least.
        slowest: at most.
        jams: of all of them how many take longer than that.
        lag: seconds that listings may be behind.
        page: names that one answer to a listing has, at most.
        runs: in their order.
        last: the clean run at the end.
    """

    seed: int
    quickest: float
    slowest: float
    jams: float
    lag: float
    page: int
    runs: tuple[RunPlan, ...]
    last: RunPlan


def draw_scenario(seed: int) -> Scenario:
    """The scenario of a seed."""
    random = Random(f"scenario {seed}")
    quickest, slowest = random.choice(_LATENCIES)
    is_duel = random.random() < 0.5
    inputs = [_draw_input(random, most=12 if is_duel else 30) for _ in range(2)]
    runs = tuple(_draw_run(random, random.choice(inputs)) for _ in range(random.randint(2, 4)))
    if is_duel:
        runs = _as_duel(random, runs)
    last = RunPlan(
        start=Start("end", 0.0),
        uris=random.choice(inputs),
        retry_errors=None,
        machine="machine 9",
        skew=0.0,
        workers=2,
        images_per_task=4,
        pace=0.2,
    )
    return Scenario(
        seed=seed,
        quickest=quickest,
        slowest=slowest,
        jams=random.choice(_JAMS),
        lag=random.choice((0.0, 0.0, 1.0)),
        page=random.choice(_PAGES),
        runs=runs,
        last=last,
    )


def _as_duel(random: Random, runs: tuple[RunPlan, ...]) -> tuple[RunPlan, ...]:
    """The first run is silenced, and goes on when the second has taken over or is about to."""
    first, second, *more = runs
    first = replace(
        first,
        machine="machine 7",
        faults=(draw_silence(random), *first.faults[: random.choice((0, 0, 1))]),
    )
    second = replace(
        second,
        start=Start("silence", random.choice((0.5, 5.0)) * random.random()),
        faults=second.faults[: random.choice((0, 0, 1, 2))],
    )
    return first, second, *more[: random.choice((0, 0, 1))]


def _draw_input(random: Random, most: int) -> tuple[str, ...]:
    return tuple(sorted(random.sample(images.URIS, random.randint(6, most))))


def _draw_run(random: Random, uris: tuple[str, ...]) -> RunPlan:
    faults = random.choice((0, 1, 2, 3, 4, 5, 6))
    of_workers = sum(random.random() < 0.25 for _ in range(faults))
    return RunPlan(
        start=_draw_start(random),
        uris=uris,
        retry_errors=random.choice((None, None, None, "retryable", "all")),
        # Runs on one machine see whether the others are alive.
        machine=f"machine {random.randrange(6)}",
        skew=random.choice((0.0, 0.0, -3600.0, 5000.0)),
        workers=random.randint(1, 3),
        images_per_task=random.randint(1, 8),
        pace=random.choice((0.1, 1.0, 5.0)),
        doubled=random.choice((0, 10, 30)),
        faults=draw(random, faults - of_workers),
        worker_faults=tuple(draw(random, 1) for _ in range(of_workers)),
    )


def _draw_start(random: Random) -> Start:
    event = random.choice(("start", "silence", "silence", "silence", "end"))
    if event == "start":
        return Start("start", random.choice((0.0, 0.02, 0.5, 2.0, 10.0)) * random.random())
    if event == "silence":
        return Start("silence", random.choice((0.5, 5.0, 30.0)) * random.random())
    return Start("end", random.choice((0.0, 1.0, 30.0)) * random.random())


def simpler(scenario: Scenario) -> Iterator[Scenario]:
    """The scenario with one thing less, for each thing that it may do without."""
    if scenario.jams:
        yield replace(scenario, jams=0.0)
    if scenario.lag:
        yield replace(scenario, lag=0.0)
    if scenario.page < 1000:
        yield replace(scenario, page=1000)
    for number, run in enumerate(scenario.runs):
        before, after = scenario.runs[:number], scenario.runs[number + 1 :]
        if before or after:
            yield replace(scenario, runs=before + after)
        for fewer in _simpler_runs(run):
            yield replace(scenario, runs=(*before, fewer, *after))


def _simpler_runs(run: RunPlan) -> Iterator[RunPlan]:
    for number in range(len(run.faults)):
        yield replace(run, faults=run.faults[:number] + run.faults[number + 1 :])
    for number in range(len(run.worker_faults)):
        fewer = run.worker_faults[:number] + run.worker_faults[number + 1 :]
        yield replace(run, worker_faults=fewer)
    if run.retry_errors:
        yield replace(run, retry_errors=None)
    if run.skew:
        yield replace(run, skew=0.0)
    if run.workers > 1:
        yield replace(run, workers=1)
