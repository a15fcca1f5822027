"""Calls -> results from other processes, in order and while this one goes on.

The renderer's engine needs half a second to start and holds Python's lock while
it works. In a process of its own both cost nothing here, and should the engine
ever run out of memory, it takes that process down and not the caller's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from concurrent.futures import wait as wait_for
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from headgrid.errors import OptionError
from headgrid.render import vega as engine

Item = TypeVar("Item")
Result = TypeVar("Result")

#: More processes than this are a slip of the keyboard.
MAX_JOBS = 1024


def map_in_order(
    executor: Executor,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    window: int,
) -> Iterator[Result]:
    """Yield ``function(item)`` of every item, in the order of the items.

    Parameters
    ----------
    executor : concurrent.futures.Executor
        Threads, processes (the function and the items are pickled) or a cluster.
    function : callable
        Called with one item.
    items : iterable
        Taken one by one, as there is room in the window.
    window : int
        Calls that are submitted and not yet yielded, at most: what bounds memory.

    Yields
    ------
    object
        The results. The first exception of a call is raised in its turn. Then, and
        where the iterator is closed early, what has not begun is cancelled.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(2) as executor:
    ...     list(map_in_order(executor, abs, iter([-3, 2, -1]), window=2))
    [3, 2, 1]
    """
    for _, future in submit_in_order(executor, function, items, window=window):
        yield future.result()


def submit_in_order(
    executor: Executor,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    window: int,
) -> Iterator[tuple[Item, Future[Result]]]:
    """Yield every item with its finished call; see `map_in_order`.

    A call that failed does not stop the others.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            waiting.append((item, _submit(executor, function, item)))
            if len(waiting) >= window:
                yield _wait_for_first(waiting)
        while waiting:
            yield _wait_for_first(waiting)
    finally:
        for _, future in waiting:
            future.cancel()


def _submit(executor: Executor, function: Callable[[Item], Result], item: Item) -> Future[Result]:
    try:
        return executor.submit(function, item)
    except BrokenExecutor as error:  # a pool that has lost a process takes nothing any more
        failed: Future[Result] = Future()
        failed.set_exception(error)
        return failed


def _wait_for_first(
    waiting: deque[tuple[Item, Future[Result]]],
) -> tuple[Item, Future[Result]]:
    wait_for([waiting[0][1]])  # an interruption leaves it among those that are cancelled
    return waiting.popleft()


def open_pool(
    jobs: int,
    dask: str | None = None,
    *,
    warm_up: Callable[[], object] | None = None,
) -> AbstractContextManager[Executor]:
    """Give an executor of processes here, or of an existing dask cluster.

    Parameters
    ----------
    jobs : int
        Number of processes, 1 to `MAX_JOBS`; they start at once. They ignore Ctrl-C, as
        the parent decides what it means, and end with it. A call whose process dies is
        repeated alone in a new one; it fails with ``BrokenProcessPool`` only where that
        dies as well.
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
    """Return a number of processes that is possible.

    Raises
    ------
    OptionError
        Otherwise.
    """
    if isinstance(jobs, bool) or not isinstance(jobs, int) or not 1 <= jobs <= MAX_JOBS:
        raise OptionError(f"jobs is {jobs!r}, expected a whole number, 1 to {MAX_JOBS}")
    return jobs


@contextmanager
def _open_processes(jobs: int, warm_up: Callable[[], object] | None) -> Iterator[Executor]:
    from headgrid.batch.processes import ProcessPool

    pool = ProcessPool(jobs, warm_up)
    try:
        yield pool
    except BaseException:
        pool.stop()
        raise
    pool.shutdown()


def rendering_process() -> AbstractContextManager[Executor]:
    """Give an executor with one process, where the engine starts to warm up at once."""
    return open_pool(1, warm_up=engine.warm_up)
