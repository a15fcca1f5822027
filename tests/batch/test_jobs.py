"""Many captures in one go: processes, threads and a cluster; killed, interrupted and resumed."""

import asyncio
import errno
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import headgrid
from headgrid import Capture, FigureOptions, HeadgridWarning, OptionError, RenderError
from headgrid.batch.manifest import NAME
from headgrid.batch.processes import map_in_order, open_pool, submit_in_order
from headgrid.batch.run import plan_jobs, run_jobs
from synthetic import block_capture, waves

COUNT = 12


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Return a folder of small captures in two runs, and one of their figures, undisturbed."""
    inputs, out = tmp_path_factory.mktemp("sources") / "in", tmp_path_factory.mktemp("whole")
    for number in range(COUNT):
        folder = inputs / f"run_{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        capture = block_capture(2, (2, 2), layer=number, scale=1.0 + number, prompt=f"p{number}")
        headgrid.save_capture(capture, folder / f"layer{number}.npz")
    done = run(inputs, "-o", out, "--jobs", "2", "--color-range", "shared")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 2 * COUNT
    return inputs, out


@pytest.fixture
def tree(sources, tmp_path):
    """Return a copy of the captures."""
    return shutil.copytree(sources[0], tmp_path / "in")


@pytest.fixture
def whole(sources, tmp_path):
    """Return a copy of the folder of a run that nothing disturbed."""
    return shutil.copytree(sources[1], tmp_path / "whole")


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def listed(folder):
    return json.loads((folder / NAME).read_bytes())


def start(*arguments, **options):
    """Start the command in a group of processes of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "headgrid", "render", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def run(*arguments, **options):
    process = start(*arguments, **options)
    stdout, stderr = process.communicate(timeout=240)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def wait_for_files(folder, count):
    deadline = time.monotonic() + 120
    while len(list(folder.rglob("*.svg"))) < count and time.monotonic() < deadline:
        time.sleep(0.005)


# the same files from everywhere


def draw(tree, out, **options):
    """Draw by the API, as JSON and SVG; return what was written."""
    chosen = FigureOptions(color_range="shared")
    plan = plan_jobs([tree], out, formats=["svg", "json"], options=chosen, **options)
    for _, outcome in run_jobs(plan, **options):
        assert not isinstance(outcome, Exception), outcome
    return contents(out)


def test_threads_and_processes_draw_what_one_process_draws(tree, tmp_path):
    shutil.rmtree(tree / "run_1")
    expected = draw(tree, tmp_path / "here")
    assert len(expected) == 2 * 2 * COUNT / 2
    with ThreadPoolExecutor(3) as executor:
        assert draw(tree, tmp_path / "threads", executor=executor) == expected
    with open_pool(2) as executor:
        assert draw(tree, tmp_path / "pool", executor=executor) == expected


def test_the_number_of_processes_does_not_change_a_byte(tree, whole, tmp_path):
    done = run(tree, "-o", tmp_path / "one", "--jobs", "1", "--color-range", "shared")
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(tmp_path / "one") == contents(whole)
    names = [Path(line).relative_to(tmp_path / "one") for line in done.stdout.splitlines()]
    assert names[:2] == [
        Path("run_0/layer0_2d_heatmap.svg"),
        Path("run_0/layer0_perhead_grid.svg"),
    ]
    assert len(names) == len(set(names)) == 2 * COUNT


def test_the_manifest_lists_every_input_and_the_range_used(tree, whole):
    found = listed(whole)
    assert found["command"] == "render"
    assert set(found["jobs"]) == {path.relative_to(tree).as_posix() for path in tree.rglob("*.npz")}
    captures = [headgrid.load_capture(path) for path in tree.rglob("*.npz")]
    used = headgrid.resolve_color_range("shared", captures)
    assert found["color_range"] == [used.low, used.high]
    assert str(whole.parent) not in (whole / NAME).read_text()


def test_one_capture_has_no_manifest_unless_resume_asks_for_it(tree, tmp_path):
    path = tree / "run_0/layer0.npz"
    assert run(path, "-o", tmp_path / "out").returncode == 0
    assert not (tmp_path / "out" / NAME).exists()
    assert run(path, "-o", tmp_path / "out", "--resume").returncode == 0
    assert list(listed(tmp_path / "out")["jobs"]) == ["layer0.npz"]


def test_a_range_of_quantiles_is_pooled_over_all_inputs(tree, tmp_path):
    values = []
    for path in tree.rglob("*.npz"):
        capture = headgrid.load_capture(path)
        values += [capture.head_matrix(head).ravel() for head in range(capture.num_heads)]
    seen = np.concatenate(values)
    ends = np.nanquantile(seen, [0.01, 0.99])
    for executor in (None, ThreadPoolExecutor(2)):
        plan = plan_jobs(
            [tree], tmp_path, options=FigureOptions(color_range="quantile"), executor=executor
        )
        assert plan.color_range.high == pytest.approx(np.abs(ends).max(), rel=1e-2)
        assert plan.color_range.low == -plan.color_range.high
        assert plan.options.color_range is plan.color_range


@pytest.mark.parametrize("rule", ["shared", "quantile"])
def test_one_range_needs_one_statistic(tree, tmp_path, rule):
    mass = block_capture(2, (2, 2), layer=99, statistic="mass")
    headgrid.save_capture(mass, tree / "run_1/layer99.npz")
    done = run(tree, "-o", tmp_path / "out", "--color-range", rule)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "layer0.npz holds logit" in line
    assert "layer99.npz holds mass, expected one statistic for a shared color range" in line
    assert not (tmp_path / "out").exists()


def test_fixed_numbers_are_the_range_of_the_manifest(tree, tmp_path):
    options = ["--format", "json", "--color-range", "-5,10"]
    assert run(tree / "run_0", "-o", tmp_path / "out", *options).returncode == 0
    assert listed(tmp_path / "out")["color_range"] == [-5, 10]


# resume


def test_what_is_done_and_unchanged_is_left(tree, whole):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*.svg")}
    bytes_before = contents(whole)
    done = run(tree, "-o", whole, "--resume", "--color-range", "shared")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"headgrid: {COUNT} of {COUNT} captures are unchanged\n"
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*.svg")} == before
    assert contents(whole) == bytes_before


def test_what_is_missing_or_altered_is_drawn_again(tree, whole):
    expected = contents(whole)
    (whole / "run_0/layer0_2d_heatmap.svg").unlink()
    (whole / "run_1/layer3_perhead_grid.svg").write_text("<svg/>")
    (whole / "run_1/.layer3_2d_heatmap.svg-0123456789abcdef.tmp").write_text("half of")
    done = run(tree, "-o", whole, "--resume", "--color-range", "shared")
    assert [Path(line).name for line in done.stdout.splitlines()] == [
        "layer0_2d_heatmap.svg",
        "layer0_perhead_grid.svg",
        "layer3_2d_heatmap.svg",
        "layer3_perhead_grid.svg",
    ]
    assert contents(whole) == expected


def test_a_run_that_was_killed_ends_as_one_that_was_not(tree, whole, tmp_path):
    out = tmp_path / "out"
    process = start(tree, "-o", out, "--jobs", "2", "--color-range", "shared")
    wait_for_files(out, 4)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    drawn = list(out.rglob("*.svg"))
    assert 4 <= len(drawn) < 2 * COUNT
    assert all(path.read_bytes().rstrip().endswith(b"</svg>") for path in drawn)
    done = run(tree, "-o", out, "--resume", "--jobs", "1", "--color-range", "shared")
    assert done.returncode == 0
    assert contents(out) == contents(whole)


def test_a_changed_input_is_drawn_again(tree, whole):
    changed = block_capture(2, (2, 2), layer=4, scale=0.5, prompt="another")
    headgrid.save_capture(changed, tree / "run_0/layer4.npz")
    done = run(tree, "-o", whole, "--resume", "--color-range", "shared")
    assert [Path(line).name for line in done.stdout.splitlines()] == [
        "layer4_2d_heatmap.svg",
        "layer4_perhead_grid.svg",
    ]
    assert "another" in (whole / "run_0/layer4_2d_heatmap.svg").read_text(encoding="utf-8")
    again = run(tree, "-o", whole, "--resume", "--color-range", "shared")
    assert (again.returncode, again.stdout) == (0, "")


@pytest.mark.nightly
def test_another_option_draws_all_again(tree, whole):
    done = run(tree, "-o", whole, "--resume", "--color-range", "shared", "--columns", "1")
    assert len(done.stdout.splitlines()) == 2 * COUNT
    assert listed(whole)["options"]["columns"] == 1


def test_inputs_that_are_gone_or_broken_leave_the_manifest(tree, whole):
    (tree / "run_0/layer0.npz").unlink()
    (tree / "run_1/layer1.npz").write_bytes(b"broken")
    done = run(tree, "-o", whole, "--resume", "--color-range", "shared")
    assert done.returncode == 1
    assert done.stdout == ""
    first, unchanged, last = done.stderr.splitlines()
    assert "run_1/layer1.npz" in first
    assert unchanged == f"headgrid: {COUNT - 2} of {COUNT - 2} captures are unchanged"
    assert last == f"headgrid: 1 of {COUNT - 1} inputs failed"
    assert {"run_0/layer0.npz", "run_1/layer1.npz"}.isdisjoint(listed(whole)["jobs"])
    assert len(listed(whole)["jobs"]) == COUNT - 2


@pytest.mark.nightly
def test_a_run_killed_again_and_again_ends_as_one_that_was_not(tree, whole, tmp_path):
    out, chance = tmp_path / "out", random.Random(7)
    kills, progress = 0, []
    while kills < 40:
        process = start(tree, "-o", out, "--resume", "--jobs", "2", "--color-range", "shared")
        first = len(list(out.rglob("*.svg")))
        deadline = time.monotonic() + 60
        # Some die early, most of them in the middle of drawing and writing.
        if chance.random() < 0.75:
            while process.poll() is None and time.monotonic() < deadline:
                if len(list(out.rglob("*.svg"))) > first:
                    break
                time.sleep(0.002)
        try:
            process.communicate(timeout=chance.uniform(0.0, 0.4))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills += 1
            progress.append(len(list(out.rglob("*.svg"))))
            for path in out.rglob("*.svg"):
                assert path.read_bytes().rstrip().endswith(b"</svg>")
        else:
            assert process.returncode == 0
            break
    assert process.returncode == 0
    assert kills >= 3
    assert len(set(progress)) >= 3
    assert contents(out) == contents(whole)


def test_an_interrupted_run_keeps_what_is_finished(tree, whole, tmp_path):
    out = tmp_path / "out"
    process = start(tree, "-o", out, "--jobs", "2", "--color-range", "shared")
    wait_for_files(out, 6)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert stderr == "headgrid: stopped; every file written so far is whole\n"
    assert not list(out.rglob("*.tmp"))
    jobs = listed(out)["jobs"]
    written = {path.relative_to(out).as_posix() for path in out.rglob("*.svg")}
    # The job that was being written may have one of its files, and is not listed.
    assert 0 <= len(written) - sum(len(job["outputs"]) for job in jobs.values()) <= 1
    assert 3 <= len(jobs) < COUNT
    assert run(tree, "-o", out, "--resume", "--color-range", "shared").returncode == 0
    assert contents(out) == contents(whole)


@pytest.mark.nightly
@pytest.mark.parametrize("seconds", [0.05, 0.3, 0.7])
def test_an_interruption_is_one_line_whenever_it_comes(tree, tmp_path, seconds):
    process = start(tree, "-o", tmp_path / "out", "--jobs", "2")
    time.sleep(seconds)
    try:
        os.killpg(process.pid, signal.SIGINT)
    finally:
        _, stderr = process.communicate(timeout=20)
    # Python itself, before a line of headgrid has run, has an answer of its own.
    if "headgrid" in stderr and "Traceback" not in stderr:
        assert process.returncode == 130
        assert len(stderr.splitlines()) == 1
    else:
        assert seconds == 0.05


# bad input and bad luck


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--jobs", "0"], "jobs is 0, expected a whole number, 1 to 1024"),
        (["--jobs", "two"], "'two' is not a valid integer"),
        (["--jobs", "2", "--dask", "tcp://127.0.0.1:9"], "expected one of the two"),
    ],
)
def test_a_number_of_processes_that_can_not_be_is_wrong_usage(tree, tmp_path, options, message):
    done = run(tree, "-o", tmp_path / "out", *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("jobs", [0, -1, True, 1.5, "2"])
def test_a_pool_needs_a_whole_number_of_processes(jobs):
    with pytest.raises(OptionError, match=r"jobs is .*, expected a whole number, 1 to 1024"):
        open_pool(jobs)


def test_a_full_disk_fails_the_files_that_do_not_fit(tree, tmp_path):
    """A limit on the size of files takes the disk's place: the kernel refuses in mid-file."""
    wide = Capture.from_array(waves(12, 24, 24), layer=50)
    headgrid.save_capture(wide, tree / "run_1/layer50.npz")
    limit = 60_000
    out = tmp_path / "out"
    done = run(
        *(tree, "-o", out, "--jobs", "2", "--figure", "heatmap"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1
    first, last = done.stderr.splitlines()
    assert "run_1/layer50_2d_heatmap.svg: can not be written (File too large)" in first
    assert "expected a folder that can be written to and has room" in first
    assert last == f"headgrid: 1 of {COUNT + 1} inputs failed"
    assert len(list(out.rglob("*.svg"))) == COUNT
    assert not list(out.rglob("*.tmp"))
    assert "run_1/layer50.npz" not in listed(out)["jobs"]


def test_no_room_names_the_file_and_leaves_the_other_jobs(tree, tmp_path, monkeypatch):
    opened = Path.open

    def open_(path, mode="r", *arguments, **options):
        if "layer2_2d" in path.name and "x" in mode:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(path, mode, *arguments, **options)

    plan = plan_jobs([tree], tmp_path / "out", formats=["json"])
    monkeypatch.setattr(Path, "open", open_)
    failed = [outcome for _, outcome in run_jobs(plan) if isinstance(outcome, Exception)]
    (error,) = failed
    assert "layer2_2d_heatmap.json: can not be written (No space left on device)" in str(error)
    assert len(list((tmp_path / "out").rglob("*.json"))) == 2 * COUNT - 2


def test_an_input_that_changes_while_others_are_drawn_is_a_failure(tree, tmp_path):
    plan = plan_jobs([tree], tmp_path / "out", formats=["json"], keep=False)
    changed = plan.jobs[3].file.path
    headgrid.save_capture(block_capture(2, (2, 2), layer=77), changed)
    failed = [outcome for _, outcome in run_jobs(plan) if isinstance(outcome, Exception)]
    (error,) = failed
    assert str(error).startswith(f"{changed}: the file has changed since the run began")


def test_warnings_of_inputs_come_from_processes_as_well(tree, tmp_path):
    values = waves(1, 5, 5)
    values[:, 3:, :], values[:, :, 3:] = 0, 0
    path = tree / "run_1/layer60.npz"
    np.savez(path, full_frame_attention=values, block_sizes=np.array([1, 2]))
    with ThreadPoolExecutor(2) as executor, pytest.warns(HeadgridWarning) as caught:
        plan_jobs([tree], tmp_path, executor=executor)
    (warning,) = caught
    assert str(warning.message).startswith(f"{path}: block_sizes sum to 3, but there are 5 frames")


# workers


def test_results_come_in_the_order_of_the_items():
    def wait(seconds):
        time.sleep(seconds)
        return seconds

    with ThreadPoolExecutor(4) as executor:
        items = [0.05, 0.0, 0.03, 0.01]
        assert list(map_in_order(executor, wait, items, window=4)) == items


class Recorder:
    """An executor that runs a call when its result is asked for, and counts what is open."""

    def __init__(self):
        self.open, self.most, self.futures = 0, 0, []

    def submit(self, function, item):
        self.open += 1
        self.most = max(self.most, self.open)
        future = Future()
        if item == "fails":
            future.set_exception(ValueError("as asked"))
        elif item != "never":
            future.set_result(function(item))
        self.futures.append(future)
        return future


@pytest.mark.parametrize("window", [1, 2, 5])
def test_no_more_than_the_window_is_under_way(window):
    executor = Recorder()
    taken = []

    def items():
        for number in range(20):
            taken.append(number)
            yield number

    for number in map_in_order(executor, str, items(), window=window):
        executor.open -= 1
        assert len(taken) <= int(number) + window
    assert executor.most == window


def test_a_failure_cancels_what_has_not_begun():
    executor = Recorder()
    results = map_in_order(executor, str, ["a", "fails", "never", "never"], window=4)
    assert next(results) == "a"
    with pytest.raises(ValueError, match="as asked"):
        next(results)
    assert [future.cancelled() for future in executor.futures] == [False, False, True, True]


def test_closing_cancels_what_has_not_begun():
    executor = Recorder()
    results = map_in_order(executor, str, ["a", "never", "never"], window=3)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert [future.cancelled() for future in executor.futures] == [False, True, True]


def end_process_if(item):
    """Kill this process once for a path that is not there yet, always for ``None``."""
    if item is None:
        os.kill(os.getpid(), signal.SIGKILL)
    if isinstance(item, Path) and not item.exists():
        item.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def test_a_call_whose_process_is_killed_is_repeated(tmp_path):
    with open_pool(2) as executor:
        items = [1, tmp_path / "mark", 2, 3, 4, 5]
        results = list(map_in_order(executor, end_process_if, items, window=6))
    assert len(results) == 6
    assert os.getpid() not in results


def test_only_the_call_that_kills_its_process_fails():
    with open_pool(2) as executor:
        calls = submit_in_order(executor, end_process_if, [1, 2, None, 3, 4], window=5)
        failed = [call.exception() is not None for _, call in calls]
    assert failed == [False, False, True, False, False]


def test_a_capture_that_ends_its_process_fails_alone(tree, tmp_path, monkeypatch):
    """As the engine does when its memory ends; the worker finds out by the prompt."""
    plan = plan_jobs([tree], tmp_path / "out", formats=["json"], keep=False)
    with open_pool(2, warm_up=break_charts) as executor:
        outcomes = [outcome for _, outcome in run_jobs(plan, executor=executor)]
    errors = [outcome for outcome in outcomes if isinstance(outcome, RenderError)]
    (error,) = errors
    assert "layer6.npz: the rendering process has died, most likely for want of mem" in str(error)
    assert len(list((tmp_path / "out").rglob("*.json"))) == 2 * COUNT - 2


def break_charts():
    """Make this process die of one of the captures."""
    from headgrid.charts import heatmap as charts

    draw = charts.draw_perhead

    def draw_or_die(capture, options):
        if capture.prompt == "p6":
            os.kill(os.getpid(), signal.SIGKILL)
        return draw(capture, options)

    charts.draw_perhead = draw_or_die


def begin_and_fail(calls):
    with open_pool(2) as executor:
        calls += [executor.submit(time.sleep, 60) for _ in range(4)]
        raise ValueError("as asked")


def test_processes_end_at_once_on_an_error():
    begun, calls = time.monotonic(), []
    with pytest.raises(ValueError, match="as asked"):
        begin_and_fail(calls)
    assert time.monotonic() - begun < 30
    assert len(calls) == 4
    assert all(call.done() for call in calls)


def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    program = (
        "import os, sys, time\n"
        "from headgrid.batch.processes import open_pool\n"
        "if __name__ == '__main__':\n"
        "    with open_pool(2) as executor:\n"
        "        print(*{executor.submit(os.getpid).result() for _ in range(9)}, flush=True)\n"
        "        executor.submit(time.sleep, 60)\n"
        "        time.sleep(60)\n"
    )
    script = tmp_path / "program.py"
    script.write_text(program)
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    workers = [int(pid) for pid in process.stdout.readline().split()]
    process.kill()
    process.communicate()
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
        processes=True,
        host="127.0.0.1",
        dashboard_address=":0",
        silence_logs=50,
    ) as running:
        yield running


@pytest.mark.nightly
def test_a_cluster_draws_the_same_files_even_when_it_loses_a_worker(cluster, tree, whole, tmp_path):
    out = tmp_path / "out"
    # Another folder than the workers': relative inputs have to be found as well.
    process = start(
        *("in", "-o", "out", "--color-range", "shared", "--dask", cluster.scheduler_address),
        cwd=tmp_path,
    )
    wait_for_files(out, 6)
    os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr) == (0, "")
    assert len(stdout.splitlines()) == 2 * COUNT
    assert contents(out) == contents(whole)


def test_the_api_takes_dasks_own_executor(cluster, tree, tmp_path):
    from distributed import Client

    shutil.rmtree(tree / "run_1")
    expected = draw(tree, tmp_path / "here")
    with Client(cluster.scheduler_address, set_as_default=False) as client:
        executor = client.get_executor(pure=False)
        assert draw(tree, tmp_path / "out", executor=executor) == expected


def test_a_cluster_can_be_used_where_an_event_loop_is_running(cluster):
    async def cell():
        with open_pool(1, cluster.scheduler_address) as executor:
            return list(map_in_order(executor, abs, [-2, 3], window=2))

    with ThreadPoolExecutor(1) as thread:  # another test's loop may be running in this one
        assert thread.submit(lambda: asyncio.run(cell())).result() == [2, 3]  # as in a notebook


def test_workers_of_another_version_are_refused(cluster, monkeypatch):
    monkeypatch.setattr("headgrid.batch.cluster.__version__", "99")
    expected = r"this worker has headgrid .*, expected 99 as here"
    with pytest.raises(RenderError, match=expected), open_pool(1, cluster.scheduler_address):
        raise AssertionError


def test_a_worker_is_no_scheduler(cluster):
    address = next(iter(cluster.workers.values())).worker_address
    with pytest.raises(RenderError, match="a dask worker answers there"), open_pool(1, address):
        raise AssertionError


@pytest.mark.parametrize(
    "address",
    [
        "tcp://127.0.0.1:9",
        pytest.param("nonsense", marks=pytest.mark.nightly),
        pytest.param("tcp://no.invalid:8786", marks=pytest.mark.nightly),
    ],
)
def test_a_dead_scheduler_is_one_sentence_within_seconds(tree, tmp_path, address):
    pytest.importorskip("distributed")
    begun = time.monotonic()
    done = run(tree, "-o", tmp_path / "out", "--dask", address)
    assert time.monotonic() - begun < 30
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"headgrid: {address}: no dask scheduler answers there (")
    assert "expected the address of a running dask scheduler (tcp://host:8786)" in line
    assert not (tmp_path / "out").exists()


def test_without_dask_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    expected = r"distributed, which is not installed; install it with pip install 'headgrid\[dask"
    with pytest.raises(OptionError, match=expected), open_pool(1, "tcp://127.0.0.1:9"):
        raise AssertionError


# progress


def run_on_terminal(*arguments):
    """Run with stderr on a terminal and stdout in a pipe; return both texts."""
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "headgrid", "render", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # how a terminal says that its last writer has gone
            break
        if not part:
            break
        shown += part
    os.close(ours)
    stdout, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return stdout, shown.decode("utf-8", "replace")


def test_a_terminal_shows_count_rate_and_remaining_time(tree, tmp_path):
    out = tmp_path / "out"
    stdout, shown = run_on_terminal(tree, "-o", out, "--figure", "perhead", "--jobs", "2")
    assert re.search(rf"\d+/{COUNT}", shown)
    assert re.search(r"[\d.]+ captures/s", shown)
    assert re.search(r"\d:\d\d:\d\d", shown)
    # What is written is still listed in the pipe, and nothing of the bar is.
    assert len(stdout.splitlines()) == COUNT
    assert all(Path(line).is_file() for line in stdout.splitlines())
