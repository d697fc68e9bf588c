"""Outage: what keeps images from being read ends a run when there is too much of it."""

from job.outage import LIMIT, Fault, Outage

EXPIRED = Fault("INPUT s3://bucket/in", "credentials", "the credentials have expired. Renew them")
UNMOUNTED = Fault("INPUT /data", "mount", "the folder /data is not there. Mount it on every node")


def test_a_run_without_faults_has_no_verdict() -> None:
    outage = Outage()
    outage.count("a", 100, [])
    assert outage.verdict() is None
    assert not outage.ends_run


def test_faults_in_a_row_end_the_run_wherever_they_are() -> None:
    outage = Outage()
    outage.count("a", 10, [])
    for number in range(LIMIT):
        assert not outage.ends_run
        outage.count("ab"[number % 2], 0, [EXPIRED])
    assert outage.ends_run
    verdict = outage.verdict()
    assert verdict is not None
    assert verdict.sentence == (
        "INPUT s3://bucket/in cannot be read: the credentials have expired. Renew them. The run"
        " ends early; what is committed stays, and the same command goes on"
    )


def test_a_node_that_reads_nothing_ends_the_run_though_others_go_on() -> None:
    outage = Outage()
    while not outage.ends_run:
        outage.count("good", 16, [])
        outage.count("bad", 0, [UNMOUNTED] * 8)
    verdict = outage.verdict()
    assert verdict is not None
    assert verdict.left_out == LIMIT
    assert verdict.sentence.startswith("INPUT /data cannot be read on node bad: the folder /data")


def test_a_few_faults_do_not_end_a_run_and_are_told_at_its_end() -> None:
    outage = Outage()
    for _ in range(LIMIT * 3):
        outage.count("a", 1, [])
        outage.count("a", 0, [EXPIRED])
    assert not outage.ends_run
    verdict = outage.verdict()
    assert verdict is not None
    assert verdict.sentence.startswith(f"{LIMIT * 3} images of INPUT s3://bucket/in could not be")
    assert "They are not done; the same command goes on" in verdict.sentence


def test_time_counts_from_when_it_was_too_much() -> None:
    now = [100.0]
    outage = Outage(lambda: now[0])
    outage.count("a", 0, [EXPIRED] * LIMIT)
    now[0] = 140.0
    outage.count("a", 0, [EXPIRED] * LIMIT)
    verdict = outage.verdict()
    assert verdict is not None
    assert verdict.seconds == 40.0
