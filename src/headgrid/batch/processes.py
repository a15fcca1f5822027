"""A number -> so many processes that take calls, and lose none when one of them dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any


class ProcessPool(Executor):
    """Processes that start at once, end with their parent, and are replaced when they die.

    A process that is killed, most likely for want of memory, breaks Python's own pool:
    every call that it holds fails. Here it holds few, and those are repeated, each alone
    in a new process, so that only the one fails that ends its process again.

    Parameters
    ----------
    jobs : int
        Number of processes.
    warm_up : callable, optional
        What each process does first. What it raises is left to the calls to tell.
    """

    def __init__(self, jobs: int, warm_up: Callable[[], object] | None = None) -> None:
        # A fork after the engine's first use hangs, so processes start from nothing.
        self._context = multiprocessing.get_context("spawn")
        self._jobs, self._warm_up = jobs, warm_up
        self._ear, self._mouth = self._context.Pipe(duplex=False)
        self._lock = threading.RLock()
        self._stopped = False
        self._backlog: deque[_Call] = deque()
        self._open: set[Future[Any]] = set()
        self._inside = 0
        self._repeats = ThreadPoolExecutor(1)
        self._pool = self._start(jobs)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a call; function, arguments and result are pickled."""
        result: Future[Any] = Future()
        self._open.add(result)
        result.add_done_callback(self._open.discard)
        self._backlog.append(_Call(partial(function, *args, **kwargs), result))
        self._feed()
        return result

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes when they are done with what was submitted, or with what has begun."""
        if cancel_futures:
            for result in list(self._open):
                result.cancel()
        if wait:
            wait_for(list(self._open))
        self._pool.shutdown(wait, cancel_futures=cancel_futures)
        self._repeats.shutdown(wait, cancel_futures=cancel_futures)

    def stop(self) -> None:
        """End the processes at once, in the middle of what they do."""
        self._stopped = True
        self._mouth.close()
        self.shutdown(cancel_futures=True)

    def _start(self, jobs: int) -> ProcessPoolExecutor:
        arguments = (self._ear, self._warm_up)
        pool = ProcessPoolExecutor(
            jobs, mp_context=self._context, initializer=_begin, initargs=arguments
        )
        for _ in range(jobs):  # each call starts a process while none is idle
            _submit(pool, _do_nothing)
        return pool

    def _feed(self) -> None:
        """Give the processes as many calls as keep them busy, and no more to lose."""
        with self._lock:
            while self._backlog and self._inside < 2 * self._jobs:
                call = self._backlog.popleft()
                if not call.result.set_running_or_notify_cancel():
                    continue
                self._inside += 1
                self._send(call).add_done_callback(partial(self._take, call))

    def _send(self, call: _Call) -> Future[Any]:
        try:
            return _submit(self._pool, call.function)
        except BrokenProcessPool:
            self._pool.shutdown(wait=False)
            self._pool = self._start(self._jobs)
            return _submit(self._pool, call.function)

    def _take(self, call: _Call, done: Future[Any]) -> None:
        with self._lock:
            self._inside -= 1
        if isinstance(done.exception(), BrokenProcessPool) and not self._stopped:
            self._repeats.submit(self._repeat, call)
        else:
            _copy(done, call.result)
        if not self._stopped:
            self._feed()

    def _repeat(self, call: _Call) -> None:
        try:
            pool = self._start(1)
            done = _submit(pool, call.function)
            pool.shutdown()
        except Exception as error:  # noqa: BLE001 - no process can be started any more
            call.result.set_exception(error)
        else:
            _copy(done, call.result)


@dataclass(frozen=True)
class _Call:
    function: Callable[[], Any]
    result: Future[Any]


def _submit(pool: ProcessPoolExecutor, call: Callable[[], Any]) -> Future[Any]:
    with _without_interrupts():
        return pool.submit(call)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Keep Ctrl-C from processes that start in the block; it reaches this one after it.

    One that comes while they still import would end them with a traceback each.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _copy(source: Future[Any], target: Future[Any]) -> None:
    error = source.exception()
    if error is not None:
        target.set_exception(error)
    else:
        target.set_result(source.result())


def _do_nothing() -> None:
    """Make a process start."""


def _begin(ear: Connection, warm_up: Callable[[], object] | None) -> None:
    # Ctrl-C reaches the whole group of processes; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(ear,), daemon=True).start()
    if warm_up is not None:
        with suppress(Exception):
            warm_up()


def _end_with_parent(ear: Connection) -> None:
    """End this process when its parent has ended without saying so, or stops the pool."""
    parent = multiprocessing.parent_process()
    wait([ear] if parent is None else [ear, parent.sentinel])
    os._exit(1)
