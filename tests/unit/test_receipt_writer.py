"""Receipt writer: the receipt of a run that was replaced is left to the one that took over."""

from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from job.errors import OutputConflictError
from job.outputs.receipt_writer import writing_receipt
from job.storage.location import Location
from tests.unit.test_receipts import started, written


def test_a_run_that_was_replaced_leaves_its_receipt_as_the_other_has_settled_it(
    output: Location,
) -> None:
    measures: Any = SimpleNamespace(take=lambda: {"maps": 1})
    receipt = started()

    def be_replaced() -> NoReturn:
        receipt.ending("failed", maps=2, message="killed").write(output)
        try:
            raise FileNotFoundError
        except FileNotFoundError as error:
            raise OutputConflictError("run run-1 no longer holds it") from error

    with pytest.raises(OutputConflictError), writing_receipt(receipt, output, measures):
        be_replaced()
    found = written(output)
    assert (found["maps"], found["message"]) == (2, "killed")
