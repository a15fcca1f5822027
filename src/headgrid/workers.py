"""Specifications -> bytes in another process, while this one goes on.

The renderer's engine needs half a second to start and holds Python's lock while
it works. In a process of its own both cost nothing here, and should the engine
ever run out of memory, it takes that process down and not the caller's.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait

# A figure with text and a mark: what it draws once is ready for all that follow.
_WARM_UP = {
    "data": {"values": [{"a": 1}]},
    "mark": "rect",
    "encoding": {"x": {"field": "a", "type": "ordinal"}},
}


@contextmanager
def rendering_process() -> Iterator[Executor]:
    """Give an executor with one process that starts to warm up at once.

    Leaving the context normally waits for what was submitted; on an exception,
    what has not begun is dropped.
    """
    # A fork after the engine's first use hangs, so the process starts from nothing.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(1, mp_context=context, initializer=_start)
    executor.submit(warm_up)
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    executor.shutdown()


def warm_up() -> None:
    """Start the renderer's engine and load its fonts."""
    from headgrid.render import render_svg

    render_svg(_WARM_UP)


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
