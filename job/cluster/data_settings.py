"""Data settings: what is set of Ray Data for a while, and put back afterwards."""

import logging
import warnings
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


@contextmanager
def quiet_data() -> Iterator[None]:
    """Within the context, Ray Data says nothing by itself and raises what a stage has raised."""
    settings = data_settings(
        enable_progress_bars=False,
        print_on_execution_start=False,
        # A block for each task: cut by its bytes, one that is made anew after a node was lost would
        # be cut elsewhere, for an image that failed then and can be read now.
        target_max_block_size=None,
        # Ray's own wrapper loses on its way what it is raised from.
        raise_original_map_exception=True,
    )
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with settings, warnings.catch_warnings():
            # Ray 2.60 wants remote arguments by their names, and has none for max_retries.
            warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
            # A bound on tasks is none the worse for there being fewer.
            warnings.filterwarnings("ignore", message="The maximum number of concurrent tasks")
            yield
    finally:
        logger.setLevel(level)


def _set(context: DataContext, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(context, name, value)
