"""Requests: how one goes from a task to the storage and back, and what may come between."""

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any

from tests.simulation.faults import Fault, Progress
from tests.simulation.scheduler import Host, Killed, Scheduler

# Seconds after which clients give a request up, and for which it may still be on its way then.
_GIVEN_UP_AFTER = (2.0, 60.0)
_LATEST = 60.0
# Seconds that a jam lasts at most.
_LONGEST_JAM = 30.0
_TIMED_OUT = object()


class _RefusedError(Exception):
    """The answer is an error of the storage's own."""


@dataclass
class Client:
    """A host that makes requests.

    Attributes:
        progress: how far it has come, with the faults that befall it.
        rival: of the run that some faults wait for; None where no run comes after.
        tell: is told of each fault.
        cut: while the host is cut off from the storage, what holds its requests up.
    """

    progress: Progress
    rival: Progress | None
    tell: Callable[[Fault], None]
    cut: "_Cut | None" = None


class Requests:
    """Requests of all hosts to one storage.

    Each is two waits of the task that makes it: until it takes effect, and until its answer comes.

    Args:
        scheduler: runs the tasks.
        random: how long they take.
        quickest: seconds that a request needs to take effect, or an answer to come, at least.
        slowest: at most.
        jams: of all requests and answers how many take longer than that, up to half a minute.

    Attributes:
        scheduler: as given.
        clients: what there is to know of each host that makes any.
        made: how many requests.
        log: time, host and words of each request and each fault.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        random: Random,
        *,
        quickest: float,
        slowest: float,
        jams: float,
    ) -> None:
        self.scheduler = scheduler
        self.clients: dict[Host, Client] = {}
        self.made = 0
        self.log: list[tuple[float, str, str]] = []
        self._random = random
        self._quickest = quickest
        self._range = slowest / quickest
        self._jams = jams

    def make(
        self,
        operation: str,
        path: str,
        effect: Callable[..., Any],
        begin: Callable[[], Any] | None = None,
    ) -> Any:
        """Make a request, again when its client would, and return the answer.

        Args:
            operation: what it does.
            path: to what, from OUTPUT on.
            effect: what becomes of it; what it returns or raises is the answer.
            begin: what it does first, where it takes time; ``effect`` gets what that returns.

        Raises:
            Killed: the host was killed.
            OSError: a fault, or what the effect has raised.
        """
        host = self.scheduler.task.host
        client = self.clients[host]
        while True:
            self.made += 1
            request = _Request(self, host, f"{operation} {path}", effect, begin)
            fault = client.progress.count(operation, path)
            if fault is not None:
                self.note(host, f"{request.what}: {fault}")
                client.tell(fault)
                self._disturb(request, fault, client)
            if client.cut is not None and request.hold is None:
                request.hold_up(client.cut.hold)
            answer = request.send()
            if answer is _TIMED_OUT:
                continue
            if isinstance(answer, _RefusedError):
                if fault is not None and fault.surfaces:
                    raise OSError(errno.EIO, "the storage has answered with an error", path)
                self.scheduler.sleep(self._random.uniform(0.2, 2.0))
                continue
            if isinstance(answer, Exception):
                raise answer
            return answer

    def _disturb(self, request: "_Request", fault: Fault, client: Client) -> None:
        host, kind = request.host, fault.kind
        until_over = partial(self.later, client, fault)
        if kind == "killed before":
            host.kill()
            raise Killed
        if kind == "killed after":
            request.then = host.kill
        elif kind == "killed midway":
            request.hold_up(until_over)
            self.scheduler.at(self.scheduler.now, host.kill)
        elif kind == "paused before":
            until_over(host.pause())
            self.scheduler.sleep(0.0)
        elif kind == "paused after":
            request.then = lambda: until_over(host.pause())
        elif kind == "cut off":
            cut = client.cut = _Cut()

            def reconnect() -> None:
                client.cut = None
                cut.end()

            until_over(reconnect)
        elif kind == "slow before":
            request.hold_up(until_over)
        elif kind == "slow after":
            request.hold_up(until_over, "answer")
        elif kind == "error before":
            request.is_refused = True
        elif kind == "error after":
            request.answer = _RefusedError()
        elif kind == "zombie":
            request.given_up_after = self._random.uniform(*_GIVEN_UP_AFTER)
            seconds = request.given_up_after + self._random.uniform(0.0, _LATEST)
            request.hold_up(partial(self.later, client, replace(fault, seconds=seconds)))

    def later(self, client: Client, fault: Fault, do: Callable[[], None]) -> None:
        """Do something, once, when a fault is over that befalls a host."""
        is_done = False

        def once() -> None:
            nonlocal is_done
            if not is_done:
                is_done = True
                do()

        self.scheduler.at(self.scheduler.now + fault.seconds, once)
        if fault.until is not None and client.rival is not None:
            client.rival.when(
                fault.until, lambda: self.scheduler.at(self.scheduler.now + self.latency(), once)
            )

    def latency(self) -> float:
        """Seconds that a request, or an answer, is on its way."""
        if self._random.random() < self._jams:
            return self._random.uniform(0.0, _LONGEST_JAM)
        return self._quickest * self._range ** self._random.random()

    def toss(self) -> bool:
        """One of two things, at random."""
        return self._random.random() < 0.5

    def note(self, host: Host, words: str) -> None:
        """Write to the log."""
        self.log.append((self.scheduler.now, host.name, words))


class _Cut:
    """Between a host and the storage: what is sent meanwhile arrives when it is over."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []
        self._is_over = False

    def hold(self, go: Callable[[], None]) -> None:
        if self._is_over:
            go()
        else:
            self._waiting.append(go)

    def end(self) -> None:
        self._is_over = True
        for go in self._waiting:
            go()


class _Request:
    """A request on its way.

    Attributes:
        host: that makes it.
        what: in words.
        begin: see :meth:`Requests.make`.
        hold: what holds it up; None for nothing.
        given_up_after: seconds after which its client waits no longer; None for any.
        is_refused: whether the storage does not do it.
        answer: in place of its own.
        then: what happens as soon as it has taken effect.
    """

    def __init__(
        self,
        requests: Requests,
        host: Host,
        what: str,
        effect: Callable[..., Any],
        begin: Callable[[], Any] | None,
    ) -> None:
        self.host = host
        self.what = what
        self.begin = begin
        self.hold: Callable[[Callable[[], None]], None] | None = None
        self.given_up_after: float | None = None
        self.is_refused = False
        self.answer: Exception | None = None
        self.then: Callable[[], None] | None = None
        self._held_at = "arrival"
        self._requests = requests
        self._effect = effect
        self._task = requests.scheduler.task
        self._turn = -1

    def hold_up(self, hold: Callable[[Callable[[], None]], None], stage: str = "") -> None:
        """Have it held up before a stage.

        Args:
            hold: is given what to go on with.
            stage: ``answer``; nothing for before it takes effect: a copy before it begins or ends.
        """
        ends = self.begin is not None and self._requests.toss()
        self.hold, self._held_at = hold, stage or ("landing" if ends else "arrival")

    def send(self) -> Any:
        """Send it; returns the answer, an exception as well."""
        scheduler = self._requests.scheduler
        self._turn = self._task.turn
        self._go_on("arrival", self._arrive)
        if self.given_up_after is not None:
            moment = scheduler.now + self.given_up_after
            scheduler.at(moment, scheduler.resume, self._task, self._turn, _TIMED_OUT)
        return scheduler.wait()

    def _go_on(self, stage: str, do: Callable[..., None], *arguments: Any) -> None:
        """Come to the next stage, after a while."""
        requests, scheduler = self._requests, self._requests.scheduler

        def go() -> None:
            scheduler.at(scheduler.now + requests.latency(), do, *arguments)

        if self.hold is not None and stage == self._held_at:
            self.hold(go)
        else:
            go()

    def _arrive(self) -> None:
        is_sent = self.host.is_alive or self.hold is not None
        if not is_sent and self._requests.toss():  # it is lost with the host
            self._requests.note(self.host, f"{self.what}: lost")
        elif self.is_refused:
            self._answer(_RefusedError())
        elif self.begin is None:
            self._take_effect()
        else:
            try:
                data = self.begin()
            except OSError as error:
                self._answer(error)
            else:
                self._go_on("landing", self._take_effect, data)

    def _take_effect(self, *data: Any) -> None:
        self._requests.note(self.host, self.what)
        try:
            result = self._effect(*data)
        except OSError as error:
            result = error
        if self.then is not None:
            self.then()
        self._answer(self.answer or result)

    def _answer(self, answer: Any) -> None:
        self._go_on("answer", self._requests.scheduler.resume, self._task, self._turn, answer)
