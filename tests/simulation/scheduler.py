"""Scheduler: hosts and their tasks in virtual time, one task at a time, in an order of the seed's.

A task is a greenlet. It runs until it waits: for a request, for a moment, for another task. Then
the scheduler goes on with whatever is next, and the clock jumps there. Nothing here looks at the
real clock, and nothing runs beside anything else, so that the same seed gives the same run.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from greenlet import getcurrent, greenlet

# More than any run has come to by a hundred times: tasks that wait for each other in turn.
_MOST_EVENTS = 1_000_000


class Killed(BaseException):  # no error: nothing may catch it
    """The host is dead: raised in each of its tasks, at whatever it waits for."""


class StuckError(Exception):
    """Tasks go on for ever, or wait for what never comes."""


class Host:
    """A process of an operating system: what is killed and paused as a whole.

    Args:
        scheduler: runs its tasks.
        name: for the log.
        machine: hosts of one machine see whether the others are alive.
        pid: its number there.
        skew: seconds that its wall clock is ahead.

    Attributes:
        is_alive: until it is killed, or has come to its end.
        tasks: those that are not over.
        mourners: called when it is killed.
    """

    def __init__(
        self, scheduler: "Scheduler", name: str, machine: str, pid: int, skew: float = 0.0
    ) -> None:
        self.name = name
        self.machine = machine
        self.pid = pid
        self.skew = skew
        self.is_alive = True
        self.tasks: list[Task] = []
        self.mourners: list[Callable[[], None]] = []
        self._scheduler = scheduler
        self._pauses = 0
        # What would have gone on in the pause: tasks, their turns, and what they are woken with.
        self._held: list[tuple[Task, int, Any]] = []

    @property
    def is_paused(self) -> bool:
        """Whether none of its tasks goes on; requests under way are with the storage."""
        return self._pauses > 0

    def pause(self) -> Callable[[], None]:
        """Pause it; returns what ends this pause, once."""
        self._pauses += 1
        is_over = False

        def end() -> None:
            nonlocal is_over
            if not is_over:
                is_over = True
                self._pauses -= 1
                if not self._pauses:
                    self._go_on()

        return end

    def hold(self, task: "Task", turn: int, value: Any) -> None:
        """Keep a task until the pause is over."""
        self._held.append((task, turn, value))

    def _go_on(self) -> None:
        for held in self._held:
            self._scheduler.wake(*held)
        self._held.clear()

    def kill(self) -> None:
        """End all its tasks where they are."""
        if self.is_alive:
            self.end()
            for mourner in self.mourners:
                mourner()

    def end(self) -> None:
        """Be gone, as a process that has returned: tasks that are left are cut off."""
        self.is_alive = False
        for task in self.tasks:
            self._scheduler.wake(task, task.turn)

    def fail(self, words: str, error: Exception) -> None:
        """Say that something has failed which must not."""
        self._scheduler.failures.append((self, words, error))

    def spawn(self, work: Callable[[], Any], name: str) -> "Task":
        """A further task of it, that begins when the others wait."""
        task = Task(self, work, name, self._scheduler.hub)
        self.tasks.append(task)
        self._scheduler.wake(task, task.turn)
        return task


class Task:
    """A thread of a host.

    Attributes:
        host: where it runs.
        name: for the log.
        turn: counts what it has waited for, so that what comes too late wakes nobody.
        is_over: whether it has returned or raised.
        joining: tasks that wait for its end, and their turns.
    """

    def __init__(self, host: Host, work: Callable[[], Any], name: str, hub: greenlet) -> None:
        self.host = host
        self.name = name
        self.turn = 0
        self.is_over = False
        self.joining: list[tuple[Task, int]] = []
        self._work = work
        self.greenlet = greenlet(self._run, parent=hub)

    def _run(self, _: Any) -> None:
        try:
            if self.host.is_alive:
                self._work()
        except Killed:
            pass
        except Exception as error:
            self.host.fail(f"{self.name}: {error!r}", error)
        self.is_over = True
        self.host.tasks.remove(self)


class Scheduler:
    """Runs tasks, and what else is to happen at some time.

    Attributes:
        now: seconds since the beginning.
        events: how many things have happened.
        current: the task that runs; None between tasks.
        hub: the greenlet in which :meth:`run` runs.
        failures: what has failed that must not: its host, in words, and the error.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self.current: Task | None = None
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._queued = 0
        self.hub = getcurrent()
        self.failures: list[tuple[Host, str, Exception]] = []

    def at(self, moment: float, do: Callable[..., None], *arguments: Any) -> None:
        """Do something at a moment; what is for the same moment happens in the order given."""
        self._queued += 1
        heappush(self._queue, (moment, self._queued, do, arguments))

    def run(self) -> None:
        """Go on until nothing is left to happen.

        Raises:
            StuckError: there is no end to it.
        """
        queue = self._queue
        while queue:
            self.now, _, do, arguments = heappop(queue)
            self.events += 1
            if self.events > _MOST_EVENTS:
                raise StuckError(f"no end after {self.events:,} events, {self.now:,.0f} s")
            do(*arguments)

    def wake(self, task: Task, turn: int, value: Any = None) -> None:
        """Let a task go on, now, if it still waits for that."""
        self.at(self.now, self.resume, task, turn, value)

    def resume(self, task: Task, turn: int, value: Any = None) -> None:
        """Switch to a task that waits, as soon as its host is not paused."""
        if task.turn != turn or task.is_over:
            return
        if task.host.is_paused and task.host.is_alive:
            task.host.hold(task, turn, value)
            return
        task.turn += 1
        before, self.current = self.current, task
        task.greenlet.switch(value)
        self.current = before
        if task.is_over:
            for other, waiting in task.joining:
                self.wake(other, waiting)

    def wait(self) -> Any:
        """Wait to be woken; returns the value that the task was woken with.

        Raises:
            Killed: its host is dead.
        """
        task = self.current
        assert task is not None, "nothing waits outside of tasks"
        if not task.host.is_alive:
            raise Killed
        value = self.hub.switch()
        if not task.host.is_alive:
            raise Killed
        return value

    def sleep(self, seconds: float) -> None:
        """Wait for a while."""
        task = self.task
        self.at(self.now + max(seconds, 0.0), self.resume, task, task.turn)
        self.wait()

    def join(self, task: Task, seconds: float | None = None) -> bool:
        """Wait for the end of a task; returns whether it has come in time."""
        if not task.is_over:
            task.joining.append((self.task, self.task.turn))
            if seconds is not None:
                self.at(self.now + seconds, self.resume, self.task, self.task.turn)
            self.wait()
        return task.is_over

    @property
    def task(self) -> Task:
        """The task that runs.

        Raises:
            RuntimeError: none does.
        """
        if self.current is None:
            raise RuntimeError("this is for tasks of a simulation")
        return self.current
