"""Waiting: what a run has asked the cluster for and not got yet, said, and not for ever."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.data import DataContext

from job.cluster.autoscaling import describe_launches
from job.cluster.data_settings import data_settings
from job.cluster.ray_internals import ExecutionCallback, count_actors
from job.cluster.resources import ResourcePlan, describe_request
from job.cluster.tracker import Snapshot
from job.errors import JobError

_LOOK_EVERY = 1.0  # seconds
# Seconds that a predictor's process takes to start where there is room for it.
_TO_START = 30.0


class WorkersWatch:
    """Looks whether a run has workers, tells what it waits for, and ends a wait that is too long.

    Args:
        resources: what the run asks for.
        timeout: seconds without anybody at work after which the run ends.
        snapshot: asks the run's tracker what has been done.
    """

    def __init__(
        self, resources: ResourcePlan, timeout: float, snapshot: Callable[[], Snapshot]
    ) -> None:
        self._resources = resources
        self._timeout = timeout
        self._snapshot = snapshot
        self._running = self._missing = 0
        self._has_run = self._has_begun = False
        self._began = self._last_worked = time.monotonic()
        self._had_room = _has_room(resources)

    def look(self, executor: Any) -> None:
        """See how many predictors are up; called from Ray Data's own loop, which an error ends.

        Raises:
            JobError: nobody has been at work for too long.
        """
        self._running, asked = count_actors(executor)
        self._missing = asked - self._running
        self._has_run |= self._running > 0
        if self._works:
            self._last_worked = time.monotonic()
        elif self._is_overdue:
            self._end_unless_loading()

    @property
    def _works(self) -> bool:
        if not self._running:
            return not self._missing  # not begun yet, or all is handed out
        return self._has_begun or not self._resources.loads_apart

    @property
    def _is_overdue(self) -> bool:
        return time.monotonic() - self._last_worked > self._timeout

    def _end_unless_loading(self) -> None:
        try:
            snapshot = self._snapshot()
        except (ray.exceptions.RayError, TimeoutError):
            return  # the tracker is busy, or gone with Ray, which says so: asked again in a while
        self._has_begun |= snapshot.begun
        # A predictor counts as running from when its model is loaded.
        if self._works or (snapshot.arrived and not self._has_run):
            self._last_worked = time.monotonic()
            return
        raise JobError(
            f"no {'CPU' if self._running else 'worker'} came within {self._timeout:g} s"
            f" (--worker-timeout): {self._lacks(snapshot.arrived)}. What is committed stays; the"
            " same command goes on once the cluster has room"
        )

    def describe(self, snapshot: Snapshot) -> str:
        """What a run that has nothing done, or nobody at work, is waiting for; else nothing."""
        self._has_begun |= snapshot.begun
        if not self._running and not self._missing:
            return "the last maps are being written" if snapshot.done else "starting up"
        if not self._running:
            if snapshot.arrived and not self._has_run:
                return f"{_predictors(snapshot.arrived)} loading the model"
            is_early = time.monotonic() - self._began < _TO_START
            if self._had_room and is_early and not self._has_run:
                return "starting up"  # who holds what was free may well be this run
            return f"waiting for workers: {self._lacks(snapshot.arrived)}"
        load_cpus = self._resources.load_cpus
        if not self._works and ray.available_resources().get("CPU", 0.0) < load_cpus:
            return f"waiting for CPUs: {self._lacks(snapshot.arrived)}"
        said = [] if snapshot.done else ["starting up"]
        if self._missing:
            said.append(f"{self._running} of {_predictors(self._running + self._missing)} here")
        return ", ".join(said)

    def _lacks(self, arrived: int) -> str:
        if self._running:
            each = describe_request(self._resources.load_cpus, 0)
            return f"tasks that load images ask for {each} each; {describe_free()}"
        return self._asked(0 if self._has_run else arrived)

    def _asked(self, here: int) -> str:
        resources = self._resources
        return f"{here} of {resources.workers} here ({resources.each} each); {describe_free()}"

    @contextmanager
    def over_dataset(self) -> Iterator[None]:
        """Within the context, Ray Data lets this look at what it executes."""
        watch = self

        class Looking(ExecutionCallback):
            _next = 0.0

            def on_execution_step(self, executor: Any) -> None:
                if time.monotonic() >= self._next:  # a step takes a tenth of a second
                    self._next = time.monotonic() + _LOOK_EVERY
                    watch.look(executor)

        registered = DataContext.get_current().custom_execution_callback_classes
        with data_settings(
            custom_execution_callback_classes=[*registered, Looking],
            # Ray's own limit would end a run that waits for a node, or another job, unexplained.
            execution_no_progress_timeout_s=-1,
            # A spot node may vanish while its predictor loads the model.
            max_consecutive_actor_init_deaths=8,
        ):
            yield

    def wait_for_place(self, say: Callable[[str], None], every: float = 5.0) -> None:
        """Wait until the cluster has room for a worker, telling what is waited for.

        Raises:
            JobError: it had none in time.
        """
        self._last_worked, self._missing = time.monotonic(), self._resources.workers
        worker = ray.remote(_nothing).options(
            num_cpus=self._resources.cpus_per_worker, num_gpus=self._resources.gpus_per_worker
        )
        placed = worker.remote()
        while not ray.wait([placed], timeout=every)[0]:
            if not self._had_room:
                say(f"waiting for workers: {self._asked(0)}")
            if self._is_overdue:
                ray.cancel(placed)
                self._end_unless_loading()
        self._missing = 0


def _nothing() -> None:
    """What a worker is asked for to see whether it is there."""


def _has_room(resources: ResourcePlan) -> bool:
    """Whether a predictor fits into what nobody holds now."""
    left = ray.available_resources()
    asked = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    return all(left.get(kind, 0.0) >= amount for kind, amount in asked.items())


def describe_free() -> str:
    """What of the cluster nobody holds now, in words; and what its autoscaler is doing."""
    has, left = ray.cluster_resources(), ray.available_resources()
    kinds = [kind for kind in ("GPU", "CPU") if has.get(kind)]
    parts = [
        f"{left.get(kind, 0):g} of {has[kind]:g} {kind}{'' if has[kind] == 1 else 's'}"
        for kind in kinds
    ]
    now = f"free now: {', '.join(parts)}" if parts else "no node that takes tasks is up"
    coming = describe_launches()
    return f"{now}; {coming}" if coming else now


def _predictors(count: int) -> str:
    return f"{count} predictor{'s' if count != 1 else ''}"
