"""Cluster: what Ray does for a run, with workers that die, stand still and are taken for dead.

A task whose worker is gone is done again by another one. Some are done again although their worker
still has them, or although they are done.
"""

from collections import deque
from collections.abc import Callable, Iterator
from random import Random

from job.outputs.attempts import Attempt
from tests.simulation.scheduler import Host, Scheduler
from tests.simulation.stand_ins import SimpleQueue

# Seconds until the loss of a worker shows and another one is there.
_REPLACED_AFTER = (0.5, 20.0)
# Seconds for which workers may outlive their driver.
_OUTLIVING = 30.0

# Id and URI of each image of a task.
TaskRows = tuple[tuple[int, str], ...]


class Cluster:
    """The workers of one run.

    Args:
        scheduler: runs them.
        random: how long they take, and what they do twice.
        driver: the host of the run's own process.
        make_host: gives a worker a host.
        workers: how many there are at a time.
        pace: seconds that a task takes on average before it writes.
        doubled: of a hundred tasks how many are done twice.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        random: Random,
        driver: Host,
        make_host: Callable[[], Host],
        workers: int,
        pace: float,
        doubled: int,
    ) -> None:
        self._scheduler = scheduler
        self._random = random
        self._driver = driver
        self._make_host = make_host
        self._workers = workers
        self._pace = pace
        self._doubled = doubled
        self._hosts: list[Host] = []
        self._todo: deque[TaskRows] = deque()
        self._results = SimpleQueue()
        self._is_over = False

    def attempts(
        self, tasks: list[TaskRows], write: Callable[[TaskRows], Attempt]
    ) -> Iterator[Attempt]:
        """Do tasks, and yield what has come of each: one attempt, now and then another one.

        Args:
            tasks: their images.
            write: does one, in a worker.

        Raises:
            Exception: what a task has raised.
        """
        again = [task for task in tasks if self._random.randrange(100) < self._doubled]
        self._todo.extend(self._random.sample([*tasks, *again], len(tasks) + len(again)))
        for _ in range(self._workers):
            self._start_worker(write)
        missing = set(tasks)
        while missing:
            task, result = self._results.get()
            if isinstance(result, Exception):
                raise result
            missing.discard(task)
            yield result

    def end(self) -> None:
        """Let workers go whose driver is gone: most of them, and not at once."""
        self._is_over = True
        for host in self._hosts:
            if self._random.random() < 0.8:
                moment = self._scheduler.now + self._random.uniform(0.0, _OUTLIVING)
                self._scheduler.at(moment, host.kill)

    def _start_worker(self, write: Callable[[TaskRows], Attempt]) -> None:
        if self._is_over:
            return
        host = self._make_host()
        self._hosts.append(host)
        at_work: list[TaskRows] = []
        host.spawn(lambda: self._work(host, at_work, write), "work")
        host.mourners.append(lambda: self._replace(at_work, write))

    def _work(
        self, host: Host, at_work: list[TaskRows], write: Callable[[TaskRows], Attempt]
    ) -> None:
        while self._todo and not self._is_over:
            task = self._todo.popleft()
            at_work.append(task)
            self._scheduler.sleep(self._random.expovariate(1.0 / self._pace))
            try:
                result: Attempt | Exception = write(task)
            except Exception as error:
                result = error
            at_work.clear()
            self._results.put((task, result))
        host.end()

    def _replace(self, lost: list[TaskRows], write: Callable[[TaskRows], Attempt]) -> None:
        def replace() -> None:
            self._todo.extend(lost)
            self._start_worker(write)

        moment = self._scheduler.now + self._random.uniform(*_REPLACED_AFTER)
        self._scheduler.at(moment, replace)
