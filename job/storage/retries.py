"""Retries: how many requests to storage this process has made again."""

import threading

_counting = threading.Lock()
_retries = 0


def count_retry() -> None:
    """A request is made again."""
    global _retries
    with _counting:
        _retries += 1


def take_retries() -> int:
    """How many there were since this was asked last."""
    global _retries
    with _counting:
        taken, _retries = _retries, 0
    return taken
