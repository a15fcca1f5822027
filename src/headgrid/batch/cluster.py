"""Address of a dask scheduler -> executor whose calls its workers take."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from headgrid._version import __version__
from headgrid.batch.manifest import package_versions
from headgrid.batch.processes import DIED, HandingExecutor
from headgrid.errors import OptionError, RenderError
from headgrid.text import shorten_text

#: Seconds that a scheduler has to answer, and that a finished call's result may take to arrive.
_CONNECT_SECONDS, _GATHER_SECONDS = 8, 120
#: Calls that are under way at a time.
_CALLS = 64


@contextmanager
def open_cluster(address: str) -> Iterator[Executor]:
    """Give an executor of a cluster that is running, such as ``tcp://host:8786``.

    Its workers need the same versions of what shapes a figure's bytes, and the same files
    under the same paths.
    """
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
    """Have a worker make a call, and wait for its result.

    Dask's own executor leaves a call without an end where the connection breaks while
    the result is on its way.
    """
    from distributed import wait
    from distributed.scheduler import KilledWorker

    try:
        sent = client.submit(function, pure=False)
        with client.as_current():  # where `wait` looks for it
            wait(sent)
        if sent.status == "finished":
            return sent.result(timeout=_GATHER_SECONDS)
        failure = sent.exception() if sent.status == "error" else None
    except (Exception, asyncio.CancelledError):  # noqa: BLE001 - a lost client fails in many ways
        failure = None
    if isinstance(failure, KilledWorker):
        raise BrokenExecutor(DIED)
    raise failure or BrokenExecutor(
        "the dask cluster can not be reached any more, expected its scheduler to run until the "
        "end; start it again and go on with --resume"
    )


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
        found = f"no dask scheduler answers there ({reason})"
    if found != "Scheduler":
        raise RenderError(
            f"{shorten_text(address, 80)}: {found}, expected the address of a running dask "
            "scheduler (tcp://host:8786); start it, or leave --dask out"
        )
    return distributed.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)


async def _ask_for_type(address: str) -> str:
    import distributed

    async with distributed.rpc(address, timeout=_CONNECT_SECONDS) as server:
        identity = await asyncio.wait_for(server.identity(), _CONNECT_SECONDS)
    found = str(identity["type"])
    return found if found == "Scheduler" else f"a dask {found.lower()} answers there"


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


def read_versions() -> dict[str, str]:
    """Return the versions of all that shapes a figure's bytes, in this process."""
    return {"headgrid": __version__, **package_versions()}
