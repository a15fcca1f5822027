"""Address of a dask scheduler -> executor whose calls its workers take."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from headgrid._version import __version__
from headgrid.batch.manifest import package_versions
from headgrid.batch.processes import LostCluster
from headgrid.errors import OptionError, RenderError
from headgrid.text import shorten_text

#: Seconds that a scheduler has to answer, and that a finished call's result may take to arrive.
_CONNECT_SECONDS, _GATHER_SECONDS = 8, 120
#: Times that a call which fails on a worker is given to another one.
_RETRIES = 3
#: Calls that are under way at a time.
_CALLS = 64

_CANCELLED = (CancelledError, asyncio.CancelledError)


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
    executor = _ClusterExecutor(client)
    try:
        _expect_same_versions(client)
        yield executor
        executor.shutdown()
    finally:
        with suppress(Exception):  # of a scheduler that has ended nothing is left to close
            client.close(timeout=_CONNECT_SECONDS)
        executor.shutdown(cancel_futures=True)  # closing has ended the calls under way


class _ClusterExecutor(ThreadPoolExecutor):
    """Threads that hand each call to a dask client, and wait for it.

    Dask's own executor leaves a call without an end where the connection breaks while
    the result is on its way.
    """

    def __init__(self, client: Any) -> None:
        super().__init__(_CALLS)
        self._client = client

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a call; function, arguments and result are pickled."""
        return super().submit(self._call, partial(function, *args, **kwargs))

    def _call(self, function: Callable[[], Any]) -> Any:
        from distributed import wait
        from distributed.comm import CommClosedError
        from distributed.scheduler import KilledWorker

        try:
            sent = self._client.submit(function, pure=False, retries=_RETRIES)
        except Exception as error:  # noqa: BLE001 - a client that was closed fails in many ways
            raise LostCluster(str(error)) from None
        try:
            with self._client.as_current():  # where `wait` looks for it
                wait(sent)
            return sent.result(timeout=_GATHER_SECONDS)
        except KilledWorker as error:
            raise BrokenExecutor(str(error)) from None
        except (*_CANCELLED, CommClosedError, TimeoutError) as error:
            raise LostCluster(str(error)) from None


def _connect(address: str) -> Any:
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
    try:
        with ThreadPoolExecutor(1) as thread:  # in a notebook an event loop runs in this one
            found = thread.submit(lambda: asyncio.run(_ask_for_type(address))).result()
    except Exception as error:  # noqa: BLE001 - every kind of address fails in its own way
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise _no_scheduler(address, f"no dask scheduler answers there ({reason})") from None
    if found != "Scheduler":
        raise _no_scheduler(address, f"a dask {found.lower()} answers there")
    return distributed.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)


async def _ask_for_type(address: str) -> str:
    import distributed

    async with distributed.rpc(address, timeout=_CONNECT_SECONDS) as server:
        identity = await asyncio.wait_for(server.identity(), _CONNECT_SECONDS)
    return str(identity["type"])


def _no_scheduler(address: str, finding: str) -> RenderError:
    return RenderError(
        f"{shorten_text(address, 80)}: {finding}, expected the address of a running "
        "dask scheduler (tcp://host:8786); start it, or leave --dask out"
    )


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
