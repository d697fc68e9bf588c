"""Metrics: a stage timer counts what happens in its process."""

import threading

import pytest

from job.cluster.metrics import StageTimer


def test_a_stage_timer_counts_a_stage_that_fails_and_those_of_many_threads() -> None:
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
