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
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
WarmUp = Callable[[], object]

#: What a call says whose processes have died.
DIED = (
    "the rendering process has died, most likely for want of memory; draw cells as images "
    "(--cells image), or fewer heads or frames"
)


def submit_in_order(
    executor: Executor, function: Callable[[Item], Result], items: Iterable[Item], *, window: int
) -> Iterator[tuple[Item, Future[Result]]]:
    """Yield every item with its finished call, in the order of the items.

    At most ``window`` calls are submitted and not yet yielded, which bounds memory. Where
    the iterator is closed early, what has not begun is cancelled.

    >>> with ThreadPoolExecutor(2) as executor:
    ...     [call.result() for _, call in submit_in_order(executor, abs, [-3, 2, -1], window=2)]
    [3, 2, 1]
    """
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
    jobs: int, dask: str | None = None, *, warm_up: WarmUp | None = None
) -> AbstractContextManager[Executor]:
    """Give an executor of ``jobs`` processes, or of the dask cluster at an address.

    Processes start at once, each with ``warm_up``, and end with this one. They ignore Ctrl-C,
    as this one decides what it means. A call whose process dies is repeated in a new one, and
    fails with ``BrokenExecutor`` where that dies as well; calls of a cluster's worker that is
    lost go to another one. Left normally, the executor waits for what was submitted; on an
    exception what has not begun is dropped, and the processes are killed.
    """
    if dask is not None:
        from headgrid.batch.cluster import open_cluster

        return open_cluster(dask)
    return _open_processes(jobs, warm_up)


def rendering_process() -> AbstractContextManager[Executor]:
    """Give an executor with one process, where the engine starts to warm up at once."""
    from headgrid.render import vega

    return open_pool(1, warm_up=vega.warm_up)


class HandingExecutor(ThreadPoolExecutor):
    """Threads that hand each call to what makes it elsewhere, and wait for its result.

    Function, arguments and result of a call are pickled on the way.
    """

    def __init__(self, threads: int, make_call: Callable[[Callable[[], Any]], Any]) -> None:
        super().__init__(threads)
        self._make_call = make_call

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a call."""
        return super().submit(self._make_call, partial(function, *args, **kwargs))


@contextmanager
def _open_processes(jobs: int, warm_up: WarmUp | None) -> Iterator[Executor]:
    processes = [_Process(warm_up) for _ in range(jobs)]
    free: SimpleQueue[_Process] = SimpleQueue()
    for process in processes:
        free.put(process)

    def make_call(function: Callable[[], Any]) -> Any:
        process = free.get()
        try:
            return process.call(function)
        finally:
            free.put(process)

    executor = HandingExecutor(jobs, make_call)
    try:
        yield executor
        executor.shutdown()
    except BaseException:
        for process in processes:
            process.kill()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        for process in processes:
            process.end()


class _Process:
    """A process that takes one call at a time by a pipe, and is replaced where it dies."""

    def __init__(self, warm_up: WarmUp | None) -> None:
        self._warm_up = warm_up
        self._killed = False
        self._start()

    def _start(self) -> None:
        # A fork after the engine's first use hangs, so processes start from nothing.
        context = multiprocessing.get_context("spawn")
        link, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._warm_up), daemon=True)
        with theirs, _without_interrupts():
            process.start()
        self._link, self._process = link, process

    def call(self, function: Callable[[], Any]) -> Any:
        for _ in range(2):
            if self._killed:
                break
            try:
                self._link.send(function)
                failed, found = self._link.recv()
            except (EOFError, OSError):  # the process has died; an error of the call is an answer
                if not self._killed:
                    self._start()
                continue
            if failed:
                raise found
            return found
        raise BrokenExecutor(DIED)

    def end(self) -> None:
        self._link.close()
        self._process.join()

    def kill(self) -> None:
        self._killed = True
        self._process.kill()


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


def _serve(link: Connection, warm_up: WarmUp | None) -> None:
    """Take calls until the pipe is closed."""
    # Ctrl-C reaches the whole group of processes; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if warm_up is not None:
        with suppress(Exception):  # what it raises is left to the calls to tell
            warm_up()
    with suppress(EOFError, OSError):
        while True:
            link.send(_answer(link.recv()))


def _answer(function: Callable[[], Any]) -> tuple[bool, Any]:
    try:
        return False, function()
    except Exception as error:  # noqa: BLE001 - the caller raises it
        return True, error


def _end_with_parent() -> None:
    """End this process when its parent has ended without saying so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
