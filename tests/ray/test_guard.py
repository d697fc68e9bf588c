"""Guard: what kills or holds up a process is found, costs a row, and is not tried for ever."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import pytest
import ray

from job.cluster.guard import DEATHS, Guard, Ledger, StoppingError
from job.cluster.progress import start_tracker
from job.errors import ImageError

pytestmark = pytest.mark.usefixtures("ray_session")


def test_what_was_begun_and_never_ended_is_remembered() -> None:
    ledger = Ledger()
    assert ledger.begin("decode", [1, 2]) == (0, [])
    assert ledger.begin("decode", [1, 2]) == (1, [])
    assert ledger.begin("decode", [2, 3]) == (0, []), "other images"
    assert ledger.begin("predict", [1, 2]) == (0, []), "another stage"
    ledger.end("decode", [1, 2])
    assert ledger.begin("decode", [1, 2]) == (0, [])


def test_only_an_image_that_was_alone_is_blamed_for_a_hang() -> None:
    ledger = Ledger()
    ledger.hang("predict", [1, 2])
    assert ledger.begin("predict", [1, 2]) == (0, [])
    ledger.hang("predict", [2])
    assert ledger.begin("predict", [1, 2]) == (1, [2])
    assert ledger.begin("decode", [2]) == (0, [])


def test_without_a_tally_there_is_nothing_between_the_images_and_the_work() -> None:
    guard = Guard("decode")
    assert guard.over([7, 8], lambda some: [10 * position for position in some]) == [0, 10]
    with guard.watching([7], "an image"):
        pass


@ray.remote(max_retries=20)
def guarded(tracker: object, ids: list[int], deadly: set[int], slow: set[int]) -> list[str]:
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


def test_code_that_never_lets_go_of_the_interpreter_is_ended_as_well() -> None:
    script = (
        "import ctypes, time; from job.cluster import guard; guard._LAST_RESORT = 1;"
        "watch = guard._Watch(time.monotonic() + 0.5, guard.Guard('decode'), [1], 'an image');"
        "guard._watchdog.add(watch); time.sleep(0.4); ctypes.PyDLL(None).sleep(60)"
    )
    started = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert time.monotonic() - started < 30
    assert ended.returncode != 0
    assert "Timeout" in ended.stderr


def test_an_image_that_is_done_alone_has_no_other_thread_beside_it() -> None:
    """Else the death of the process, by the other thread's image, would be blamed on it."""
    from job.cluster.guard import _company

    at_work: list[str] = []
    seen: list[list[str]] = []
    begun = threading.Event()

    def together() -> None:
        with _company.shared():
            at_work.append("together")
            begun.set()
            time.sleep(0.2)
            at_work.remove("together")

    def alone() -> None:
        begun.wait()
        with _company.alone():
            seen.append(list(at_work))
            at_work.append("alone")
            time.sleep(0.2)
            at_work.remove("alone")

    def late() -> None:
        begun.wait()
        time.sleep(0.1)  # while the one who wants to be alone still waits
        with _company.shared():
            seen.append(list(at_work))

    threads = [threading.Thread(target=one) for one in (together, alone, alone, late)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert seen == [[], [], []]
