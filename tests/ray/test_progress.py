"""Progress: what workers report to the tracker, shown now and then for as long as the run."""

import io
import re
import threading
import time
from typing import cast

import pytest
import ray
from ray.actor import ActorHandle

from job.cluster.metrics import StageTimer
from job.cluster.progress import Style, watching
from job.cluster.tracker import RunTracker, start_tracker

pytestmark = pytest.mark.usefixtures("ray_session")


def test_a_stage_timer_reports_what_is_new_and_travels_to_workers() -> None:
    tracker = start_tracker()
    timer = StageTimer(tracker)

    @ray.remote(num_cpus=0.1)
    def work(timer: StageTimer) -> None:
        for _ in range(2):
            with timer.stage("decode", 3):
                time.sleep(0.01)
            timer.report()

    ray.get([work.remote(timer) for _ in range(2)])
    deadline = time.monotonic() + 20  # workers do not wait until their reports have arrived
    total = ray.get(tracker.snapshot.remote())
    while total.images["decode"] < 12 and time.monotonic() < deadline:
        time.sleep(0.05)
        total = ray.get(tracker.snapshot.remote())
    assert total.images == {"decode": 12}
    assert 0.04 <= total.seconds["decode"] < 5


def watched(style: Style, every: float, seconds: float, stream: io.StringIO) -> str:
    tracker = start_tracker()
    tracker.commit.remote(7, {"empty": 1})
    ray.get(tracker.snapshot.remote())
    with watching(tracker, 10, style, stream, every):
        time.sleep(seconds)
    return stream.getvalue()


def test_lines_come_now_and_then_and_stop_with_the_run() -> None:
    stream = io.StringIO()
    lines = watched("lines", 0.1, 0.75, stream).splitlines()
    assert 2 <= len(lines) <= 8
    for text in lines:
        assert re.fullmatch(r"8 of 10 images \(80 %\), [\d.]+ images/s, 0 s left, 1 error", text)
    time.sleep(0.3)
    assert stream.getvalue().splitlines() == lines


def test_what_workers_have_to_say_is_shown_once() -> None:
    tracker = start_tracker()
    for _ in range(3):
        StageTimer(tracker).note("the model runs unfolded")
    assert ray.get(tracker.snapshot.remote()).notes == ["the model runs unfolded"]
    stream = io.StringIO()
    with watching(tracker, 10, "lines", stream, 0.1):
        time.sleep(0.6)
    assert stream.getvalue().count("the model runs unfolded\n") == 1


def test_a_stream_that_is_no_terminal_gets_lines_and_none_gets_nothing() -> None:
    assert watched("auto", 0.1, 0.4, io.StringIO()).startswith("8 of 10 images")
    assert watched("none", 0.05, 0.2, io.StringIO()) == ""


def test_a_terminal_gets_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = watched("auto", 0.1, 0.5, Terminal())
    assert "80%" in shown
    assert "1 errors" in shown or "1 error" in shown
    assert "8 of 10" not in shown


def test_watching_survives_a_tracker_that_has_died() -> None:
    tracker = start_tracker()
    ray.get(tracker.snapshot.remote())
    with watching(tracker, 10, "lines", io.StringIO(), 0.05):
        ray.kill(cast(ActorHandle[RunTracker], tracker))
        time.sleep(0.3)
        assert [thread for thread in threading.enumerate() if thread.name == "progress"]
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_watching_ends_with_a_run_that_fails() -> None:
    with pytest.raises(KeyError), watching(start_tracker(), 10, "lines", io.StringIO(), 0.05):
        raise KeyError
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]
