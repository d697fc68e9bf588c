"""The shared lock: several threads hold it together, or one alone."""

import threading
import time

from job.cluster.shared_lock import SharedLock


def test_who_holds_it_alone_has_no_other_thread_beside_it() -> None:
    lock = SharedLock()
    at_work: list[str] = []
    seen: list[list[str]] = []
    begun = threading.Event()

    def together() -> None:
        with lock.shared():
            at_work.append("together")
            begun.set()
            time.sleep(0.2)
            at_work.remove("together")

    def alone() -> None:
        begun.wait()
        with lock.exclusive():
            seen.append(list(at_work))
            at_work.append("alone")
            time.sleep(0.2)
            at_work.remove("alone")

    def late() -> None:
        begun.wait()
        time.sleep(0.1)  # while the one who wants to be alone still waits
        with lock.shared():
            seen.append(list(at_work))

    threads = [threading.Thread(target=one) for one in (together, alone, alone, late)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert seen == [[], [], []]
