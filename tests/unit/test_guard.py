"""Guard: what it does in a process by itself."""

import subprocess
import sys
import threading
import time

from job.cluster.guard import Guard, _company


def test_without_a_tracker_there_is_nothing_between_the_images_and_the_work() -> None:
    guard = Guard("decode")
    assert guard.over([7, 8], lambda some: [10 * position for position in some]) == [0, 10]
    with guard.watching([7], "an image"):
        pass


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
