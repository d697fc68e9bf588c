"""The ledger: what was begun and never ended is remembered, and what hung."""

from job.cluster.ledger import Ledger


def test_what_was_begun_and_never_ended_is_remembered() -> None:
    ledger = Ledger()
    assert ledger.begin("decode", [1, 2]) == (0, [])
    assert ledger.begin("decode", [1, 2]) == (1, [])
    assert ledger.begin("decode", [2, 3]) == (0, []), "other images"
    assert ledger.begin("predict", [1, 2]) == (0, []), "another stage"
    ledger.end("decode", [1, 2])
    assert ledger.begin("decode", [1, 2]) == (0, [])


def test_only_an_image_that_was_alone_is_blamed_for_a_hang() -> None:
    ledger = Ledger()
    ledger.hang("predict", [1, 2])
    assert ledger.begin("predict", [1, 2]) == (0, [])
    ledger.hang("predict", [2])
    assert ledger.begin("predict", [1, 2]) == (1, [2])
    assert ledger.begin("decode", [2]) == (0, [])
