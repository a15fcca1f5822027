"""`headgrid survey` from outside: the files it leaves, also when it is stopped on its way."""

import csv
import json
import os
import resource
import signal
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import headgrid
from commandline import (
    ENDED_BY_CTRL_C,
    contents,
    files_under,
    run_process,
    start_process,
    wait_for_files,
)
from headgrid import Capture
from headgrid.survey.read import survey
from synthetic import block_capture, waves

pytestmark = pytest.mark.filterwarnings("default")

TABLES = ["heads.csv", "stability.csv", "statistics.csv", "statistics.parquet"]
FIGURES = ["overview.svg", "sheet.svg", "trend.svg"]
MANIFEST = "headgrid-jobs.json"
JSON = ["--format", "json"]  # where how figures are rendered is not the point
RUNS = [f"{set}/run_{run}" for set in ("cats", "dogs") for run in (0, 1, 2)]


def write_runs(folder, names, layers=2):
    """Write small captures, every one different."""
    for number, name in enumerate(names):
        for layer in range(layers):
            capture = block_capture(heads=2, blocks=(2, 2), scale=1 + 0.1 * number, layer=layer)
            headgrid.save_capture(capture, folder / name / f"layer{layer}.npz")
    return folder


@pytest.fixture
def two_sets(tmp_path):
    return write_runs(tmp_path / "in", RUNS)


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# what is written


def test_a_single_run_becomes_tables_and_three_figures(cli, tmp_path):
    done = cli("survey", write_runs(tmp_path / "in", ["run_0"]), "-o", tmp_path / "out")
    assert (done.exit_code, done.stderr) == (0, "")
    assert files_under(tmp_path / "out") == sorted([*TABLES, *FIGURES, MANIFEST])
    *listed, sinks = done.stdout.splitlines()
    listed = [Path(line).relative_to(tmp_path / "out").as_posix() for line in listed]
    assert sorted(listed) == sorted([*TABLES, *FIGURES])
    heads = read_csv(tmp_path / "out/heads.csv")
    strongest = max(heads, key=lambda row: float(row["mean"]))
    named = f"L{strongest['layer']} H{strongest['head']} {float(strongest['mean']):.3g}"
    assert sinks.startswith(f"strongest sinks (logits): {named}")
    for name in FIGURES:
        ElementTree.parse(tmp_path / "out" / name)


@pytest.fixture(scope="module")
def surveyed(tmp_path_factory):
    """Return two sets, the folder of their survey in all formats, and what it said."""
    folder = tmp_path_factory.mktemp("surveyed")
    sets = write_runs(folder / "in", RUNS)
    options = ["--statistic", "first", "--statistic", "entropy", "--format", "svg,json,png,pdf"]
    done = run_process("survey", sets, "-o", folder / "out", *options)
    assert done.returncode == 0
    return sets, folder / "out", done.stderr


def test_sets_become_maps_and_an_agreement_as_well(surveyed):
    sets, out, _ = surveyed
    maps = [
        f"{kind}/{set}/layer{layer}.npz"
        for kind in ("mean", "deviation")
        for set in ("cats", "dogs")
        for layer in (0, 1)
    ]
    figures = ["overview", "overview_first", "sheet", "trend", "trend_first"]
    figures += ["sheet/cats", "sheet/dogs"]
    drawn = [f"{figure}.{format}" for figure in figures for format in ("svg", "json", "png", "pdf")]
    assert files_under(out) == sorted([*TABLES, "agreement.csv", MANIFEST, *maps, *drawn])
    mean = headgrid.load_capture(out / "mean/cats/layer1.npz")
    runs = [headgrid.load_capture(sets / f"cats/run_{n}/layer1.npz") for n in range(3)]
    expected = np.mean([run.full_frame_attention for run in runs], axis=0)
    seen = mean.attendable
    np.testing.assert_allclose(mean.full_frame_attention[:, seen], expected[:, seen])


def test_the_tables_hold_every_bit_of_the_statistics(surveyed):
    import pandas as pd

    sets, out, _ = surveyed
    expected = survey(sets).statistics
    rows = read_csv(out / "statistics.csv")
    assert list(rows[0]) == list(expected.columns)
    for name in expected.columns[5:]:
        values = [float(row[name] or "nan") for row in rows]
        np.testing.assert_array_equal(values, expected[name].to_numpy())
    for name in expected.columns[:5]:
        assert [row[name] for row in rows] == expected[name].astype(str).tolist()
    parquet = pd.read_parquet(out / "statistics.parquet")
    pd.testing.assert_frame_equal(parquet, expected, check_exact=True)


def test_small_tables_are_those_of_the_survey(surveyed):
    sets, out, _ = surveyed
    found, measures = survey(sets), ("sink", "first", "entropy")
    for name, table, column in (
        ("stability", found.stability(*measures), "icc"),
        ("agreement", found.agreement(*measures), "rho"),
    ):
        rows = read_csv(out / f"{name}.csv")
        assert [row["measure"] for row in rows] == table["measure"].tolist()
        values = [float(row[column] or "nan") for row in rows]
        np.testing.assert_array_equal(values, table[column].to_numpy())
        assert [row["layer"] for row in rows if row["scope"] == "all"].count("") > 0
    heads = read_csv(out / "heads.csv")
    assert len(heads) == 3 * 2 * 2 * 2
    summary = found.summary("first").dropna(subset="head")
    means = [float(row["mean"]) for row in heads if row["measure"] == "first"]
    np.testing.assert_array_equal(means, summary["mean"].to_numpy())


def test_a_measure_without_a_value_is_not_drawn_and_a_warning(surveyed):
    _, _, said = surveyed
    (line,) = said.splitlines()
    assert "warning: entropy has no value in any head, as the captures hold logit" in line


def test_figures_come_in_every_format_and_with_the_range_that_was_used(surveyed):
    sets, out, _ = surveyed
    color_range = survey(sets).color_range("quantile")
    spec = json.loads((out / "sheet.json").read_text(encoding="utf-8"))
    of_cats = (out / "sheet/cats.json").read_text(encoding="utf-8")
    assert of_cats == headgrid.to_json(headgrid.sheet(survey(sets), set="cats"))
    told = f"\u2212{-color_range.low:.4g} to {color_range.high:.4g} (quantile)"
    assert told in spec["usermeta"]["headgrid"]["caption"]
    manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    assert manifest["color_range"] == [color_range.low, color_range.high]
    assert (out / "trend.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "overview.pdf").read_bytes().startswith(b"%PDF-")


def test_every_figure_has_the_width_that_is_asked_for(cli, tmp_path):
    options = ["-o", tmp_path / "out", "--width", "12cm", "--theme", "paper"]
    done = cli("survey", write_runs(tmp_path / "in", ["run_0"]), *options)
    assert done.exit_code == 0
    for name in FIGURES:
        svg = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert float(svg.split('width="')[1].split("pt")[0]) == pytest.approx(120 / 25.4 * 72)


def test_the_manifest_lists_every_input_with_its_digest(surveyed):
    from hashlib import sha256

    sets, out, _ = surveyed
    jobs = json.loads((out / MANIFEST).read_text(encoding="utf-8"))["jobs"]
    for name, content in contents(sets).items():
        assert jobs[name]["digest"] == sha256(content).hexdigest()


def test_nothing_says_where_the_inputs_lie(cli, tmp_path):
    written = []
    for above in ("here", "elsewhere/deeper"):
        write_runs(tmp_path / above / "in", ["cats/run_0", "cats/run_1", "dogs/run_0"])
        out = tmp_path / above / "out"
        assert cli("survey", tmp_path / above / "in", "-o", out, *JSON).exit_code == 0
        written.append(contents(out))
    assert written[0] == written[1]
    assert not [name for name, data in written[1].items() if b"elsewhere" in data]


@pytest.mark.parametrize("below", [".", "out"])
def test_what_a_survey_wrote_below_its_input_is_no_input_of_the_next(cli, two_sets, below):
    written = []
    for _ in range(2):
        result = cli("survey", two_sets, "-o", two_sets / below, *JSON)
        assert (result.exit_code, result.stderr) == (0, "")
        written.append(contents(two_sets / below))
    assert written[0] == written[1]
    assert cli("survey", two_sets / below / "mean", "-o", two_sets / "again", *JSON).exit_code == 0


def test_a_folder_that_holds_nothing_but_a_survey_is_an_error(cli, two_sets, tmp_path):
    cli("survey", two_sets, "-o", tmp_path / "all/out", *JSON)
    result = cli("survey", tmp_path / "all", "-o", tmp_path / "all/out", *JSON)
    assert result.exit_code == 1
    assert "all: holds no capture but those that a survey has written into" in result.stderr


def test_a_set_may_have_any_name(cli, tmp_path):
    write_runs(tmp_path / "in", ['a\n"b" <c>/run_0', "=1+1, x/run_0", "run_1"])
    assert cli("survey", tmp_path / "in", "-o", tmp_path / "out", *JSON).exit_code == 0
    rows = read_csv(tmp_path / "out/statistics.csv")
    assert {row["set"] for row in rows} == {'a\n"b" <c>', "=1+1, x", ""}
    assert (tmp_path / "out/sheet/-.json").exists()


def test_without_a_full_matrix_there_is_no_sheet_and_a_warning(cli, tmp_path):
    for run in (0, 1):
        row = waves(2, 1, 6)[:, 0] + run
        capture = Capture.from_array(last_block=row, layer=4)
        headgrid.save_capture(capture, tmp_path / f"in/run_{run}/layer4.npz")
    result = cli("survey", tmp_path / "in", "-o", tmp_path / "out", *JSON)
    assert result.exit_code == 0
    assert result.stderr == (
        "headgrid: warning: the captures hold no full matrix, so there is no sheet\n"
    )
    assert files_under(tmp_path / "out") == sorted(
        [
            *TABLES,
            "overview.json",
            "trend.json",
            MANIFEST,
            "mean/layer4.npz",
            "deviation/layer4.npz",
        ]
    )


# bad input


def test_a_bad_file_is_reported_and_the_rest_is_surveyed(cli, two_sets, tmp_path):
    (two_sets / "cats/run_1/layer0.npz").write_bytes(b"")
    result = cli("survey", two_sets, "-o", tmp_path / "out", *JSON)
    assert result.exit_code == 1
    first, second = result.stderr.splitlines()
    assert "run_1/layer0.npz: the file is empty (0 bytes)" in first
    assert "warning: cats/run_1: layer 0 is missing" in second
    assert len(read_csv(tmp_path / "out/statistics.csv")) == 11 * 2
    assert "cats/run_1/layer0.npz" not in (tmp_path / "out" / MANIFEST).read_text("utf-8")


def test_captures_that_can_not_be_compared_leave_nothing_behind(cli, two_sets, tmp_path):
    other = block_capture(statistic="mass", layer=1)
    headgrid.save_capture(other, two_sets / "dogs/run_2/layer1.npz")
    result = cli("survey", two_sets, "-o", tmp_path / "deep/out", *JSON)
    assert result.exit_code == 1
    assert "run_2/layer1.npz differ in the statistic: logit and mass" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize("content", [None, b"nonsense"])
def test_without_a_usable_capture_nothing_is_left_behind(cli, tmp_path, content):
    (tmp_path / "in").mkdir()
    if content:
        (tmp_path / "in/layer0.npz").write_bytes(content)
    result = cli("survey", tmp_path / "in", "-o", tmp_path / "out", *JSON)
    assert result.exit_code == 1
    assert str(tmp_path / "in") in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("output", ["file", "file/out"])
def test_an_output_that_is_a_file_or_below_one_is_an_error(cli, two_sets, tmp_path, output):
    (tmp_path / "file").write_text("mine")
    result = cli("survey", two_sets, "-o", tmp_path / output, *JSON)
    assert result.exit_code == 1
    assert "file: is a file, expected a folder" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--statistic", "sinks"], "statistic is 'sinks', expected one of first, mid"),
        (["--by", "run"], "by is 'run', expected set"),
        (["--color-range", "quantil"], "did you mean 'quantile'?"),
        (["--theme", "dark"], "theme is 'dark'"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_read(cli, tmp_path, arguments, text):
    result = cli("survey", tmp_path / "nowhere", "-o", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert text in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.fixture
def whole(cli, two_sets, tmp_path):
    """Return the files of a survey that nothing disturbed."""
    assert cli("survey", two_sets, "-o", tmp_path / "whole", *JSON).exit_code == 0
    return contents(tmp_path / "whole")


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_a_full_disk_leaves_no_half_of_a_file_and_can_be_resumed(
    cli, two_sets, whole, tmp_path, share
):
    """A limit on the size of files takes the disk's place: the kernel refuses in mid-file."""
    out, before = tmp_path / "out", resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = int(share * max(len(data) for data in whole.values()))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        done = cli("survey", two_sets, "-o", out, *JSON)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.exit_code == 1
    assert "can not be written" in done.stderr
    left = {name: data for name, data in contents(out).items() if name != MANIFEST}
    assert left.items() <= whole.items()
    assert cli("survey", two_sets, "-o", out, "--resume", *JSON).exit_code == 0
    assert contents(out) == whole


# many workers, and the same bytes


def test_two_processes_write_the_same_bytes_as_one(two_sets, whole, tmp_path):
    done = run_process("survey", two_sets, "-o", tmp_path / "out", "--jobs", 2, *JSON)
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(tmp_path / "out") == whole


# stopped on its way, and resumed


def test_killed_and_resumed_it_ends_equal(cli, two_sets, whole, tmp_path):
    command = ["survey", two_sets, "-o", tmp_path / "out", "--resume", *JSON]
    process = start_process(*command, "--jobs", 2)
    wait_for_files(tmp_path, "out/heads.csv", 1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert cli(*command).exit_code == 0
    assert contents(tmp_path / "out") == whole


def test_ctrl_c_ends_with_one_line_and_code_130_and_can_be_resumed(cli, two_sets, whole, tmp_path):
    out = tmp_path / "out"
    process = start_process("survey", two_sets, "-o", out, "--jobs", 2, *JSON)
    wait_for_files(out, "statistics.csv", 1)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, ENDED_BY_CTRL_C)
    assert cli("survey", two_sets, "-o", out, "--resume", *JSON).exit_code == 0
    assert contents(out) == whole


def test_a_finished_survey_is_resumed_without_reading_or_writing_anything(
    cli, two_sets, whole, tmp_path, monkeypatch
):
    from headgrid.survey import read

    out = tmp_path / "whole"
    monkeypatch.setattr(read, "read_part", None)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = cli("survey", two_sets, "-o", out, "--resume", *JSON)
    assert (again.exit_code, again.stdout, again.stderr) == (0, "", "")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times


def test_resume_makes_again_what_is_lost_or_altered_and_no_more(cli, two_sets, whole, tmp_path):
    out = tmp_path / "whole"
    (out / "sheet.json").unlink()
    (out / "trend.json").write_text("altered")
    again = cli("survey", two_sets, "-o", out, "--resume", *JSON)
    assert {Path(line).name for line in again.stdout.split()} >= {"sheet.json", "trend.json"}
    assert contents(out) == whole


def test_resume_makes_everything_again_with_other_options_or_inputs(cli, two_sets, tmp_path):
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    cli("survey", two_sets, "-o", out, *JSON)
    cli("survey", two_sets, "-o", out, "--resume", "--palette", "custom", *JSON)
    cli("survey", two_sets, "-o", fresh, "--palette", "custom", *JSON)
    assert contents(out) == contents(fresh)
    headgrid.save_capture(
        block_capture(heads=2, blocks=(2, 2), scale=9, layer=1), two_sets / "cats/run_0/layer1.npz"
    )
    cli("survey", two_sets, "-o", out, "--resume", "--palette", "custom", *JSON)
    cli("survey", two_sets, "-o", fresh, "--palette", "custom", *JSON)
    assert contents(out) == contents(fresh)
