"""Progress: how far a run is, shown to a person as a live bar or a line now and then."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TextIO

import ray

from job.cluster.tracker import Snapshot, Tracker, ask
from job.redact import redact
from job.wording import counted, duration

Style = Literal["auto", "bar", "lines", "none"]
_TELLING = 5.0  # seconds from the first maps on: several predictors have their first together


Describe = Callable[[Snapshot], str]


def _nothing_awaited(snapshot: Snapshot) -> str:
    return ""


@contextmanager
def watching(
    tracker: Tracker,
    remaining: int,
    style: Style,
    stream: TextIO | None = None,
    every: float = 5.0,
    describe: Describe = _nothing_awaited,
) -> Iterator[None]:
    """Within the context, show how far the run is: a live bar on a terminal, lines elsewhere.

    Args:
        tracker: the run's tracker.
        remaining: images this run has to do.
        style: ``auto`` takes a bar on a terminal and lines elsewhere.
        stream: where to show it, standard error by default.
        every: seconds between lines.
        describe: what the run is waiting for, if anything.
    """
    out = stream or sys.stderr
    if style == "auto":
        style = "bar" if out.isatty() else "lines"
    if style == "none":
        yield
        return
    stop = threading.Event()
    if style == "bar":
        show, every = _show_bar, min(every, 0.5)
    else:
        show = _show_lines
    looks = _looks(tracker, every, describe, stop)
    thread = threading.Thread(
        target=show, args=(looks, remaining, out), daemon=True, name="progress"
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5)


def format_line(snapshot: Snapshot, remaining: int, elapsed: float, waiting: str = "") -> str:
    """One line about a run: done of total, images/s, time left, what it waits for, errors."""
    share = 100 * snapshot.done // remaining if remaining else 100
    parts = [f"{snapshot.done:,} of {counted(remaining, 'image')} ({share} %)"]
    if snapshot.done and elapsed > 0:
        rate = _rate(snapshot, elapsed)
        parts.append(f"{rate:.1f} images/s")
        parts.append(f"{duration((remaining - snapshot.done) / rate)} left")
    if waiting or not snapshot.done:
        parts.append(waiting or "starting up")
    failed = snapshot.errors.total()
    if failed:
        parts.append(f"{failed:,} error{'s' if failed > 1 else ''}")
    return ", ".join(parts)


def _rate(snapshot: Snapshot, elapsed: float) -> float:
    """Images per second; without start-up, which does not come again, once that can be told."""
    later = snapshot.done - snapshot.at_first
    is_telling = later and snapshot.under_way >= _TELLING
    return later / snapshot.under_way if is_telling else snapshot.done / elapsed


def _looks(
    tracker: Tracker, every: float, describe: Describe, stop: threading.Event
) -> Iterator[tuple[Snapshot, str]]:
    """What has been done and what is waited for, now and then."""
    while not stop.wait(every):
        try:
            snapshot = ask(tracker)
            waiting = describe(snapshot)
        except (ray.exceptions.RayError, TimeoutError, ConnectionError):
            continue  # a missed line is no reason to end anything
        yield snapshot, waiting


def _show_lines(looks: Iterable[tuple[Snapshot, str]], remaining: int, out: TextIO) -> None:
    started = time.monotonic()
    told = 0
    for snapshot, waiting in looks:
        now = format_line(snapshot, remaining, time.monotonic() - started, waiting)
        for text in (*snapshot.notes[told:], now):
            print(redact(text), file=out, flush=True)
        told = len(snapshot.notes)


def _show_bar(looks: Iterable[tuple[Snapshot, str]], remaining: int, out: TextIO) -> None:
    from tqdm import tqdm

    with tqdm(total=remaining, unit="images", file=out, leave=False, dynamic_ncols=True) as bar:
        told = 0
        for snapshot, waiting in looks:
            for note in snapshot.notes[told:]:
                bar.write(redact(note), file=out)
            told = len(snapshot.notes)
            failed = f"{snapshot.errors.total()} errors" if snapshot.errors else ""
            bar.set_postfix_str(", ".join(filter(None, [redact(waiting), failed])))
            bar.update(snapshot.done - bar.n)
