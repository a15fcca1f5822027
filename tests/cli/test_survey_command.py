"""`headgrid survey` from outside: the files it leaves, also when it is stopped on its way."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import headgrid
from commandline import files_under
from commandline import run_process as run_command
from headgrid import Capture
from headgrid.survey.read import survey
from synthetic import block_capture, waves

pytestmark = pytest.mark.filterwarnings("default")

TABLES = ["heads.csv", "stability.csv", "statistics.csv", "statistics.parquet"]
FIGURES = ["overview.svg", "sheet.svg", "trend.svg"]
MANIFEST = "headgrid-jobs.json"


def run_process(*arguments, **options):
    return run_command("survey", *arguments, **options)


def contents(folder):
    return {name: (folder / name).read_bytes() for name in files_under(folder)}


def write_runs(folder, names, layers=2):
    """Write small captures, every one different."""
    for number, name in enumerate(names):
        for layer in range(layers):
            capture = block_capture(heads=2, blocks=(2, 2), scale=1 + 0.1 * number, layer=layer)
            headgrid.save_capture(capture, folder / name / f"layer{layer}.npz")
    return folder


@pytest.fixture
def two_sets(tmp_path):
    names = [f"{set}/run_{run}" for set in ("cats", "dogs") for run in (0, 1, 2)]
    return write_runs(tmp_path / "in", names)


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# what is written


def test_a_single_run_becomes_tables_and_three_figures_in_a_real_process(tmp_path):
    folder = write_runs(tmp_path / "in", ["run_0"])
    done = run_process(folder, "-o", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert files_under(tmp_path / "out") == sorted([*TABLES, *FIGURES, MANIFEST])
    listed = [Path(line).relative_to(tmp_path / "out").as_posix() for line in done.stdout.split()]
    assert sorted(listed) == sorted([*TABLES, *FIGURES])
    for name in FIGURES:
        ElementTree.parse(tmp_path / "out" / name)


def test_sets_become_maps_and_an_agreement_as_well(cli, two_sets, tmp_path):
    out = tmp_path / "out"
    assert cli("survey", two_sets, "-o", out).exit_code == 0
    maps = [
        f"{kind}/{set}/layer{layer}.npz"
        for kind in ("mean", "deviation")
        for set in ("cats", "dogs")
        for layer in (0, 1)
    ]
    sheets = ["sheet/cats.svg", "sheet/dogs.svg"]
    expected = [*TABLES, *FIGURES, *sheets, *maps, "agreement.csv", MANIFEST]
    assert files_under(out) == sorted(expected)
    mean = headgrid.load_capture(out / "mean/cats/layer1.npz")
    runs = [headgrid.load_capture(two_sets / f"cats/run_{n}/layer1.npz") for n in range(3)]
    expected = np.mean([run.full_frame_attention for run in runs], axis=0)
    seen = mean.attendable
    np.testing.assert_allclose(mean.full_frame_attention[:, seen], expected[:, seen])


def test_the_tables_hold_every_bit_of_the_statistics(cli, two_sets, tmp_path):
    import pandas as pd

    cli("survey", two_sets, "-o", tmp_path / "out")
    expected = survey(two_sets).statistics
    rows = read_csv(tmp_path / "out/statistics.csv")
    assert list(rows[0]) == list(expected.columns)
    for name in expected.columns[5:]:
        values = [float(row[name] or "nan") for row in rows]
        np.testing.assert_array_equal(values, expected[name].to_numpy())
    for name in expected.columns[:5]:
        assert [row[name] for row in rows] == expected[name].astype(str).tolist()
    parquet = pd.read_parquet(tmp_path / "out/statistics.parquet")
    pd.testing.assert_frame_equal(parquet, expected, check_exact=True)


def test_small_tables_are_those_of_the_survey(cli, two_sets, tmp_path):
    cli("survey", two_sets, "-o", tmp_path / "out", "--statistic", "first")
    found = survey(two_sets)
    for name, table, column in (
        ("stability", found.stability("sink", "first"), "icc"),
        ("agreement", found.agreement("sink", "first"), "rho"),
    ):
        rows = read_csv(tmp_path / "out" / f"{name}.csv")
        assert [row["measure"] for row in rows] == table["measure"].tolist()
        values = [float(row[column] or "nan") for row in rows]
        np.testing.assert_array_equal(values, table[column].to_numpy())
        assert [row["layer"] for row in rows if row["scope"] == "all"].count("") > 0
    heads = read_csv(tmp_path / "out/heads.csv")
    assert len(heads) == 2 * 2 * 2 * 2
    summary = found.summary("first").dropna(subset="head")
    means = [float(row["mean"]) for row in heads if row["measure"] == "first"]
    np.testing.assert_array_equal(means, summary["mean"].to_numpy())


def test_more_statistics_get_an_overview_and_a_trend_of_their_own(cli, two_sets, tmp_path):
    result = cli("survey", two_sets, "-o", tmp_path / "out", "--statistic", "positive_share")
    assert result.exit_code == 0
    assert {"overview.svg", "overview_positive_share.svg", "trend_positive_share.svg"} <= {
        *files_under(tmp_path / "out")
    }


def test_figures_come_in_every_format_and_with_the_range_that_was_used(cli, two_sets, tmp_path):
    out = tmp_path / "out"
    assert cli("survey", two_sets, "-o", out, "--format", "svg,json,png,pdf").exit_code == 0
    color_range = survey(two_sets).color_range("quantile")
    spec = json.loads((out / "sheet.json").read_text(encoding="utf-8"))
    assert f"{color_range.low:g} to {color_range.high:g} (quantile)" in json.dumps(spec["usermeta"])
    manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    assert manifest["color_range"] == [color_range.low, color_range.high]
    assert (out / "trend.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "overview.pdf").read_bytes().startswith(b"%PDF-")


def test_the_manifest_lists_every_input_with_its_digest(cli, two_sets, tmp_path):
    from hashlib import sha256

    cli("survey", two_sets, "-o", tmp_path / "out")
    jobs = json.loads((tmp_path / "out" / MANIFEST).read_text(encoding="utf-8"))["jobs"]
    for name, content in contents(two_sets).items():
        assert jobs[name]["digest"] == sha256(content).hexdigest()


def test_nothing_says_where_the_inputs_lie(cli, tmp_path):
    written = []
    for above in ("here", "elsewhere/deeper"):
        write_runs(tmp_path / above / "in", ["cats/run_0", "cats/run_1", "dogs/run_0"])
        out = tmp_path / above / "out"
        assert cli("survey", tmp_path / above / "in", "-o", out).exit_code == 0
        written.append(contents(out))
    assert written[0] == written[1]
    assert not [name for name, data in written[1].items() if b"elsewhere" in data]


def test_every_file_is_read_once(cli, two_sets, tmp_path, monkeypatch):
    from headgrid.capture import store

    read = []
    original = store.read_capture
    monkeypatch.setattr(store, "read_capture", lambda f: read.append(f.path) or original(f))
    assert cli("survey", two_sets, "-o", tmp_path / "out").exit_code == 0
    assert sorted(read) == sorted(two_sets.rglob("*.npz"))


@pytest.mark.parametrize("below", [".", "out"])
def test_what_a_survey_wrote_below_its_input_is_no_input_of_the_next(cli, two_sets, below):
    written = []
    for _ in range(2):
        result = cli("survey", two_sets, "-o", two_sets / below)
        assert (result.exit_code, result.stderr) == (0, "")
        written.append(contents(two_sets / below))
    assert written[0] == written[1]
    assert cli("survey", two_sets / below / "mean", "-o", two_sets / "again").exit_code == 0


def test_a_folder_that_holds_nothing_but_a_survey_is_an_error(cli, two_sets, tmp_path):
    cli("survey", two_sets, "-o", tmp_path / "all/out")
    result = cli("survey", tmp_path / "all", "-o", tmp_path / "all/out")
    assert result.exit_code == 1
    assert "all: holds no capture but those that a survey has written into" in result.stderr


def test_a_set_may_have_any_name(cli, tmp_path):
    write_runs(tmp_path / "in", ['a\n"b" <c>/run_0', "=1+1, x/run_0", "run_1"])
    assert cli("survey", tmp_path / "in", "-o", tmp_path / "out").exit_code == 0
    rows = read_csv(tmp_path / "out/statistics.csv")
    assert {row["set"] for row in rows} == {'a\n"b" <c>', "=1+1, x", ""}
    assert (tmp_path / "out/sheet/-.svg").exists()


def test_without_a_full_matrix_there_is_no_sheet_and_a_warning(cli, tmp_path):
    for run in (0, 1):
        row = waves(2, 1, 6)[:, 0] + run
        capture = Capture.from_array(last_block=row, layer=4)
        headgrid.save_capture(capture, tmp_path / f"in/run_{run}/layer4.npz")
    result = cli("survey", tmp_path / "in", "-o", tmp_path / "out")
    assert result.exit_code == 0
    assert result.stderr == (
        "headgrid: warning: the captures hold no full matrix, so there is no sheet\n"
    )
    assert files_under(tmp_path / "out") == sorted(
        [*TABLES, *FIGURES[::2], MANIFEST, "mean/layer4.npz", "deviation/layer4.npz"]
    )


def test_a_measure_without_a_value_is_not_drawn_and_a_warning(cli, two_sets, tmp_path):
    result = cli("survey", two_sets, "-o", tmp_path / "out", "--statistic", "entropy")
    assert result.exit_code == 0
    assert "warning: entropy has no value in any head, as the captures hold logit" in result.stderr
    assert "overview_entropy.svg" not in files_under(tmp_path / "out")


# bad input


def test_a_bad_file_is_reported_and_the_rest_is_surveyed(cli, two_sets, tmp_path):
    (two_sets / "cats/run_1/layer0.npz").write_bytes(b"")
    result = cli("survey", two_sets, "-o", tmp_path / "out")
    assert result.exit_code == 1
    first, second = result.stderr.splitlines()
    assert "run_1/layer0.npz: the file is empty (0 bytes)" in first
    assert "warning: cats/run_1: layer 0 is missing" in second
    assert len(read_csv(tmp_path / "out/statistics.csv")) == 11 * 2
    assert "cats/run_1/layer0.npz" not in (tmp_path / "out" / MANIFEST).read_text("utf-8")


def test_an_input_that_is_not_there_is_reported_beside_the_others(cli, two_sets, tmp_path):
    result = cli("survey", two_sets, tmp_path / "nowhere", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "nowhere: there is no such file or folder" in result.stderr
    assert (tmp_path / "out/sheet.svg").exists()


def test_captures_that_can_not_be_compared_leave_nothing_behind(cli, two_sets, tmp_path):
    other = block_capture(statistic="mass", layer=1)
    headgrid.save_capture(other, two_sets / "dogs/run_2/layer1.npz")
    result = cli("survey", two_sets, "-o", tmp_path / "deep/out")
    assert result.exit_code == 1
    assert "run_2/layer1.npz differ in the statistic: logit and mass" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize("content", [None, b"nonsense"])
def test_without_a_usable_capture_nothing_is_left_behind(cli, tmp_path, content):
    (tmp_path / "in").mkdir()
    if content:
        (tmp_path / "in/layer0.npz").write_bytes(content)
    result = cli("survey", tmp_path / "in", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert str(tmp_path / "in") in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_an_error(cli, two_sets, tmp_path):
    (tmp_path / "out").write_text("mine")
    result = cli("survey", two_sets, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "out: is a file, expected a folder" in result.stderr
    assert (tmp_path / "out").read_text() == "mine"


def test_an_output_below_a_file_is_an_error(cli, two_sets, tmp_path):
    (tmp_path / "file").write_text("mine")
    result = cli("survey", two_sets, "-o", tmp_path / "file/out")
    assert result.exit_code == 1
    assert "file: is a file, expected a folder" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--statistic", "sinks"], "statistic is 'sinks', expected one of first, mid"),
        (["--by", "run"], "by is 'run', expected one of set"),
        (["--jobs", "0"], "jobs is 0, expected a whole number"),
        (["--format", "gif"], "format is 'gif'"),
        (["--color-range", "quantil"], "did you mean 'quantile'?"),
        (["--theme", "dark"], "theme is 'dark'"),
        (["--ppi", "0"], "ppi is 0"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_read(cli, tmp_path, arguments, text):
    result = cli("survey", tmp_path / "nowhere", "-o", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert text in result.stderr
    assert not (tmp_path / "out").exists()


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), -1))
sys.argv = ["headgrid", *sys.argv[2:]]
from headgrid.cli.main import main
main()
"""


@pytest.mark.parametrize(
    "share", [0.1, *(pytest.param(share, marks=pytest.mark.nightly) for share in (0.02, 0.5))]
)
def test_a_full_disk_leaves_no_half_of_a_file_and_can_be_resumed(two_sets, tmp_path, share):
    whole = tmp_path / "whole"
    assert run_process(two_sets, "-o", whole).returncode == 0
    largest = max(len(data) for data in contents(whole).values())
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(int(largest * share)), "survey", two_sets, "-o", "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "can not be written" in done.stderr
    assert "Traceback" not in done.stderr
    left = contents(tmp_path / "out")
    assert {n: d for n, d in left.items() if n in contents(whole) and n != MANIFEST}.items() <= (
        contents(whole).items()
    )
    assert run_process(two_sets, "-o", tmp_path / "out", "--resume").returncode == 0
    assert contents(tmp_path / "out") == contents(whole)


# many workers, and the same bytes


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Return a tree of 40 runs in 2 sets, 6 layers each, and the folder of its survey."""
    folder = tmp_path_factory.mktemp("corpus")
    names = [f"{set}/run_{run:03d}" for set in ("cats", "dogs") for run in range(20)]
    write_runs(folder / "in", names, layers=6)
    done = run_process(folder / "in", "-o", folder / "whole", "--jobs", 1)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def test_two_processes_write_the_same_bytes_as_one(corpus, tmp_path):
    done = run_process(corpus / "in", "-o", tmp_path / "out", "--jobs", 2)
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(tmp_path / "out") == contents(corpus / "whole")


def test_a_dask_cluster_writes_the_same_bytes(corpus, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        dashboard_address=":0",
        local_directory=str(tmp_path / "dask"),
    ) as cluster:
        done = run_process(
            corpus / "in", "-o", tmp_path / "out", "--dask", cluster.scheduler_address
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(tmp_path / "out") == contents(corpus / "whole")


def test_a_scheduler_that_does_not_answer_leaves_nothing_behind(two_sets, tmp_path):
    pytest.importorskip("distributed")
    done = run_process(two_sets, "-o", tmp_path / "out", "--dask", "tcp://127.0.0.1:9")
    assert done.returncode == 1
    assert "no dask scheduler answers there" in done.stderr
    assert not (tmp_path / "out").exists()


# stopped on its way, and resumed


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "headgrid", "survey", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("jobs", "attempts"), [(1, 1), *(pytest.param(n, 6, marks=pytest.mark.nightly) for n in (1, 2))]
)
def test_killed_at_random_moments_and_resumed_it_ends_equal(corpus, tmp_path, jobs, attempts):
    out = tmp_path / "out"
    arguments = [corpus / "in", "-o", out, "--jobs", jobs, "--resume"]
    moments = random.Random(jobs)
    for _ in range(attempts):
        process = start(*arguments)
        time.sleep(moments.uniform(0.5, 4))
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    done = run_process(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(out) == contents(corpus / "whole")


def test_ctrl_c_ends_with_one_line_and_code_130_and_can_be_resumed(corpus, tmp_path):
    out = tmp_path / "out"
    process = start(corpus / "in", "-o", out, "--jobs", 2)
    deadline = time.monotonic() + 60
    while not (out / "statistics.csv").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr == "headgrid: stopped; every file written so far is whole\n"
    done = run_process(corpus / "in", "-o", out, "--resume")
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(out) == contents(corpus / "whole")


def test_a_finished_survey_is_resumed_unread(cli, two_sets, tmp_path, monkeypatch):
    from headgrid.survey import read

    out = tmp_path / "out"
    cli("survey", two_sets, "-o", out)
    monkeypatch.setattr(read, "read_part", None)
    again = cli("survey", two_sets, "-o", out, "--resume")
    assert (again.exit_code, again.stdout, again.stderr) == (0, "", "")


def test_a_finished_survey_is_resumed_without_writing_anything(cli, two_sets, tmp_path):
    out = tmp_path / "out"
    first = cli("survey", two_sets, "-o", out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.*g")}
    again = cli("survey", two_sets, "-o", out, "--resume")
    assert (again.exit_code, again.stdout, again.stderr) == (0, "", "")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.*g")} == times
    assert first.stdout


def test_resume_makes_again_what_is_lost_or_altered_and_no_more(cli, two_sets, tmp_path):
    out = tmp_path / "out"
    cli("survey", two_sets, "-o", out)
    whole = contents(out)
    (out / "sheet.svg").unlink()
    (out / "trend.svg").write_text("altered")
    again = cli("survey", two_sets, "-o", out, "--resume")
    assert {Path(line).name for line in again.stdout.split()} == {"sheet.svg", "trend.svg"}
    assert contents(out) == whole


def test_resume_makes_everything_again_with_other_options_or_inputs(cli, two_sets, tmp_path):
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    cli("survey", two_sets, "-o", out)
    cli("survey", two_sets, "-o", out, "--resume", "--palette", "custom")
    cli("survey", two_sets, "-o", fresh, "--palette", "custom")
    assert contents(out) == contents(fresh)
    headgrid.save_capture(
        block_capture(heads=2, blocks=(2, 2), scale=9, layer=1), two_sets / "cats/run_0/layer1.npz"
    )
    cli("survey", two_sets, "-o", out, "--resume", "--palette", "custom")
    cli("survey", two_sets, "-o", fresh, "--palette", "custom")
    assert contents(out) == contents(fresh)
