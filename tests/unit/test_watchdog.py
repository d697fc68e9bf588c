"""The watchdog: what takes too long is given up, even where the interpreter is stuck."""

import subprocess
import sys
import threading
import time

from job.cluster.watchdog import watching


def test_what_takes_too_long_is_given_up_and_what_does_not_is_left_alone() -> None:
    given_up = threading.Event()
    with watching(60.0, given_up.set):
        time.sleep(0.3)
    assert not given_up.is_set()
    with watching(0.1, given_up.set):
        assert given_up.wait(5)


def test_code_that_never_lets_go_of_the_interpreter_is_ended_as_well() -> None:
    script = (
        "import ctypes, time\n"
        "from job.cluster import watchdog\n"
        "watchdog._LAST_RESORT = 1\n"
        "with watchdog.watching(0.5, lambda: None):\n"
        "    time.sleep(0.4)\n"
        "    ctypes.PyDLL(None).sleep(60)\n"
    )
    started = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert time.monotonic() - started < 30
    assert ended.returncode != 0
    assert "Timeout" in ended.stderr
