"""Calls of the engine -> results from another process, while this one goes on.

The renderer's engine needs half a second to start and holds Python's lock while
it works. In a process of its own both cost nothing here, and should the engine
ever run out of memory, it takes that process down and not the caller's.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from multiprocessing.connection import wait
from typing import Any

from headgrid import engine


@contextmanager
def rendering_process() -> Iterator[Executor]:
    """Give an executor with one process that starts to warm up at once.

    Leaving the context normally waits for what was submitted; on an exception,
    what has not begun is dropped.
    """
    # A fork after the engine's first use hangs, so the process starts from nothing.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(1, mp_context=context, initializer=_start)
    executor.submit(engine.warm_up)
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    executor.shutdown()


class Alternating(Executor):
    """Hand calls to several executors in turn."""

    def __init__(self, executors: Sequence[Executor]) -> None:
        self._executors = cycle(executors)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit to the next executor."""
        return next(self._executors).submit(function, *args, **kwargs)


def _start() -> None:
    # Ctrl-C reaches the whole group of processes; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent has ended without saying so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
