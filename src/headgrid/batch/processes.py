"""Calls -> their results from other processes, in order and while this one goes on.

The renderer's engine needs half a second to start and holds Python's lock while
it works. In a process of its own both cost nothing here, and should the engine
ever run out of memory, it takes that process down and not the caller's.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, TypeVar

from headgrid.errors import OptionError

Item = TypeVar("Item")
Result = TypeVar("Result")

#: More processes than this are a slip of the keyboard.
MAX_JOBS = 1024


class LostCluster(BrokenExecutor):
    """A call was given up because the scheduler of its cluster can not be reached."""


def map_in_order(
    executor: Executor, function: Callable[[Item], Result], items: Iterable[Item], *, window: int
) -> Iterator[Result]:
    """Yield ``function(item)`` of every item, in the order of the items.

    At most ``window`` calls are submitted and not yet yielded, which bounds memory. The
    first exception of a call is raised in its turn; then, and where the iterator is
    closed early, what has not begun is cancelled.

    >>> with ThreadPoolExecutor(2) as executor:
    ...     list(map_in_order(executor, abs, iter([-3, 2, -1]), window=2))
    [3, 2, 1]
    """
    for _, future in submit_in_order(executor, function, items, window=window):
        yield future.result()


def submit_in_order(
    executor: Executor, function: Callable[[Item], Result], items: Iterable[Item], *, window: int
) -> Iterator[tuple[Item, Future[Result]]]:
    """Yield every item with its finished call, of which a failed one does not stop the others."""
    waiting: deque[tuple[Item, Future[Result]]] = deque()

    def take_first() -> tuple[Item, Future[Result]]:
        wait_for([waiting[0][1]])  # an interruption leaves it among those that are cancelled
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


def open_pool(
    jobs: int, dask: str | None = None, *, warm_up: Callable[[], object] | None = None
) -> AbstractContextManager[Executor]:
    """Give an executor of processes here, or of an existing dask cluster.

    Parameters
    ----------
    jobs : int
        Number of processes, 1 to `MAX_JOBS`; they start at once. They ignore Ctrl-C, as
        the parent decides what it means, and end with it. A call whose process dies is
        repeated in a new one; it fails with ``BrokenProcessPool`` only where that dies
        as well.
    dask : str, optional
        Address of a dask scheduler (``tcp://host:8786``), whose workers take the calls
        instead; ``jobs`` then means nothing. Calls of a worker that is lost go to
        another one.
    warm_up : callable, optional
        What each process here does before its first call.

    Returns
    -------
    context manager of concurrent.futures.Executor
        Left normally, it waits for what was submitted. On an exception what has not
        begun is dropped, and the processes here end at once.

    Raises
    ------
    OptionError
        For a number of processes that can not be, and where ``distributed`` is not
        installed.
    RenderError
        Where no scheduler answers at the address.
    """
    if dask is not None:
        from headgrid.batch.cluster import open_cluster

        return open_cluster(dask)
    return _open_processes(check_jobs(jobs), warm_up)


def check_jobs(jobs: int) -> int:
    """Return a number of processes that is possible, or raise `OptionError`."""
    if isinstance(jobs, bool) or not isinstance(jobs, int) or not 1 <= jobs <= MAX_JOBS:
        raise OptionError(f"jobs is {jobs!r}, expected a whole number, 1 to {MAX_JOBS}")
    return jobs


def rendering_process() -> AbstractContextManager[Executor]:
    """Give an executor with one process, where the engine starts to warm up at once."""
    from headgrid.render import vega

    return open_pool(1, warm_up=vega.warm_up)


@contextmanager
def _open_processes(jobs: int, warm_up: Callable[[], object] | None) -> Iterator[Executor]:
    pool = _Processes(jobs, warm_up)
    try:
        yield pool
        pool.shutdown()
    except BaseException:
        pool.stop()
        raise


class _Processes(ThreadPoolExecutor):
    """Threads that hand each call to a process of its own, and wait for it.

    With a pool for each process, one that dies takes no other's call along.
    """

    def __init__(self, jobs: int, warm_up: Callable[[], object] | None) -> None:
        super().__init__(jobs)
        # A fork after the engine's first use hangs, so processes start from nothing.
        self._context = multiprocessing.get_context("spawn")
        self._ear, self._mouth = self._context.Pipe(duplex=False)
        self._warm_up = warm_up
        self._idle: SimpleQueue[ProcessPoolExecutor] = SimpleQueue()
        for _ in range(jobs):
            self._idle.put(self._start())

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a call; function, arguments and result are pickled."""
        return super().submit(self._call, partial(function, *args, **kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for what was submitted, and end the processes."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        self._mouth.close()
        while not self._idle.empty():
            self._idle.get().shutdown(wait)

    def stop(self) -> None:
        """End the processes at once, in the middle of what they do."""
        self._mouth.close()
        self.shutdown(cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        pool = ProcessPoolExecutor(
            1, mp_context=self._context, initializer=_begin, initargs=(self._ear, self._warm_up)
        )
        with _without_interrupts():
            pool.submit(int)  # the first call starts the process
        return pool

    def _call(self, function: Callable[[], Any]) -> Any:
        try:
            return self._try(function)
        except BrokenProcessPool:
            if self._mouth.closed:
                raise
            return self._try(function)

    def _try(self, function: Callable[[], Any]) -> Any:
        process = self._idle.get()
        try:
            return process.submit(function).result()
        except BrokenProcessPool:
            if not self._mouth.closed:
                process = self._start()
            raise
        finally:
            self._idle.put(process)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Keep Ctrl-C from a process that starts in the block: it would end it with a traceback."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(ear: Connection, warm_up: Callable[[], object] | None) -> None:
    # Ctrl-C reaches the whole group of processes; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(ear,), daemon=True).start()
    if warm_up is not None:
        with suppress(Exception):  # what it raises is left to the calls to tell
            warm_up()


def _end_with_parent(ear: Connection) -> None:
    """End this process when its parent has ended without saying so, or stops the pool."""
    with suppress(EOFError, OSError):
        ear.recv_bytes()  # nothing is ever said; the other end closes
    os._exit(1)
