"""Stand-ins: what the code under test takes for time, threads and chance, on a scheduler's clock.

They take the places of the modules' own names (:func:`in_virtual_time`); the code stays as it is.
"""

import contextlib
import queue
import random
import secrets
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from time import struct_time
from typing import Any
from unittest.mock import patch

from job.outputs import holders
from tests.simulation import tables
from tests.simulation.scheduler import Host, Scheduler, Task

# Packages whose modules get the stand-ins.
_UNDER_TEST = ("job.outputs.", "job.inputs.", "job.results.", "job.storage.at_once")
# 2026-01-01; the clocks of hosts are ahead of it by their skew.
_BEGINNING = 1_767_225_600.0


class World:
    """What the stand-ins belong to, one at a time.

    Attributes:
        scheduler: runs the tasks.
        chance: gives names.
        hosts: all there have been, by their machines and numbers.
    """

    scheduler: Scheduler
    chance: random.Random
    hosts: dict[tuple[str, int], Host]


world = World()


def enter(scheduler: Scheduler, chance: random.Random) -> None:
    """From now on the stand-ins are those of another simulation."""
    world.scheduler, world.chance, world.hosts = scheduler, chance, {}


def make_host(name: str, machine: str, skew: float) -> Host:
    """A new process on a machine."""
    number = len(world.hosts) + 1
    host = world.hosts[machine, number] = Host(world.scheduler, name, machine, number, skew)
    return host


class _Time:
    """Of ``time`` what runs use."""

    @staticmethod
    def monotonic() -> float:
        return world.scheduler.now

    perf_counter = monotonic

    @staticmethod
    def time() -> float:
        return _BEGINNING + world.scheduler.now + world.scheduler.task.host.skew

    @staticmethod
    def sleep(seconds: float) -> None:
        world.scheduler.sleep(seconds)

    @classmethod
    def gmtime(cls, seconds: float | None = None) -> struct_time:
        return time.gmtime(cls.time() if seconds is None else seconds)

    @classmethod
    def strftime(cls, form: str, moment: struct_time | None = None) -> str:
        return time.strftime(form, cls.gmtime() if moment is None else moment)


class _Lock:
    """Held by one task at a time; others wait in the order in which they came."""

    def __init__(self) -> None:
        self._is_held = False
        self._waiting: deque[tuple[Task, int]] = deque()

    def acquire(self, blocking: bool = True) -> bool:
        if self._is_held:
            if not blocking:
                return False
            task = world.scheduler.task
            self._waiting.append((task, task.turn))
            world.scheduler.wait()  # it is handed over: held all the while
        self._is_held = True
        return True

    def release(self) -> None:
        if self._waiting:
            world.scheduler.wake(*self._waiting.popleft())
        else:
            self._is_held = False

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *raised: object) -> None:
        self.release()


class _Event:
    def __init__(self) -> None:
        self._is_set = False
        self._waiting: list[tuple[Task, int]] = []

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        for task, turn in self._waiting:
            world.scheduler.wake(task, turn)
        self._waiting.clear()

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        if not self._is_set:
            scheduler, task = world.scheduler, world.scheduler.task
            self._waiting.append((task, task.turn))
            if timeout is not None:
                scheduler.at(scheduler.now + timeout, scheduler.resume, task, task.turn)
            scheduler.wait()
        return self._is_set


class _Thread:
    def __init__(
        self,
        target: Callable[..., Any],
        args: Iterable[Any] = (),
        name: str = "thread",
        daemon: bool | None = None,
    ) -> None:
        self.name = name
        self._work = lambda: target(*args)
        self._task: Task | None = None

    def start(self) -> None:
        self._task = world.scheduler.task.host.spawn(self._work, self.name)

    def join(self, timeout: float | None = None) -> None:
        assert self._task is not None
        world.scheduler.join(self._task, timeout)

    def is_alive(self) -> bool:
        return self._task is not None and not self._task.is_over


class _Threading:
    """Of ``threading`` what runs use."""

    Lock = _Lock
    Event = _Event
    Thread = _Thread

    @staticmethod
    def current_thread() -> object:
        return world.scheduler.task


class _Future:
    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._done = _Event()
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._result = self._work()
        except Exception as error:
            self._error = error
        self._done.set()

    def result(self, timeout: float | None = None) -> Any:
        self._done.wait(timeout)
        if self._error is not None:
            raise self._error
        return self._result


class _Pool:
    """A pool of threads: as many tasks of its host as there is work for, no more than allowed."""

    def __init__(self, max_workers: int = 32, thread_name_prefix: str = "pool") -> None:
        self._most = max_workers
        self._name = thread_name_prefix
        self._waiting: deque[_Future] = deque()
        self._workers: list[Task] = []
        self._at_work = 0

    def submit(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> _Future:
        future = _Future(lambda: work(*args, **kwargs))
        self._waiting.append(future)
        if self._at_work < self._most:
            self._at_work += 1
            self._workers.append(world.scheduler.task.host.spawn(self._work, self._name))
        return future

    def map(self, work: Callable[..., Any], *columns: Iterable[Any]) -> Iterator[Any]:
        futures = [self.submit(work, *row) for row in zip(*columns, strict=False)]
        return (future.result() for future in futures)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if cancel_futures:
            self._waiting.clear()
        for task in self._workers if wait else ():
            world.scheduler.join(task)

    def _work(self) -> None:
        while self._waiting:
            self._waiting.popleft().run()
        self._at_work -= 1

    def __enter__(self) -> "_Pool":
        return self

    def __exit__(self, *raised: object) -> None:
        self.shutdown()


class SimpleQueue:
    """What is put in is taken out in the same order, by whoever has waited longest."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._waiting: deque[tuple[Task, int]] = deque()

    def put(self, item: Any) -> None:
        self._items.append(item)
        if self._waiting:
            world.scheduler.wake(*self._waiting.popleft())

    def get(self) -> Any:
        while not self._items:
            task = world.scheduler.task
            self._waiting.append((task, task.turn))
            world.scheduler.wait()
        return self._items.popleft()

    def get_nowait(self) -> Any:
        if not self._items:
            raise queue.Empty
        return self._items.popleft()


class _Queue:
    """Of ``queue`` what runs use."""

    Empty = queue.Empty
    SimpleQueue = SimpleQueue


class _Secrets:
    @staticmethod
    def token_hex(size: int) -> str:
        return world.chance.randbytes(size).hex()


class _Uuid:
    @staticmethod
    def uuid4() -> uuid.UUID:
        return uuid.UUID(bytes=world.chance.randbytes(16), version=4)


def _describe_this_process() -> dict[str, Any]:
    host = world.scheduler.task.host
    return {"host": host.machine, "pid": host.pid}


def _is_visible(holder: Mapping[str, Any]) -> bool:
    return bool(holder.get("host") == world.scheduler.task.host.machine)


def _is_running(holder: Mapping[str, Any]) -> bool:
    return world.hosts[holder["host"], holder["pid"]].is_alive


# The names of modules that stand for the real thing in modules under test.
_STAND_INS: tuple[tuple[Any, Any], ...] = (
    (time, _Time),
    (threading, _Threading),
    (queue, _Queue),
    (secrets, _Secrets),
    (uuid, _Uuid),
    (ThreadPoolExecutor, _Pool),
)


_REPLACED = (
    (holders, "describe_this_process", _describe_this_process),
    (holders, "is_visible", _is_visible),
    (holders, "is_running", _is_running),
    *tables.REPLACED,
)


@contextlib.contextmanager
def in_place() -> Iterator[None]:
    """Within the context, the code under test has the stand-ins where it had the real ones."""
    with contextlib.ExitStack() as stack:
        for module, name, stand_in in _REPLACED:
            stack.enter_context(patch.object(module, name, stand_in))
        for module_name, module in list(sys.modules.items()):
            if module_name.startswith(_UNDER_TEST):
                for name, value in list(vars(module).items()):
                    for real, stand_in in _STAND_INS:
                        if value is real:
                            stack.enter_context(patch.object(module, name, stand_in))
        yield
