"""Guard: what kills or holds up a process is found, costs a row, and is not tried for ever."""

import os
import time
from collections.abc import Sequence

import pytest
import ray

from job.cluster.guard import DEATHS, Guard, StoppingError
from job.cluster.tracker import Tracker, start_tracker
from job.errors import ImageError

pytestmark = pytest.mark.usefixtures("ray_session")


@ray.remote(max_retries=20)
def guarded(tracker: Tracker, ids: list[int], deadly: set[int], slow: set[int]) -> list[str]:
    """A task like those of the job: some images end its process, some never end."""
    guard = Guard("decode", tracker, 1.0)

    def work(some: Sequence[int]) -> list[str]:
        outcomes = []
        for position in some:
            with guard.watching([ids[position]], f"image {ids[position]}"):
                if ids[position] in deadly:
                    os._exit(1)
                if ids[position] in slow:
                    time.sleep(60)
                outcomes.append(f"map {ids[position]}")
        return outcomes

    return [
        outcome.kind if isinstance(outcome, ImageError) else outcome
        for outcome in guard.over(ids, work)
    ]


def test_images_that_end_their_process_are_given_up_and_the_others_are_not() -> None:
    tracker = start_tracker()
    found = ray.get(guarded.remote(tracker, [1, 2, 3, 4, 5], {2, 5}, {4}), timeout=120)
    assert found == ["map 1", "crashed", "map 3", "timed_out", "crashed"]
    notes = ray.get(tracker.snapshot.remote()).notes
    assert notes == ["decode of image 4 took longer than 1 s: given up"]


def test_a_death_that_was_a_coincidence_costs_nothing() -> None:
    tracker = start_tracker()
    ids = [1, 2, 3]
    for _ in range(DEATHS + 1):  # as if so many nodes had been lost with this task on them
        ray.get(tracker.begin.remote("decode", ids))
    assert ray.get(guarded.remote(tracker, ids, set(), set())) == ["map 1", "map 2", "map 3"]
    assert ray.get(tracker.begin.remote("decode", ids))[0] == 0, "and is forgotten afterwards"


def test_nothing_new_begins_in_a_run_that_is_coming_to_an_end() -> None:
    tracker = start_tracker()
    ray.get(tracker.stop.remote())
    with pytest.raises(StoppingError):
        Guard("decode", tracker, stops=True).over([1], lambda some: list(some))
    # What has been decoded is predicted all the same.
    assert Guard("predict", tracker).over([1], lambda some: list(some)) == [0]


def test_an_actor_asks_as_long_as_it_may_meet_what_another_has_died_on() -> None:
    tracker = start_tracker()
    guard = Guard("predict", tracker, asks=2)
    ids = [1, 2]
    ray.get(tracker.begin.remote("predict", ids))
    assert guard.over([7], lambda some: ["map"]) == ["map"]
    assert guard.over(ids, lambda some: [len(some)] * len(some)) == [1, 1], "one at a time"
    ray.get(tracker.begin.remote("predict", ids))
    assert guard.over(ids, lambda some: [len(some)] * len(some)) == [2, 2], "no longer asked"
