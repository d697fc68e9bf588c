"""Simulation: the runs of one scenario on one OUTPUT, from the first to a clean one at the end."""

import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random

from job.errors import JobError
from job.results.verification import verify
from tests.simulation import stand_ins
from tests.simulation.cluster import Cluster
from tests.simulation.faults import Fault, Progress
from tests.simulation.oracle import Oracle
from tests.simulation.requests import Client, Requests
from tests.simulation.run import do_run
from tests.simulation.scenario import RunPlan, Scenario
from tests.simulation.scheduler import Host, Scheduler, StuckError
from tests.simulation.store import ObjectStore, SimLocation


@dataclass
class Report:
    """What became of a scenario.

    Attributes:
        scenario: the scenario.
        violations: what must not be, in words; none when all is well.
        injected: faults that happened, by kind.
        outcomes: how runs ended, by the words for it.
        requests: to the storage.
        seconds: on the simulated clock.
        log: time, host and words of all that happened.
    """

    scenario: Scenario
    violations: list[str]
    injected: Counter[str]
    outcomes: Counter[str]
    requests: int = 0
    seconds: float = 0.0
    log: list[tuple[float, str, str]] = field(default_factory=list, repr=False)

    @property
    def story(self) -> str:
        """The log as text."""
        return "\n".join(f"{moment:10.3f}  {host:<9}  {words}" for moment, host, words in self.log)


def simulate(scenario: Scenario) -> Report:
    """Do the runs of a scenario, with the stand-ins in place (:func:`stand_ins.in_place`)."""
    return _Simulation(scenario).report()


class _Simulation:
    """One OUTPUT, and what happens on it."""

    def __init__(self, scenario: Scenario) -> None:
        self._oracle = Oracle()
        self._scenario = scenario
        self._scheduler = Scheduler()
        self._random = Random(f"runs {scenario.seed}")
        self._requests = Requests(
            self._scheduler,
            Random(f"requests {scenario.seed}"),
            quickest=scenario.quickest,
            slowest=scenario.slowest,
            jams=scenario.jams,
        )
        self._store = ObjectStore(
            self._requests, Random(f"store {scenario.seed}"), scenario.lag, scenario.page
        )
        self._store.watchers.append(self._oracle.see)
        self._output = SimLocation(self._store, "")
        self._injected: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter()
        self._scheduled = 0
        # Of the processes of all runs, the last one as well.
        self._progress = [Progress(run.faults) for run in (*scenario.runs, scenario.last)]
        stand_ins.enter(self._scheduler, Random(f"names {scenario.seed}"))

    def report(self) -> Report:
        """Do it all, and tell what became of it."""
        violations = self._oracle.violations
        try:
            self._do_disturbed_runs()
            self._do_clean_run()
        except StuckError as error:
            violations.append(str(error))
        for host, words, failure in self._scheduler.failures:
            violations.append(f"{host.name}, {words}")
            self._requests.note(host, "".join(traceback.format_exception(failure)))
        return Report(
            self._scenario,
            violations,
            self._injected,
            self._outcomes,
            self._requests.made,
            self._scheduler.now,
            self._requests.log,
        )

    def _do_disturbed_runs(self) -> None:
        """Do all runs but the last; returns when whatever was late has come."""
        self._schedule(0.0)
        self._scheduler.run()
        if sum(self._outcomes.values()) < len(self._scenario.runs):
            raise StuckError("a run waits for what never comes")

    def _do_clean_run(self) -> None:
        """Do the last run, which nothing disturbs, and look at what is there then."""
        outcome: list[str] = []
        host = stand_ins.make_host("last run", self._scenario.last.machine, 0.0)
        self._run(len(self._scenario.runs), host, self._scenario.last, outcome.append)
        self._scheduler.run()
        if outcome != ["finished"]:
            self._oracle.violations.append(f"the clean run has {outcome or 'not come to an end'}")
            return
        runs = (*self._scenario.runs, self._scenario.last)
        self._oracle.check_end(
            self._store.objects,
            listed=frozenset(self._scenario.last.uris),
            may_fail_again=any(run.retry_errors for run in runs),
        )
        reader = stand_ins.make_host("reader", self._scenario.last.machine, 0.0)
        self._requests.clients[reader] = Client(Progress(), None, lambda fault: None)
        reader.spawn(self._verify, "verify")
        self._scheduler.run()

    def _schedule(self, seconds: float) -> None:
        moment = self._scheduler.now + seconds
        self._scheduler.at(moment, self._start_run, self._scheduled)
        self._scheduled += 1

    def _start_run(self, number: int) -> None:
        plan = self._scenario.runs[number]
        host = stand_ins.make_host(f"run {number}", plan.machine, plan.skew)
        host.mourners.append(lambda: self._end_run(number, "was killed"))
        self._run(number, host, plan, partial(self._end_run, number))
        self._reached(number, "start")

    def _end_run(self, number: int, outcome: str) -> None:
        self._outcomes[outcome] += 1
        self._reached(number, "end")

    def _reached(self, number: int, event: str) -> None:
        """Have the run after this one started, if it was waiting for that event."""
        if number + 1 == self._scheduled < len(self._scenario.runs):
            start = self._scenario.runs[self._scheduled].start
            if event in (start.event, "end"):
                self._schedule(start.seconds)

    def _client(self, number: int, progress: Progress) -> Client:
        def tell(fault: Fault) -> None:
            self._injected[fault.kind] += 1
            if fault.silences:
                self._reached(number, "silence")

        rival = self._progress[number + 1] if number + 1 < len(self._progress) else None
        return Client(progress, rival, tell)

    def _run(self, number: int, host: Host, plan: RunPlan, tell: Callable[[str], None]) -> None:
        """Let a host do a run; how it has ended is told, unless it was killed."""
        worker_faults = list(plan.worker_faults)

        def make_worker() -> Host:
            worker = stand_ins.make_host(f"worker {number}", f"{plan.machine}'s workers", 0.0)
            faults = worker_faults.pop() if worker_faults else ()
            self._requests.clients[worker] = self._client(number, Progress(faults))
            return worker

        self._requests.clients[host] = self._client(number, self._progress[number])
        cluster = Cluster(
            self._scheduler,
            self._random,
            host,
            make_worker,
            workers=plan.workers,
            pace=plan.pace,
            doubled=plan.doubled,
        )
        host.mourners.append(cluster.end)

        def work() -> None:
            try:
                do_run(plan, self._output, cluster, self._random)
                outcome = "finished"
            except (JobError, OSError) as error:
                outcome = f"failed: {type(error).__name__}"
                self._requests.note(host, f"failed: {error}")
            host.end()
            cluster.end()
            tell(outcome)

        host.spawn(work, "run")

    def _verify(self) -> None:
        verdict = verify(self._output, deep=True)
        if not verdict.is_complete:
            self._oracle.violations.append(f"verify says {verdict.problems or verdict}")
