"""Waiting: what a run lacks is told in words, and no wait is longer than it may be."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import ray
from ray.data import DataContext

from job.cluster import waiting
from job.cluster.resources import Cluster, Node, ResourcePlan, plan_resources
from job.cluster.tracker import Snapshot
from job.cluster.waiting import WorkersWatch
from job.config import JobConfig
from job.errors import JobError
from tests.end_to_end.processes import wait_for

LAPTOP = Node(2)

pytestmark = pytest.mark.usefixtures("ray_session")


@dataclass
class Pool:
    """A pool of predictors, as Ray Data has it."""

    alive: int
    size: int

    def num_alive_actors(self) -> int:
        return self.alive

    def current_size(self) -> int:
        return self.size


@dataclass
class Executor:
    """What Ray Data's callbacks are given: one step with a pool, and one without."""

    pool: Pool
    _topology: list[Any] = field(init=False)

    def __post_init__(self) -> None:
        class Step:
            def __init__(self, pools: list[Pool]) -> None:
                self.get_autoscaling_actor_pools = lambda: pools

        self._topology = [Step([]), Step([self.pool])]


def resources(node: Node = LAPTOP) -> ResourcePlan:
    return plan_resources(JobConfig(input="in", output="out"), Cluster((node,)), 1000)


def watching(
    timeout: float, asked: ResourcePlan | None = None, snapshot: Snapshot | None = None
) -> WorkersWatch:
    return WorkersWatch(asked or resources(), timeout, lambda: snapshot or Snapshot())


def looking(alive: int, size: int, asked: ResourcePlan | None = None) -> WorkersWatch:
    watch = watching(60, asked)
    watch.look(Executor(Pool(alive, size)))
    return watch


@contextmanager
def cpus_held(count: int) -> Iterator[None]:
    """Within the context, somebody else holds so many CPUs."""

    class Holder:
        def here(self) -> None: ...

    holders: list[Any] = [ray.remote(num_cpus=1)(Holder).remote() for _ in range(count)]
    ray.get([holder.here.remote() for holder in holders])
    try:
        yield
    finally:
        for holder in holders:
            ray.kill(holder)


def test_until_a_worker_is_here_it_says_what_it_asks_for_and_what_is_free() -> None:
    with cpus_held(2):
        watch = looking(alive=0, size=2)
        said = watch.describe(Snapshot())
    assert said == "waiting for workers: 0 of 2 here (1 CPU each); free now: 0 of 2 CPUs"


def test_where_there_is_room_a_worker_has_time_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_for(lambda: ray.available_resources().get("CPU") == 2, 30, "the CPUs")
    watch = looking(alive=0, size=2)
    assert watch.describe(Snapshot()) == "starting up"
    monkeypatch.setattr(waiting, "_TO_START", 0.0)
    assert watch.describe(Snapshot()).startswith("waiting for workers: 0 of 2 here")


def test_a_worker_that_is_here_loads_the_model_first() -> None:
    assert looking(alive=0, size=2).describe(Snapshot(arrived=1)) == "1 predictor loading the model"


def test_some_that_are_still_missing_are_told() -> None:
    watch = looking(alive=1, size=2)
    assert watch.describe(Snapshot(arrived=1, begun=True)) == (
        "starting up, 1 of 2 predictors here"
    )
    assert watch.describe(Snapshot(arrived=2, begun=True, maps=7)) == "1 of 2 predictors here"
    assert looking(alive=2, size=2).describe(Snapshot(arrived=2, begun=True, maps=7)) == ""


def test_predictors_that_wait_for_cpus_to_load_images_with_say_so() -> None:
    gpus = resources(Node(2, 2))
    with cpus_held(2):
        said = looking(2, 2, gpus).describe(Snapshot(arrived=2))
        begun = looking(2, 2, gpus).describe(Snapshot(arrived=2, begun=True))
    assert said.startswith("waiting for CPUs: tasks that load images ask for 0.5 CPUs each; free")
    assert begun == "starting up"


def test_predictors_that_hold_gpus_do_not_wait_for_cpus_for_ever() -> None:
    watch = watching(0.2, resources(Node(2, 2)))
    watch.look(Executor(Pool(2, 2)))
    time.sleep(0.3)
    with pytest.raises(JobError, match=r"no CPU came within 0\.2 s .* ask for 0\.5 CPUs each"):
        watch.look(Executor(Pool(2, 2)))


def test_workers_that_all_went_away_are_waited_for_again() -> None:
    watch = looking(alive=2, size=2)
    watch.look(Executor(Pool(0, 2)))
    for lost in (Snapshot(arrived=2, begun=True, maps=7), Snapshot(arrived=2, begun=True)):
        assert watch.describe(lost).startswith("waiting for workers: 0 of 2 here")


def test_loading_the_model_is_no_waiting() -> None:
    loading = Snapshot(arrived=1)
    watch = watching(0.2, snapshot=loading)
    for _ in range(3):
        time.sleep(0.15)
        watch.look(Executor(Pool(0, 2)))
    assert watch.describe(loading) == "1 predictor loading the model"


def test_a_tracker_that_does_not_answer_ends_no_run() -> None:
    def busy() -> Snapshot:
        raise ray.exceptions.GetTimeoutError

    watch = WorkersWatch(resources(), 0.1, busy)
    watch.look(Executor(Pool(0, 2)))
    time.sleep(0.2)
    watch.look(Executor(Pool(0, 2)))
    assert watch.describe(Snapshot())


def test_a_wait_without_any_worker_ends_in_a_sentence() -> None:
    watch = watching(0.2)
    watch.look(Executor(Pool(0, 2)))
    time.sleep(0.3)
    with pytest.raises(JobError, match=r"came within 0\.2 s \(--worker-timeout\): 0 of 2"):
        watch.look(Executor(Pool(0, 2)))


def test_a_worker_that_is_here_and_one_that_is_no_longer_needed_end_no_wait() -> None:
    watch = watching(0.2)
    for alive, size in ((1, 2), (1, 2), (0, 0)):
        time.sleep(0.15)
        watch.look(Executor(Pool(alive, size)))
    assert watch.describe(Snapshot(arrived=1, begun=True, maps=7)) == (
        "the last maps are being written"
    )


def test_ray_data_ends_what_waits_too_long_and_has_its_settings_back_afterwards() -> None:
    before = list(DataContext.get_current().custom_execution_callback_classes)

    class Never:
        def __call__(self, batch: Any) -> Any:
            return batch

    watch = watching(3)
    with watch.over_dataset():
        pool = ray.data.ActorPoolStrategy(size=1)
        waiting = ray.data.range(4).map_batches(Never, compute=pool, num_cpus=100)
        with pytest.raises(Exception, match="no worker came within 3 s"):
            waiting.materialize()
    assert DataContext.get_current().custom_execution_callback_classes == before


def test_room_for_a_worker_is_waited_for_aloud_and_not_for_ever() -> None:
    said: list[str] = []
    with cpus_held(2), pytest.raises(JobError, match="no worker came within 1 s"):
        watching(1).wait_for_place(said.append, every=0.3)
    assert said[0].startswith("waiting for workers: 0 of 2 here (1 CPU each)")
    said.clear()
    watching(60).wait_for_place(said.append)
    assert said == []
