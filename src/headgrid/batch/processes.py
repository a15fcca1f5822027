"""Calls -> their results from other processes, in order and while this one goes on.

The renderer's engine needs half a second to start and holds Python's lock while
it works. In a process of its own both cost nothing here, and should the engine
ever run out of memory, it takes that process down and not the caller's.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from headgrid.batch.manifest import read_versions
from headgrid.errors import OptionError, RenderError
from headgrid.text import shorten_text

WarmUp = Callable[[], object]
#: Calls of a cluster that are under way at a time; seconds that its scheduler has to answer, and
#: that a finished call's result may take to arrive.
_CALLS, _CONNECT_SECONDS, _GATHER_SECONDS = 64, 8, 120
#: What a call says whose processes have died.
DIED = (
    "the rendering process has died, most likely for want of memory; draw cells as images "
    "(--cells image), or fewer heads or frames"
)


class HandingExecutor(ThreadPoolExecutor):
    """Threads that hand each call to what makes it elsewhere, and wait for its result."""

    def __init__(self, threads: int, make_call: Callable[[Callable[[], Any]], Any]) -> None:
        super().__init__(threads)
        self._make_call = make_call

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a call; function, arguments and result are pickled on the way."""
        return super().submit(self._make_call, partial(function, *args, **kwargs))


@contextmanager
def open_pool(
    jobs: int, dask: str | None = None, *, warm_up: WarmUp | None = None
) -> Iterator[Executor]:
    """Give an executor of ``jobs`` processes, or of the dask cluster at an address.

    Processes start at once, each with ``warm_up``, and end with this one. They ignore Ctrl-C,
    as this one decides what it means. A call whose process dies is repeated in a new one, and
    fails with ``BrokenExecutor`` where that dies as well; calls of a cluster's worker that is
    lost go to another one. Left normally, the executor waits for what was submitted; on an
    exception what has not begun is dropped, and the processes are killed.
    """
    if dask is not None:
        with _open_cluster(dask) as executor:
            yield executor
        return
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


def rendering_process() -> AbstractContextManager[Executor]:
    """Give an executor with one process, where the engine starts to warm up at once."""
    from headgrid.render import vega

    return open_pool(1, warm_up=vega.warm_up)


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
        with theirs, _without_signals():
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
def _without_signals() -> Iterator[None]:
    """Keep signals from a process that starts in the block: half-done, it shows a traceback."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # whose start would let signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(link: Connection, warm_up: WarmUp | None) -> None:
    """Take calls until the pipe is closed."""
    # Ctrl-C reaches the whole group of processes; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    gc.set_threshold(100_000, 20, 20)  # as in the command's own process
    if warm_up is not None:
        with suppress(Exception):  # what it raises is left to the calls to tell
            warm_up()
    with suppress(EOFError, OSError):
        while True:
            function = link.recv()
            try:
                answer = False, function()
            except Exception as error:  # noqa: BLE001 - the caller raises it
                answer = True, error
            link.send(answer)


def _end_with_parent() -> None:
    """End this process when its parent has ended without saying so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# On a cluster


@contextmanager
def _open_cluster(address: str) -> Iterator[Executor]:
    """Give an executor of a running cluster, whose workers see files under the same paths."""
    client = _connect(address)
    executor = HandingExecutor(_CALLS, partial(_make_call, client))
    try:
        _expect_same_versions(client)
        yield executor
        executor.shutdown()
    finally:
        with suppress(Exception):  # of a scheduler that has ended nothing is left to close
            client.close(timeout=_CONNECT_SECONDS)
        executor.shutdown(cancel_futures=True)  # closing has ended the calls under way


def _make_call(client: Any, function: Callable[[], Any]) -> Any:
    """Have a worker make a call; in dask's own executor it never ends if the connection breaks."""
    from asyncio import CancelledError

    from distributed import wait
    from distributed.scheduler import KilledWorker

    try:
        sent = client.submit(function, pure=False)
        with client.as_current():  # where `wait` looks for it
            wait(sent)
        if sent.status == "finished":
            return sent.result(timeout=_GATHER_SECONDS)
        failure = sent.exception() if sent.status == "error" else None
    except (Exception, CancelledError):  # noqa: BLE001 - a lost client fails in many ways
        failure = None
    if isinstance(failure, KilledWorker):
        raise BrokenExecutor(DIED)
    raise failure or BrokenExecutor(
        "the dask cluster can not be reached any more, expected its scheduler to run until the "
        "end; start it again and go on with --resume"
    )


def _connect(address: str) -> Any:
    import asyncio
    import logging

    try:
        import distributed
    except ImportError:
        raise OptionError(
            "a dask cluster needs the package distributed, which is not installed; install it "
            "with pip install 'headgrid[dask]', or leave --dask out"
        ) from None
    # For good: the client's threads go on to write after it is closed, at length, what an
    # error says in a sentence.
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # A client whose scheduler does not answer can not be closed either, so ask beforehand.
    with ThreadPoolExecutor(1) as thread:  # in a notebook an event loop runs in this one
        finding = thread.submit(asyncio.run, _miss_scheduler(address)).result()
    if finding:
        raise RenderError(
            f"{shorten_text(address, 80)}: {finding}, expected the address of a running dask "
            "scheduler (tcp://host:8786); start it, or leave --dask out"
        )
    return distributed.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)


async def _miss_scheduler(address: str) -> str:
    """Return what is at an address in place of a scheduler, nothing where that is one."""
    import asyncio

    import distributed

    try:
        async with distributed.rpc(address, timeout=_CONNECT_SECONDS) as server:
            identity = await asyncio.wait_for(server.identity(), _CONNECT_SECONDS)
    except Exception as error:  # noqa: BLE001 - every kind of address fails in its own way
        reason = str(error).partition("\n")[0] or type(error).__name__
        return f"no dask scheduler answers there ({reason})"
    found = str(identity["type"])
    return "" if found == "Scheduler" else f"a dask {found.lower()} answers there"


def _expect_same_versions(client: Any) -> None:
    try:
        found = client.run(read_versions)
    except ImportError as error:
        raise RenderError(
            f"the workers of the cluster can not load headgrid ({error}), expected the same "
            "packages there as here; install them in the workers' environment"
        ) from None
    for worker, versions in found.items():
        for name, version in read_versions().items():
            if versions.get(name) != version:
                raise RenderError(
                    f"{worker}: this worker has {name} {versions.get(name)}, expected {version} as "
                    "here, since figures differ between versions; install the same one"
                )
