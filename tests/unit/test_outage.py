"""Outage: what keeps images from being read ends a run when there is too much of it."""

from job.cluster.outage import LIMIT, Outage
from job.rows import Fault

EXPIRED = Fault("INPUT s3://bucket/in", "credentials", "the credentials have expired. Renew them")
UNMOUNTED = Fault("INPUT /data", "mount", "the folder /data is not there. Mount it on every node")


def test_a_run_without_faults_has_no_verdict() -> None:
    outage = Outage()
    outage.count("a", range(100), {})
    assert outage.verdict() is None
    assert not outage.ends_run


def test_faults_in_a_row_end_the_run_wherever_they_are() -> None:
    outage = Outage()
    outage.count("a", range(100, 110), {})
    for number in range(LIMIT):
        assert not outage.ends_run
        outage.count("ab"[number % 2], [], {number: EXPIRED})
    assert outage.ends_run
    verdict = outage.verdict()
    assert verdict is not None
    assert verdict.sentence == (
        "INPUT s3://bucket/in cannot be read: the credentials have expired. Renew them. The run"
        " ends early; what is committed stays, and the same command goes on"
    )


def test_a_node_that_reads_nothing_ends_the_run_though_others_go_on() -> None:
    outage = Outage()
    for first in range(0, LIMIT, 8):
        assert not outage.ends_run
        outage.count("good", range(1000, 1016), {})
        outage.count("bad", [], dict.fromkeys(range(first, first + 8), UNMOUNTED))
    assert outage.ends_run
    verdict = outage.verdict()
    assert verdict is not None
    assert verdict.left_out == LIMIT
    assert verdict.sentence.startswith("INPUT /data cannot be read on node bad: the folder /data")


def test_a_few_faults_do_not_end_a_run_and_are_told_at_its_end() -> None:
    outage = Outage()
    for number in range(LIMIT * 3):
        outage.count("a", [1000 + number], {})
        outage.count("a", [], {number: EXPIRED})
    assert not outage.ends_run
    verdict = outage.verdict()
    assert verdict is not None
    assert verdict.sentence.startswith(f"{LIMIT * 3} images of INPUT s3://bucket/in could not be")
    assert "They are not done; the same command goes on" in verdict.sentence


def test_time_counts_from_when_it_was_too_much() -> None:
    now = [100.0]
    outage = Outage(lambda: now[0])
    outage.count("a", [], dict.fromkeys(range(LIMIT), EXPIRED))
    now[0] = 140.0
    outage.count("a", [], dict.fromkeys(range(LIMIT), EXPIRED))
    verdict = outage.verdict()
    assert verdict is not None
    assert verdict.seconds == 40.0


def test_an_image_that_is_read_after_all_was_kept_from_nothing() -> None:
    outage = Outage()
    outage.count("a", [1], {2: EXPIRED, 3: EXPIRED})
    outage.count("b", [2], {3: EXPIRED})
    verdict = outage.verdict()
    assert verdict is not None
    assert verdict.left_out == 1
    outage.count("b", [3], {})
    assert outage.verdict() is None
