"""Progress: one line now and then, of figures that hold when tasks are retried."""

import io
import re
import threading
import time
from collections import Counter

import pytest
import ray

from job.cluster.metrics import StageTimer
from job.cluster.progress import RunTracker, Snapshot, duration, line, start_tracker, watching


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (42.2, "42 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (5 * 3600 + 7 * 60 + 29, "5 h 07 min"),
        (123 * 3600, "123 h 00 min"),
    ],
)
def test_durations_read_as_a_person_says_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("snapshot", "remaining", "elapsed", "text"),
    [
        (Snapshot(), 2000, 3.0, "0 of 2,000 images (0 %), starting up"),
        (Snapshot(), 2000, 0.0, "0 of 2,000 images (0 %), starting up"),
        (Snapshot(maps=500), 2000, 100.0, "500 of 2,000 images (25 %), 5.0 images/s, "),
        (Snapshot(maps=500), 2000, 100.0, "5 min 00 s left"),
        (Snapshot(maps=520, at_first=20, under_way=40.0), 2020, 100.0, "12.5 images/s, 2 min 00 s"),
        (Snapshot(maps=40, at_first=20, under_way=0.1), 2000, 10.0, "4.0 images/s, 8 min 10 s"),
        (Snapshot(maps=40, at_first=20, under_way=200.0), 2000, 210.0, "0.1 images/s, 5 h 26 min"),
        (Snapshot(maps=499, errors=Counter(empty=1)), 500, 10.0, "500 of 500 images (100 %)"),
        (Snapshot(maps=499, errors=Counter(empty=1)), 500, 10.0, "0 s left, 1 error"),
        (Snapshot(errors=Counter(empty=1, cut=1999)), 9999, 1.0, ", 2,000 errors"),
        (Snapshot(maps=1999), 2000, 1.0, "1,999 of 2,000 images (99 %)"),
    ],
)
def test_a_line_says_how_far_how_fast_how_long_and_what_failed(
    snapshot: Snapshot, remaining: int, elapsed: float, text: str
) -> None:
    found = line(snapshot, remaining, elapsed)
    assert text in found
    assert "\n" not in found


def test_a_line_without_errors_does_not_speak_of_them() -> None:
    assert "error" not in line(Snapshot(maps=3), 10, 1.0)


def test_nothing_to_do_is_all_done() -> None:
    assert line(Snapshot(), 0, 0.0).startswith("0 of 0 images (100 %)")


pytestmark = pytest.mark.usefixtures("ray_session")


def test_a_retried_task_counts_once() -> None:
    tracker = start_tracker()
    tracker.commit.remote(0, 8, {"empty": 2})
    tracker.commit.remote(1, 10, {})
    tracker.commit.remote(0, 9, {"empty": 1})
    total = ray.get(tracker.snapshot.remote())
    assert (total.maps, total.errors, total.done) == (19, Counter(empty=1), 20)


def test_time_of_all_workers_adds_up() -> None:
    tracker = RunTracker.remote()
    tracker.add.remote({"fetch": 1.5}, {"fetch": 8})
    tracker.add.remote({"fetch": 0.5, "decode": 1.0}, {"fetch": 2, "decode": 2})
    total = ray.get(tracker.snapshot.remote())
    assert total.seconds == {"fetch": 2.0, "decode": 1.0}
    assert total.images == {"fetch": 10, "decode": 2}


def test_a_stopwatch_reports_what_is_new_and_travels_to_workers() -> None:
    tracker = RunTracker.remote()
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


def test_a_stopwatch_counts_a_stage_that_fails_and_those_of_many_threads() -> None:
    timer = StageTimer()
    with pytest.raises(KeyError), timer.stage("decode"):
        raise KeyError

    def many() -> None:
        for _ in range(200):
            with timer.stage("decode"):
                pass

    threads = [threading.Thread(target=many) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert timer.images == {"decode": 1601}


def watched(style: str, every: float, seconds: float, stream: io.StringIO) -> str:
    tracker = RunTracker.remote()
    tracker.commit.remote(0, 7, {"empty": 1})
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
    tracker = RunTracker.remote()
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


def test_watching_survives_a_tally_that_has_died() -> None:
    tracker = RunTracker.remote()
    ray.get(tracker.snapshot.remote())
    with watching(tracker, 10, "lines", io.StringIO(), 0.05):
        ray.kill(tracker)
        time.sleep(0.3)
        assert [thread for thread in threading.enumerate() if thread.name == "progress"]
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_watching_ends_with_a_run_that_fails() -> None:
    with pytest.raises(KeyError), watching(RunTracker.remote(), 10, "lines", io.StringIO(), 0.05):
        raise KeyError
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]
