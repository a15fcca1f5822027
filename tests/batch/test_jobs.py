"""`headgrid render` of many captures: the same bytes, also when it is stopped and resumed."""

import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import headgrid
from commandline import (
    ENDED_BY_CTRL_C,
    contents,
    list_workers,
    run_process,
    start_process,
    wait_for_files,
)
from headgrid import Capture, FigureOptions, RenderError
from headgrid.batch import run
from headgrid.batch.manifest import NAME
from headgrid.batch.processes import DIED
from headgrid.batch.run import Figures, plan_jobs, run_jobs
from headgrid.cli.main import main
from synthetic import block_capture, waves

COUNT = 8
OPTIONS = ["--color-range", "shared"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Return a folder of captures, and one of their figures, made while a worker was killed."""
    inputs, out = tmp_path_factory.mktemp("sources") / "in", tmp_path_factory.mktemp("whole")
    for number in range(COUNT):
        capture = block_capture(2, (2, 2), layer=number, scale=1.0 + number, prompt=f"p{number}")
        headgrid.save_capture(capture, inputs / f"run_{number % 2}/layer{number}.npz")
    process = start_process("render", inputs, "-o", out, "--jobs", 2, *OPTIONS)
    wait_for_files(out, "*.svg", 2)
    os.kill(list_workers(process)[0], signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr) == (0, "")
    assert len(stdout.splitlines()) == 2 * COUNT
    return inputs, out


@pytest.fixture
def tree(sources, tmp_path):
    """Return a copy of the captures."""
    return shutil.copytree(sources[0], tmp_path / "in")


@pytest.fixture
def whole(sources, tmp_path):
    """Return a copy of the folder of figures."""
    return shutil.copytree(sources[1], tmp_path / "whole")


@pytest.fixture
def resume(cli, tree, whole):
    """Return a function that resumes in the folder of the whole run."""
    return lambda *options: cli(
        "render", tree, "-o", whole, "-j", 1, "--resume", *OPTIONS, *options
    )


def listed(folder):
    return json.loads((folder / NAME).read_bytes())


def names(done):
    return [Path(line).name for line in done.stdout.splitlines()]


# the same files from everywhere


def test_neither_processes_nor_a_killed_one_change_a_byte(cli, tree, whole, tmp_path):
    done = cli("render", tree, "-o", tmp_path / "one", "--jobs", 1, *OPTIONS)
    assert (done.exit_code, done.stderr) == (0, "")
    assert contents(tmp_path / "one") == contents(whole)
    assert names(done)[:2] == ["layer0_2d_heatmap.svg", "layer0_perhead_grid.svg"]
    assert len(set(names(done))) == 2 * COUNT


def test_the_manifest_lists_every_input_and_the_range_used(tree, whole):
    found = listed(whole)
    assert found["command"] == "render"
    assert set(found["jobs"]) == {path.relative_to(tree).as_posix() for path in tree.rglob("*.npz")}
    captures = [headgrid.load_capture(path) for path in tree.rglob("*.npz")]
    used = headgrid.resolve_color_range("shared", captures)
    assert found["color_range"] == [used.low, used.high]
    assert str(whole.parent) not in (whole / NAME).read_text()


def test_one_capture_has_no_manifest_unless_resume_asks_for_it(cli, tree, tmp_path):
    command = ["render", tree / "run_0/layer0.npz", "-o", tmp_path / "out", "--format", "json"]
    assert cli(*command).exit_code == 0
    assert not (tmp_path / "out" / NAME).exists()
    assert cli(*command, "--resume").exit_code == 0
    assert list(listed(tmp_path / "out")["jobs"]) == ["layer0.npz"]


def test_a_range_of_quantiles_is_pooled_over_all_inputs(tree, tmp_path):
    values = []
    for path in tree.rglob("*.npz"):
        capture = headgrid.load_capture(path)
        values += [capture.head_matrix(head).ravel() for head in range(capture.num_heads)]
    ends = np.nanquantile(np.concatenate(values), [0.01, 0.99])
    plan = plan_jobs([tree], tmp_path, Figures(options=FigureOptions(color_range="quantile")))
    assert plan.color_range.high == pytest.approx(np.abs(ends).max(), rel=1e-2)
    assert plan.color_range.low == -plan.color_range.high
    assert plan.figures.options.color_range is plan.color_range


def test_one_range_needs_one_statistic(cli, tree, tmp_path):
    mass = block_capture(2, (2, 2), layer=99, statistic="mass")
    headgrid.save_capture(mass, tree / "run_1/layer99.npz")
    done = cli("render", tree, "-o", tmp_path / "out", "-j", 1, "--color-range", "quantile")
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert "layer0.npz holds logit" in line
    assert "layer99.npz holds mass, expected one statistic for a shared color range" in line
    assert not (tmp_path / "out").exists()


# resume


def test_what_is_done_and_unchanged_is_left(resume, whole):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*.svg")}
    bytes_before = contents(whole)
    done = resume()
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == f"headgrid: {COUNT} of {COUNT} captures are unchanged\n"
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*.svg")} == before
    assert contents(whole) == bytes_before


def test_what_is_missing_or_altered_is_drawn_again(resume, tree, whole):
    expected = contents(whole)
    (whole / "run_0/layer0_2d_heatmap.svg").unlink()
    (whole / "run_1/layer3_perhead_grid.svg").write_text("<svg/>")
    (whole / "run_1/.layer3_2d_heatmap.svg-0123456789abcdef.tmp").write_text("half of")
    drawn = [f"layer{n}_{name}.svg" for n in (0, 3) for name in ("2d_heatmap", "perhead_grid")]
    assert names(resume()) == drawn
    assert contents(whole) == expected
    changed = block_capture(2, (2, 2), layer=4, scale=0.5, prompt="another")
    headgrid.save_capture(changed, tree / "run_0/layer4.npz")
    assert names(resume()) == ["layer4_2d_heatmap.svg", "layer4_perhead_grid.svg"]
    assert "another" in (whole / "run_0/layer4_2d_heatmap.svg").read_text(encoding="utf-8")


def test_inputs_that_are_gone_or_broken_leave_the_manifest(resume, tree, whole):
    (tree / "run_0/layer0.npz").unlink()
    (tree / "run_1/layer1.npz").write_bytes(b"broken")
    done = resume()
    assert (done.exit_code, done.stdout) == (1, "")
    first, unchanged, last = done.stderr.splitlines()
    assert "run_1/layer1.npz" in first
    assert unchanged == f"headgrid: {COUNT - 2} of {COUNT - 2} captures are unchanged"
    assert last == f"headgrid: 1 of {COUNT - 1} inputs failed"
    assert {"run_0/layer0.npz", "run_1/layer1.npz"}.isdisjoint(listed(whole)["jobs"])
    assert len(listed(whole)["jobs"]) == COUNT - 2


# stopped


def end_with_resume(cli, command, out):
    """Resume here; return the folder's files."""
    assert cli(*command, "--resume", "--jobs", 1).exit_code == 0
    return contents(out)


def test_a_run_that_was_killed_ends_as_one_that_was_not(cli, tree, whole, tmp_path):
    out = tmp_path / "out"
    command = ["render", tree, "-o", out, *OPTIONS]
    process = start_process(*command, "--jobs", 2)
    wait_for_files(out, "*.svg", 4)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    drawn = list(out.rglob("*.svg"))
    assert 4 <= len(drawn) < 2 * COUNT
    assert all(path.read_bytes().rstrip().endswith(b"</svg>") for path in drawn)
    assert end_with_resume(cli, command, out) == contents(whole)


def test_an_interrupted_run_keeps_what_is_finished(cli, tree, whole, tmp_path):
    out = tmp_path / "out"
    command = ["render", tree, "-o", out, *OPTIONS]
    process = start_process(*command, "--jobs", 2)
    wait_for_files(out, "*.svg", 4)
    os.kill(list_workers(process)[0], signal.SIGKILL)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (130, ENDED_BY_CTRL_C)
    assert not list(out.rglob("*.tmp"))
    jobs = listed(out)["jobs"]
    # The job that was being written may have one of its files, and is not listed.
    written = len(list(out.rglob("*.svg"))) - sum(len(job["outputs"]) for job in jobs.values())
    assert 0 <= written <= 2
    assert 2 <= len(jobs) < COUNT
    assert end_with_resume(cli, command, out) == contents(whole)


@pytest.mark.nightly
@pytest.mark.parametrize("command", ["render", "survey"])
def test_killed_at_any_moment_a_command_ends_and_is_resumed_to_the_same_bytes(
    cli, tree, tmp_path, command
):
    """HEADGRID_KILLS says how often; one of its workers is killed, or the command itself."""
    whole, chance = tmp_path / "whole", random.Random(command)
    begun = time.monotonic()
    assert run_process(command, tree / "run_0", "-o", whole, "--jobs", 2).returncode == 0
    seconds, ends = time.monotonic() - begun, Counter[int]()
    for number in range(int(os.environ.get("HEADGRID_KILLS", "50"))):
        out = tmp_path / f"out{number}"
        process = start_process(command, tree / "run_0", "-o", out, "--jobs", 2)
        time.sleep(chance.uniform(0.1, seconds))
        workers = list_workers(process)
        with suppress(ProcessLookupError):
            os.kill(chance.choice([*workers, *workers, process.pid]), signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode in (0, -signal.SIGKILL)
        ends[process.returncode] += 1
        options = ["--jobs", 1, "--resume"]
        assert cli(command, tree / "run_0", "-o", out, *options).exit_code == 0
        assert contents(out) == contents(whole)
        shutil.rmtree(out)
    print(command, dict(ends))


def test_two_commands_write_into_one_folder_at_once(cli, tree, tmp_path):
    def command(out):
        how = ["--resume", "--jobs", 1, "--format", "json"]
        return ["render", tree / "run_0", "-o", tmp_path / out, *how]

    for process in [start_process(*command("both")) for _ in range(2)]:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    assert cli(*command("one")).exit_code == 0
    assert contents(tmp_path / "both") == contents(tmp_path / "one")


@pytest.mark.nightly
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seconds", [0.5, 1, 2])
def test_an_end_is_one_line_or_none_whenever_it_comes(tree, tmp_path, end, seconds):
    process = start_process("render", tree, "-o", tmp_path / "out", "--jobs", "2")
    time.sleep(seconds)
    os.killpg(process.pid, end)
    _, stderr = process.communicate(timeout=20)
    # Python itself, before a line of headgrid has run, has an answer of its own.
    if "headgrid" in stderr or process.returncode != -end:
        assert process.returncode == 128 + end
        assert stderr == (ENDED_BY_CTRL_C if end == signal.SIGINT else "")


# bad input and bad luck


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--jobs", "0"], "jobs is 0, expected a whole number, 1 to 1024"),
        (["--jobs", "1025"], "jobs is 1025, expected a whole number, 1 to 1024"),
        (["--jobs", "two"], "'two' is not a valid integer"),
        (["--jobs", "2", "--dask", "tcp://127.0.0.1:9"], "expected one of the two"),
    ],
)
def test_a_number_of_processes_that_can_not_be_is_wrong_usage(
    cli, tree, tmp_path, options, message
):
    done = cli("render", tree, "-o", tmp_path / "out", *options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_full_disk_fails_the_files_that_do_not_fit(cli, tree, tmp_path):
    """A limit on the size of files takes the disk's place: the kernel refuses in mid-file."""
    wide = Capture.from_array(waves(12, 24, 24), layer=50)
    headgrid.save_capture(wide, tree / "run_1/layer50.npz")
    out, before = tmp_path / "out", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    try:
        done = cli("render", tree, "-o", out, "--jobs", 1, "--figure", "heatmap")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.exit_code == 1
    first, last = done.stderr.splitlines()
    assert "run_1/layer50_2d_heatmap.svg: can not be written (File too large)" in first
    assert "expected a folder that can be written to and has room" in first
    assert last == f"headgrid: 1 of {COUNT + 1} inputs failed"
    assert len(list(out.rglob("*.svg"))) == COUNT
    assert not list(out.rglob("*.tmp"))
    assert "run_1/layer50.npz" not in listed(out)["jobs"]


def test_an_input_that_changes_while_others_are_drawn_is_a_failure(tree, tmp_path):
    plan = plan_jobs([tree], tmp_path / "out", Figures(["json"]))
    changed = plan.jobs[3].file.path
    headgrid.save_capture(block_capture(2, (2, 2), layer=77), changed)
    failed = [outcome for outcome in run_jobs(plan) if isinstance(outcome, Exception)]
    (error,) = failed
    assert str(error).startswith(f"{changed}: the file has changed since the run began")


def test_a_capture_that_ends_its_process_fails_alone(tree, tmp_path, monkeypatch):
    def draw_or_die(job, **how):
        if "layer6" in job.key:
            raise BrokenExecutor(DIED)
        return draw(job, **how)

    draw = run.draw_job
    monkeypatch.setattr(run, "draw_job", draw_or_die)
    plan = plan_jobs([tree], tmp_path / "out", Figures(["json"]))
    (error,) = (outcome for outcome in run_jobs(plan) if isinstance(outcome, RenderError))
    assert "layer6.npz: the rendering process has died, most likely for want of mem" in str(error)
    assert len(list((tmp_path / "out").rglob("*.json"))) == 2 * COUNT - 2


# progress


def test_a_terminal_shows_count_rate_and_remaining_time(cli, tree, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    options = ["--figure", "perhead", "--format", "json", "--jobs", "1"]
    with pytest.raises(SystemExit, match="0"):
        main(["render", str(tree), "-o", str(tmp_path / "out"), *options])
    stdout, shown = capsys.readouterr()
    assert re.search(rf"\d+/{COUNT}", shown)
    assert re.search(r"[\d.]+ captures/s", shown)
    assert re.search(r"\d:\d\d:\d\d", shown)
    # What is written is still listed in the pipe, and nothing of the bar is.
    assert len(stdout.splitlines()) == COUNT
    assert all(Path(line).is_file() for line in stdout.splitlines())
