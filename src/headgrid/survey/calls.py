"""Calls in an executor -> their results, in order, with few under way at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, wait
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def submit_in_order(
    executor: Executor, function: Callable[[Item], Result], items: Iterable[Item], *, window: int
) -> Generator[tuple[Item, Future[Result]]]:
    """Yield every item with its finished call, in the order of the items.

    At most ``window`` calls are submitted and not yet yielded, which bounds memory. Where
    the iterator is closed early, what has not begun is cancelled.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()

    def take_first() -> tuple[Item, Future[Result]]:
        wait([waiting[0][1]])  # an interruption leaves it among those that are cancelled
        return waiting.popleft()

    try:
        for item in items:
            waiting.append((item, executor.submit(function, item)))
            if len(waiting) >= window:
                yield take_first()
        while waiting:
            yield take_first()
    finally:
        for _, future in waiting:
            future.cancel()
