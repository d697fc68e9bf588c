"""Attempt writer: the step of a run that takes encoded rows to storage."""

import pyarrow as pa

from job.cluster.metrics import StageTimer
from job.outputs.attempts import write_attempt
from job.storage.location import Location


class AttemptWriter:
    """Writes a batch of encoded rows as an attempt, for the driver to commit.

    Args:
        output: the run's OUTPUT.
        claim: name of the run's claim, which has to hold whenever something is written.
        run_id: the run.
        maps: the schema of ``maps/``, with the model's labels in its metadata.
        timer: told how long it takes.
    """

    def __init__(
        self, output: Location, claim: str, run_id: str, maps: pa.Schema, timer: StageTimer
    ) -> None:
        self._output = output
        self._claim = claim
        self._run_id = run_id
        self._maps = maps
        self._timer = timer

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Write rows; returns the attempt as a table of one row, empty where there are none."""
        if not len(rows):
            return pa.table({})
        with self._timer.stage("write", len(rows)):
            attempt = write_attempt(self._output, self._claim, self._run_id, rows, self._maps)
        self._timer.report()
        return attempt.to_row()
