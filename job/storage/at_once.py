"""At once: many requests to storage, which each wait for an answer most of their time."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")
_THREADS = 32


def at_once(request: Callable[[Item], Answer], items: Iterable[Item]) -> list[Answer]:
    """The answer for each item, in their order; up to 32 are asked for at the same time.

    Raises:
        Exception: what the first request that failed has raised, when all that were begun have come
            to their end; the others are not made.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(request, items))
