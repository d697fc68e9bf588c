"""Data settings: what is set of Ray Data for a while, and put back afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.data import DataContext


@contextmanager
def data_settings(**values: Any) -> Iterator[None]:
    """Within the context, these attributes of Ray Data's ``DataContext`` have these values."""
    context = DataContext.get_current()
    before = {name: getattr(context, name) for name in values}
    _set(context, values)
    try:
        yield
    finally:
        _set(context, before)


def _set(context: DataContext, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(context, name, value)
