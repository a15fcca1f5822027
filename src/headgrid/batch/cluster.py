"""Address of a dask scheduler -> executor whose calls its workers take."""

from __future__ import annotations

import asyncio
import logging
from asyncio import CancelledError
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from headgrid._version import __version__
from headgrid.batch.manifest import package_versions
from headgrid.errors import OptionError, RenderError
from headgrid.text import shorten_text

#: Seconds that a scheduler has to answer.
CONNECT_SECONDS = 8
#: Seconds that the result of a finished call may take to arrive.
_GATHER_SECONDS = 120

#: Times that a call which fails on a worker is given to another one.
_RETRIES = 3


@contextmanager
def open_cluster(address: str) -> Iterator[Executor]:
    """Give an executor of a dask cluster that is running already.

    Parameters
    ----------
    address : str
        Of its scheduler, such as ``tcp://host:8786``. The workers need headgrid, and
        the same files under the same paths.

    Raises
    ------
    OptionError
        Where the package ``distributed`` is not installed.
    RenderError
        Where no scheduler answers within some seconds, and where a worker has no
        headgrid, or other versions of what shapes a figure's bytes.
    """
    client = _connect(address)
    try:
        _expect_same_versions(client)
        with _ClusterExecutor(client) as executor:
            yield executor
    finally:
        with suppress(Exception):  # of a scheduler that has ended nothing is left to close
            client.close(timeout=CONNECT_SECONDS)


class LostCluster(BrokenExecutor):
    """A call was given up because the scheduler has ended, or can not be reached."""


class _ClusterExecutor(Executor):
    """Gives calls to a dask client.

    Its own executor leaves a call without an end where the connection breaks while
    the result is on its way.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._waiting: set[Future[Any]] = set()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a call; function, arguments and result are pickled."""
        result: Future[Any] = Future()
        try:
            inner = self._client.submit(
                partial(function, *args, **kwargs), pure=False, retries=_RETRIES
            )
        except Exception as error:  # noqa: BLE001 - a client that was closed fails in many ways
            result.set_exception(LostCluster(str(error)))
            return result
        self._waiting.add(result)
        result.add_done_callback(self._waiting.discard)
        result.add_done_callback(lambda done: inner.cancel() if done.cancelled() else None)
        inner.add_done_callback(partial(_pass_on, result))
        return result

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for what was submitted, or cancel what has not begun."""
        waiting = list(self._waiting)
        if cancel_futures:
            for result in waiting:
                result.cancel()
        if wait:
            wait_for(waiting)

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.shutdown(cancel_futures=error is not None)


def _pass_on(result: Future[Any], inner: Any) -> None:
    """Give a call's result, or what went wrong in the cluster, to who waits for it."""
    if not result.set_running_or_notify_cancel():
        return
    try:
        result.set_result(inner.result(timeout=_GATHER_SECONDS))
    except (Exception, CancelledError) as error:  # noqa: BLE001 - whoever waits decides
        result.set_exception(_translate(error))


def _translate(error: BaseException) -> BaseException:
    from distributed.comm import CommClosedError
    from distributed.scheduler import KilledWorker

    if isinstance(error, KilledWorker):
        return BrokenExecutor(str(error))
    if isinstance(error, (CancelledError, CommClosedError, TimeoutError)):
        return LostCluster(str(error))
    return error


def _run_apart(start: Callable[[], Coroutine[Any, Any, str]]) -> str:
    """Run a coroutine in a thread: in a notebook an event loop is running in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(start())).result()


def _connect(address: str) -> Any:
    try:
        import distributed
    except ImportError:
        raise OptionError(
            "a dask cluster needs the package distributed, which is not installed; install it "
            "with pip install 'headgrid[dask]', or leave --dask out"
        ) from None
    _silence_log()
    # A client whose scheduler does not answer can not be closed either, so ask beforehand.
    try:
        found = _run_apart(partial(_ask_for_type, address))
    except Exception as error:  # noqa: BLE001 - every kind of address fails in its own way
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise _no_scheduler(address, f"no dask scheduler answers there ({reason})") from None
    if found != "Scheduler":
        raise _no_scheduler(address, f"a dask {found.lower()} answers there")
    return distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)


def _expect_same_versions(client: Any) -> None:
    expected = read_versions()
    try:
        found = client.run(read_versions)
    except ImportError as error:
        raise RenderError(
            f"the workers of the cluster can not load headgrid ({error}), expected the same "
            "packages there as here; install them in the workers' environment"
        ) from None
    for worker, versions in found.items():
        for name, version in expected.items():
            if versions.get(name) != version:
                raise RenderError(
                    f"{worker}: this worker has {name} {versions.get(name)}, expected {version} as "
                    "here, since figures differ between versions; install the same one"
                )


def read_versions() -> dict[str, str]:
    """Return the versions of all that shapes a figure's bytes, in this process."""
    return {"headgrid": __version__, **package_versions()}


async def _ask_for_type(address: str) -> str:
    import distributed

    async with distributed.rpc(address, timeout=CONNECT_SECONDS) as server:
        identity = await asyncio.wait_for(server.identity(), CONNECT_SECONDS)
    return str(identity["type"])


def _no_scheduler(address: str, finding: str) -> RenderError:
    return RenderError(
        f"{shorten_text(address, 80)}: {finding}, expected the address of a running "
        "dask scheduler (tcp://host:8786); start it, or leave --dask out"
    )


def _silence_log() -> None:
    """Keep the client's log from repeating at length what an error says in a sentence.

    For good: its threads go on to write after it is closed.
    """
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
