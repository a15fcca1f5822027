"""Calls in an executor -> their results, in order, with few under way at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def submit_in_order(
    executor: Executor, function: Callable[[Item], Result], items: Iterable[Item], *, window: int
) -> Generator[tuple[Item, Future[Result]]]:
    """Yield every item with its call, whose result is to be waited for, in the order of the items.

    At most ``window`` calls are under way, which bounds memory. Where the iterator is closed
    early, what has not begun is cancelled.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            waiting.append((item, executor.submit(function, item)))
            if len(waiting) >= window:
                yield waiting[0]
                waiting.popleft()
        while waiting:
            yield waiting[0]
            waiting.popleft()
    finally:
        for _, future in waiting:
            future.cancel()
