"""Execution: what ends the commits of a run ends its work as well."""

from collections.abc import Generator, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from job.config import JobConfig
from job.execution import Execution
from job.outputs.attempts import Attempt
from job.outputs.claims import OutputClaim
from job.outputs.committer import Committer
from job.storage.location import Location
from tests.runs import RUNS, Hands


@pytest.fixture
def execution(output: Location) -> Iterator[Execution]:
    """Of a run that commits, and has nothing else."""
    anything: Any = SimpleNamespace()
    with OutputClaim(output, RUNS[0], clock=Hands()) as claim:
        yield Execution(
            config=JobConfig(input="in", output="out"),
            source=anything,
            checkpoint=anything,
            model=anything,
            output=output,
            say=print,
            stop=anything,
            claim=claim,
            committer=Committer(output, claim),
        )


def test_a_commit_that_fails_ends_the_work_at_once(
    execution: Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left to the garbage collector, Ray Data ends it when Ray is gone, and starts another Ray."""
    ended = []

    def attempts() -> Generator[Attempt]:
        try:
            while True:
                yield Attempt(np.empty(0, np.int64), [], {})
        finally:
            ended.append("work")

    def fail(attempts: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(execution.committer, "commit", fail)
    work, nobody = attempts(), SimpleNamespace()
    tracker: Any = nobody
    with pytest.raises(OSError, match="the disk is full"):
        execution._commit(work, tracker)
    assert ended == ["work"]
    assert next(work, None) is None, "it has come to its end"
