"""Calls in processes and on a cluster, whose workers may be lost."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from commandline import contents
from headgrid import OptionError, RenderError
from headgrid.batch.processes import open_pool
from headgrid.survey.calls import submit_in_order


class Recorder:
    """An executor that runs a call when it is submitted, and counts what is not taken yet."""

    def __init__(self):
        self.open, self.most, self.futures = 0, 0, []

    def submit(self, function, item):
        self.open += 1
        self.most = max(self.most, self.open)
        self.futures.append(Future())
        if item != "never":
            self.futures[-1].set_result(function(item))
        return self.futures[-1]


@pytest.mark.parametrize("window", [1, 2, 5])
def test_no_more_than_the_window_is_under_way(window):
    executor = Recorder()
    for number, call in submit_in_order(executor, str, range(20), window=window):
        executor.open -= 1
        assert call.result() == str(number)
    assert executor.most == window


def test_closing_cancels_what_has_not_begun():
    executor = Recorder()
    results = submit_in_order(executor, str, ["a", "never", "never"], window=3)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert [future.cancelled() for future in executor.futures] == [False, True, True]
    _, call = next(submit_in_order(executor, str, ["never"], window=1))
    assert call.cancelled()  # and whoever waits for it is told, where others cancel it


def end_process_if(item):
    """Kill this process once for a path that is not there yet, always for ``None``."""
    if item is None:
        os.kill(os.getpid(), signal.SIGKILL)
    if isinstance(item, Path) and not item.exists():
        item.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "as asked":
        raise LookupError(item)
    return os.getpid()


def test_a_call_whose_process_is_killed_is_repeated_and_only_one_that_kills_it_fails(tmp_path):
    items = [1, tmp_path / "mark", 2, None, 3, "as asked", 4]
    with open_pool(2) as executor:
        calls = [call for _, call in submit_in_order(executor, end_process_if, items, window=7)]
    failed = {number: call.exception() for number, call in enumerate(calls) if call.exception()}
    assert [*failed] == [3, 5]
    assert isinstance(failed[3], BrokenExecutor)
    assert "the rendering process has died, most likely for want of memory" in str(failed[3])
    assert (type(failed[5]), str(failed[5])) == (LookupError, "as asked")
    assert os.getpid() not in [call.result() for call in calls if not call.exception()]


def test_processes_end_at_once_on_an_error():
    begun, calls = time.monotonic(), []
    with suppress(LookupError), open_pool(2) as executor:
        calls += [executor.submit(time.sleep, 60) for _ in range(4)]
        time.sleep(0.3)
        raise LookupError
    assert time.monotonic() - begun < 30
    assert all(call.done() for call in calls)


PARENT = """
import os, time
from headgrid.batch.processes import open_pool
if __name__ == "__main__":
    with open_pool(2) as executor:
        print(*{executor.submit(os.getpid).result() for _ in range(9)}, flush=True)
        executor.submit(time.sleep, 60)
        time.sleep(60)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_processes_end_without_a_word_with_a_parent_that_is_killed(tmp_path, end):
    script = tmp_path / "program.py"
    script.write_text(PARENT)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, script], text=True, **pipes)
    workers = [int(pid) for pid in process.stdout.readline().split()]
    process.send_signal(end)
    assert process.communicate()[1] == ""  # their ends of the pipe are closed as well
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(map(is_alive, workers)):
        time.sleep(0.05)
    assert workers
    assert not any(map(is_alive, workers))


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


# dask


@pytest.fixture(scope="module")
def cluster():
    """Return a local cluster of two processes; skip where there is no dask."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address=":0",
        silence_logs=50,
    ) as running:
        yield running


@pytest.mark.parametrize("command", ["survey", pytest.param("render", marks=pytest.mark.nightly)])
def test_a_cluster_writes_the_same_bytes(
    cluster, cli, capture_file, tmp_path, monkeypatch, command
):
    for number in range(4):
        capture_file(f"in/run_{number}/layer0.npz", scale=1 + number)
    # Another folder than the workers': relative inputs have to be found as well.
    monkeypatch.chdir(tmp_path)
    assert cli(command, "in", "-o", "here", "--jobs", 1).exit_code == 0
    address = cluster.scheduler_address
    done = cli(command, "in", "-o", "there", "--dask", address)
    assert (done.exit_code, done.stderr) == (0, "")
    assert contents(Path("there")) == contents(Path("here"))


def test_workers_of_another_version_and_what_is_no_scheduler_are_refused(cluster, monkeypatch):
    address = next(iter(cluster.workers.values())).worker_address
    with pytest.raises(RenderError, match="a dask worker answers there"), open_pool(1, address):
        raise AssertionError
    monkeypatch.setattr("headgrid.batch.manifest.__version__", "99")
    expected = r"this worker has headgrid .*, expected 99 as here"
    with pytest.raises(RenderError, match=expected), open_pool(1, cluster.scheduler_address):
        raise AssertionError


def test_a_call_moves_on_from_a_lost_worker_and_a_notebook_can_make_it(cluster, tmp_path):
    async def cell():
        with open_pool(1, cluster.scheduler_address) as executor:
            items = [tmp_path / "mark", 2, "as asked"]
            return [c for _, c in submit_in_order(executor, end_process_if, items, window=3)]

    with ThreadPoolExecutor(1) as thread:  # another test's loop may be running in this one
        moved, other, failed = thread.submit(lambda: asyncio.run(cell())).result()
    assert os.getpid() not in (moved.result(), other.result())
    assert str(failed.exception()) == "as asked"


@pytest.mark.parametrize(
    ("command", "address"),
    [
        ("render", "tcp://127.0.0.1:9"),
        ("survey", "nonsense"),
        pytest.param("survey", "tcp://no.invalid:8786", marks=pytest.mark.nightly),
    ],
)
def test_a_dead_scheduler_is_one_sentence_within_seconds(
    cli, capture_file, tmp_path, command, address
):
    pytest.importorskip("distributed")
    begun = time.monotonic()
    done = cli(command, capture_file(), "-o", tmp_path / "out", "--dask", address)
    assert time.monotonic() - begun < 30
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"headgrid: {address}: no dask scheduler answers there (")
    assert "expected the address of a running dask scheduler (tcp://host:8786)" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.nightly
def test_a_scheduler_that_ends_fails_what_is_left_in_a_sentence(tmp_path):
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(n_workers=1, dashboard_address=":0", silence_logs=50)
    calls = []
    with open_pool(1, cluster.scheduler_address) as executor:
        calls += [executor.submit(time.sleep, 60) for _ in range(2)]
        time.sleep(1)
        cluster.close()
    for call in calls:
        assert "the dask cluster can not be reached any more" in str(call.exception(timeout=60))


def test_without_dask_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    expected = r"distributed, which is not installed; install it with pip install 'headgrid\[dask"
    with pytest.raises(OptionError, match=expected), open_pool(1, "tcp://127.0.0.1:9"):
        raise AssertionError
