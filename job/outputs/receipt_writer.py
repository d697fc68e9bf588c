"""Receipt writer: a run's receipt in storage, from its start to its end."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from job.errors import OutputConflictError, StoppedError, causes
from job.outputs.measures import Measures
from job.outputs.receipts import Receipt, Status
from job.storage.location import Location
from job.storage.refusals import STORAGE_ERRORS


class ReceiptWriter:
    """A receipt that is written when its run ends.

    Attributes:
        receipt: as it was written last.
    """

    def __init__(self, receipt: Receipt, output: Location, measures: Measures) -> None:
        self.receipt = receipt
        self._output = output
        self._measures = measures
        self._started = time.monotonic()
        self._writing = threading.Lock()
        self._is_over = False

    def stopping(self) -> None:
        """Begin nothing new. Written down at once: whoever stops a run may soon kill it."""
        self._measures.tracker.stop.remote()
        self._measures.tracker.note.remote("told to stop: finishing what is in flight")
        with self._writing, contextlib.suppress(*STORAGE_ERRORS):
            if not self._is_over:
                # Not ended yet: should nothing follow, the next run counts what was committed.
                self._write("stopped", "told to stop", ended="")

    def end(self, status: Status, message: str = "") -> None:
        """Write down what the run has done, and how it ended."""
        self._is_over = True
        with self._writing:
            self._write(status, message)

    def _write(self, status: Status, message: str, **more: Any) -> None:
        seconds = round(time.monotonic() - self._started, 3)
        changes = {**self._measures.take(), **more}
        if message:
            changes["message"] = message
        self.receipt = self.receipt.ending(status, seconds=seconds, **changes)
        self.receipt.write(self._output)


@contextlib.contextmanager
def writing_receipt(
    receipt: Receipt,
    output: Location,
    measures: Measures,
    release: Callable[[], None] = lambda: None,
) -> Iterator[ReceiptWriter]:
    """Within the context, a receipt is in storage: as running, and then however its run ends.

    That of a run that was replaced is left to the one that took over (:func:`receipts.settle`).

    Args:
        receipt: of the run that begins.
        output: the run's OUTPUT.
        measures: where to find what the run has done.
        release: gives the OUTPUT back when the run does not finish: what is still at work then
            can commit nothing more, and what is counted stays so.

    Raises:
        StoppedError: in place of one, with how much is committed.
    """
    writer = ReceiptWriter(receipt, output, measures)
    receipt.write(output)
    try:
        yield writer
        writer.end("finished")
    except BaseException as error:
        release()
        if any(isinstance(behind, OutputConflictError) for behind in causes(error)):
            raise  # the run that took over has counted, and knows better what this one committed
        stopped = isinstance(error, KeyboardInterrupt | StoppedError)
        message = (str(error).strip() or type(error).__name__).splitlines()[0]
        # Storage that has ended the run may not take the receipt either.
        with contextlib.suppress(*STORAGE_ERRORS):
            writer.end("stopped" if stopped else "failed", message)
        if isinstance(error, StoppedError):
            raise StoppedError(writer.receipt.how_far) from None
        raise
