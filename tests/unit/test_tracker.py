"""The tracker: what workers report is added up, and its handle is typed as the actor is."""

import inspect
from collections import Counter
from typing import get_args, get_type_hints

from job.cluster.tracker import RunTracker, Tracker


def test_the_type_of_the_handle_has_every_method_of_the_actor_with_its_types() -> None:
    described = get_type_hints(Tracker)
    methods = dict(inspect.getmembers(RunTracker, inspect.isfunction))
    assert set(described) == {name for name in methods if not name.startswith("_")}
    for name, remote_method in described.items():
        parameters, answer = get_args(remote_method)
        hints = get_type_hints(methods[name])
        assert hints.pop("return") == answer, name
        assert tuple(hints.values()) == parameters, name


def test_what_is_committed_by_now_is_what_was_told_last() -> None:
    tracker = RunTracker()
    assert tracker.snapshot().done == 0
    tracker.commit(8, {"empty": 1})
    first = tracker.snapshot()
    assert (first.maps, first.errors, first.at_first, first.steady) == (8, Counter(empty=1), 9, 0)
    tracker.commit(19, {"empty": 1, "truncated": 0})
    total = tracker.snapshot()
    assert (total.maps, total.errors, total.done) == (19, Counter(empty=1), 20)
    assert (total.at_first, total.first_map) == (9, first.first_map)
    assert total.steady > 0


def test_time_of_all_workers_adds_up() -> None:
    tracker = RunTracker()
    tracker.add({"fetch": 1.5}, {"fetch": 8}, 0)
    tracker.add({"fetch": 0.5, "decode": 1.0}, {"fetch": 2, "decode": 2}, 0)
    total = tracker.snapshot()
    assert total.seconds == {"fetch": 2.0, "decode": 1.0}
    assert total.images == {"fetch": 10, "decode": 2}
