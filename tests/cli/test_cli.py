import csv
import errno
import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.shell_completion import ShellComplete

import headgrid
from commandline import files_under, list_workers, run_process, start_process
from headgrid import Capture, save_capture
from headgrid.cli.main import main
from synthetic import block_capture, waves

pytestmark = pytest.mark.filterwarnings("default")

FULL = "full_frame_attention"
nightly = pytest.mark.nightly


# render


def test_the_demo_draws_both_figures_in_the_working_folder(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("demo", "--format", "svg,json")
    assert (done.exit_code, done.stderr) == (0, "")
    folder = tmp_path / "headgrid-demo"
    figures = [
        f"layer{layer}_{figure}.{format}"
        for layer in (0, 1)
        for figure in ("2d_heatmap", "perhead_grid")
        for format in ("svg", "json")
    ]
    captures = [f"captures/run_00{run}/layer{layer}.npz" for run in (0, 1, 2) for layer in (0, 1)]
    assert files_under(folder) == sorted(figures + captures)
    prompts = {headgrid.load_capture(folder / name).prompt for name in captures}
    assert len(prompts) == 3
    assert "synthetic" in (folder / "layer0_2d_heatmap.svg").read_text(encoding="utf-8")
    assert len(done.stdout.splitlines()) == 9


def test_folders_are_mirrored_in_natural_order(cli, capture_file, tmp_path):
    for name in ("run_10/layer2", "run_2/layer10", "run_2/layer9"):
        capture_file(f"in/{name}.npz")
    result = cli(
        "render", tmp_path / "in", "-o", tmp_path / "out", "--figure", "perhead", "--format", "json"
    )
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        str(tmp_path / "out" / name)
        for name in (
            "run_2/layer9_perhead_grid.json",
            "run_2/layer10_perhead_grid.json",
            "run_10/layer2_perhead_grid.json",
        )
    ]


def test_stdout_lists_the_files_that_were_written(cli, capture_file, tmp_path):
    result = cli("render", capture_file(), "-o", tmp_path / "out", "--format", "svg,png,pdf,json")
    assert sorted(result.stdout.splitlines()) == sorted(
        str(p) for p in (tmp_path / "out").iterdir()
    )
    assert len(result.stdout.splitlines()) == 8
    for path in (tmp_path / "out").glob("*.p*"):
        assert path.read_bytes().startswith({".png": b"\x89PNG", ".pdf": b"%PDF-"}[path.suffix])


def test_one_bad_file_among_many_is_reported_and_the_rest_is_drawn(cli, capture_file, tmp_path):
    for number in (1, 3):
        capture_file(f"in/layer{number}.npz")
    (tmp_path / "in/layer2.npz").write_bytes(b"not a capture")
    result = cli("render", tmp_path / "in", "-o", tmp_path / "out", "--format", "json")
    assert result.exit_code == 1
    assert [Path(line).name[:6] for line in result.stdout.splitlines()] == ["layer1"] * 2 + [
        "layer3"
    ] * 2
    first, last = result.stderr.splitlines()
    assert "layer2.npz" in first
    assert last == "headgrid: 1 of 3 inputs failed"


@pytest.mark.parametrize(("arguments", "ppi"), [([], 300), (["--ppi", "96"], 96)])
def test_png_has_the_resolution_in_its_header(cli, capture_file, tmp_path, arguments, ppi):
    out = tmp_path / "out"
    options = ["--figure", "perhead", "--format", "png,svg", *arguments]
    assert cli("render", capture_file(), "-o", out, *options).exit_code == 0
    content = (out / "layer3_perhead_grid.png").read_bytes()
    at = content.index(b"pHYs")
    per_metre = int.from_bytes(content[at + 4 : at + 8], "big")
    assert content[at + 12] == 1  # metres
    assert per_metre * 0.0254 == pytest.approx(ppi, abs=0.05)
    root = ElementTree.parse(out / "layer3_perhead_grid.svg").getroot()
    width = float(root.get("width").removesuffix("pt"))
    assert int.from_bytes(content[16:20], "big") == pytest.approx(width * ppi / 72, abs=1)


def test_columns_colours_and_title_reach_the_figure(cli, capture_file, tmp_path):
    capture_file("in/run_007/layer5.npz", prompt="a <cat> & {dog}")
    options = ["--columns", "1", "--palette", "custom", "--format", "json"]
    options += ["--color-range", "-5,10"]  # two numbers, even with a minus in front
    options += ["--title", "{run}/{layer}: {prompt}"]
    assert cli("render", tmp_path / "in", "-o", tmp_path / "out", *options).exit_code == 0
    text = (tmp_path / "out/run_007/layer5_2d_heatmap.json").read_text(encoding="utf-8")
    spec = json.loads(text)
    assert spec["columns"] == 1
    assert spec["usermeta"]["headgrid"]["color_range"] == [-5, 10]
    assert "#98202c" in text.lower()
    # The one column is narrow, so that the title wraps.
    assert " ".join(spec["title"]["text"][:-1]) == "run_007/5: a <cat> & {dog}"


def test_a_short_block_list_is_a_warning_on_stderr(cli, tmp_path):
    values = waves(2, 21, 21)
    values[:, 19:, :], values[:, :, 19:] = 0, 0
    np.savez(tmp_path / "layer3.npz", **{FULL: values}, block_sizes=[1, 3, 3, 3, 3, 3, 3])
    result = cli("render", tmp_path / "layer3.npz", "-o", tmp_path / "out", "--format", "json")
    assert result.exit_code == 0
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("headgrid: warning: ")
    assert "block_sizes sum to 19, but there are 21 frames; frames 19, 20" in result.stderr


# wrong usage


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "svgg"], "format is 'svgg', expected one of svg, .*html, json; .*'svg'"),
        (["--format", "svg,,png"], "format is '', expected one of svg, png, pdf, html, json"),
        (["--figure", "heatmaps"], "figure is 'heatmaps', expected one of .*mean 'heatmap'"),
        (["--palette", "rdbo"], "palette is 'rdbo', expected one of rdbu, custom; .*'rdbu'"),
        (["--color-range", "shard"], "color range is 'shard', expected one of .*mean 'shared'"),
        (["--color-range", "5,1"], "expected two .*numbers LO,HI"),
        (["--columns", "0"], "columns is 0, expected a whole number, at least 1"),
        (["--columns", "x"], "'x' is not a valid integer"),
        (["--ppi", "0"], "ppi is 0, expected 1 to 2400"),
        (["--ppi", "nan"], "ppi is nan, expected 1 to 2400"),
        (["--title", "{leyer}"], "title has the field {leyer}.*did you mean 'layer'"),
        (["--colums", "3"], "No such option.*--colums.*--columns"),
    ],
)
def test_wrong_usage_is_exit_2_with_the_choices(cli, capture_file, tmp_path, options, message):
    result = cli("render", capture_file(), "-o", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert re.search(message, result.stderr.replace("\n", " "))
    assert result.stdout == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments", [["render"], ["render", "x.pt"], ["stats"], ["nosuch"], ["stats", "--nosuch", "x"]]
)
def test_missing_and_unknown_arguments_are_exit_2(cli, arguments):
    assert cli(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "-o", ""], "a path is empty"),
        (["render", "", "-o", "x"], "a path is empty"),
        (["stats", ""], "a path is empty"),
        (["demo", "--color-range", "-1e308,1.7e308"], "numbers LO,HI with LO below HI"),
        (["demo", "--color-range", "0,1e-320"], "numbers LO,HI with LO below HI"),
        (["stats", "x.pt", "--format", "jsn"], "expected one of text, csv, json; did you mean 'j"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_written(
    cli, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    result = cli(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


def test_help_and_version_are_exit_0(cli):
    assert "render" in cli("--help").stdout
    assert "--color-range" in cli("render", "--help").stdout
    assert headgrid.__version__ in cli("--version").stdout
    assert cli("--help").exit_code == cli("-h").exit_code == cli("--version").exit_code == 0


# bad input


class Evil:
    def __reduce__(self):
        return (os.system, ("touch evil-was-here",))


def bad_capture(**arrays):
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


#: Contents of a file, and what is said of it; how captures are read has tests of its own.
BAD = {
    "layer3.pt": (b"", "the file is empty"),
    "layer4.pt": (b"\x89PNG\r\n\x1a\n not a capture at all", ""),
    "layer5.pt": (pickle.dumps({FULL: Evil()}, protocol=2), ""),
    "layer6.npz": (bad_capture(**{FULL: waves(1, 2, 2)[0]}), r"has shape \(2, 2\), expected \("),
    "layer7.npz": (bad_capture(prompt="x"), "neither full_frame_attention .* nor"),
    "missing.pt": (None, "there is no such file"),
    "folder/notes.txt": (b"x", "holds no capture"),
}


@pytest.mark.parametrize("command", ["render", "stats"])
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_exit_1_and_nothing_written(
    cli, tmp_path, monkeypatch, name, command
):
    monkeypatch.chdir(tmp_path)
    content, text = BAD[name]
    path = Path(name)
    if content is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    given = path.parent if path.suffix == ".txt" else path
    result = cli(command, given, *(["-o", "out"] if command == "render" else []))
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert re.match(rf"headgrid: {given}.*{text}", line)
    assert result.stdout == ""
    assert files_under(tmp_path) == ([] if content is None else [name])


def test_a_failure_that_nobody_foresaw_leaves_the_other_files_drawn(
    cli, capture_file, tmp_path, monkeypatch
):
    from headgrid.batch.run import Figures, plan_jobs, run_jobs
    from headgrid.charts import heatmap as charts

    def fail_once(capture, options):
        if capture.layer_index == 0:
            raise ZeroDivisionError("unforeseen")
        return draw(capture, options)

    draw = charts.draw_heatmap
    monkeypatch.setattr(charts, "draw_heatmap", fail_once)
    inputs = [capture_file("layer0.npz"), capture_file("layer1.npz")]
    failed, written = run_jobs(plan_jobs(inputs, tmp_path / "out", Figures(["json"])))
    assert "internal error (ZeroDivisionError: unforeseen)" in str(failed)
    assert [path.name for path in written] == ["layer1_2d_heatmap.json", "layer1_perhead_grid.json"]


def commands(path, out):
    """Return every command that reads captures, with all it needs."""
    return [
        ["stats", path],
        ["render", path, "-o", out, "--format", "json"],
        ["survey", path, "-o", out, "--format", "json"],
        ["explore", path, "-o", out.with_name(f"{out.name}.html")],
        ["pick", path, "--head", "0:0", "-o", out.with_name(f"{out.name}.json")],
        ["compare", path, path, "-o", out.with_name(f"{out.name}.json")],
    ]


@pytest.mark.parametrize("number", range(6))
def test_files_that_can_not_be_opened_are_exit_1_in_every_command(
    cli, capture_file, tmp_path, monkeypatch, number
):
    locked, opened = capture_file("locked/layer0.npz"), Path.open

    def refuse(path, mode="r", *arguments, **options):
        if path.name == locked.name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    (tmp_path / "loop.npz").symlink_to("loop.npz")
    for path in (locked, tmp_path / "loop.npz", tmp_path / f"{'x' * 300}.npz"):
        result = cli(*commands(path, tmp_path / "out")[number])
        assert result.exit_code == 1
        assert "can not be opened (" in result.stderr
        assert not [name for name in files_under(tmp_path) if "out" in name]


@pytest.mark.parametrize("number", range(1, 6))
def test_names_that_are_too_long_and_a_folder_that_is_gone_are_one_sentence(
    cli, capture_file, tmp_path, monkeypatch, number
):
    path = capture_file("layer0.npz")
    result = cli(*commands(path, tmp_path / ("x" * 260))[number])
    assert result.exit_code == 1
    assert "(File name too long), expected" in result.stderr
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    result = cli(*commands(path, Path("out"))[number])
    assert result.exit_code == 1
    (line,) = {line.partition("(")[2] for line in result.stderr.splitlines()}
    assert line.startswith("No such file or directory)")


# stats


def test_some_heads_are_rendered_with_marks_on_one_value_axis(cli, capture_file, tmp_path):
    path, more = capture_file("layer3.npz"), ["--marks", "blocks,1", "--value-axis", "shared"]
    result = cli("render", path, "-o", tmp_path / "out", "--heads", "1", *more)
    assert (result.exit_code, result.stderr) == (0, "")
    profiles = (tmp_path / "out/layer3_perhead_grid.svg").read_text("utf-8")
    assert "One value axis for all heads" in profiles
    assert "H1 (sink" in profiles
    assert "H0 (sink" not in profiles
    assert "headgrid_marks" in (tmp_path / "out/layer3_2d_heatmap.svg").read_text("utf-8")
    for heads, code, told in (
        ("9", 1, "there is no head 9 in layer 3"),
        ("9-", 2, "as in 0,3,7-9"),
    ):
        result = cli("render", path, "-o", tmp_path / "out", "--heads", heads)
        assert (result.exit_code, len(result.stderr.splitlines())) == (code, 1)
        assert told in result.stderr


def test_statistics_are_printed_in_the_seeds_line_format(cli, capture_file):
    path = capture_file("run_002/layer3.npz")
    capture = headgrid.load_capture(path)
    heads = headgrid.head_statistics(capture)
    layer = headgrid.layer_statistics(capture).iloc[0]
    result = cli("stats", path)
    assert result.exit_code == 0
    assert "\u2212" in result.stdout
    lines = result.stdout.replace("\u2212", "-").splitlines()
    assert lines[0] == "run_002, layer 3 (logit)"
    assert f"{layer['diagonal_mean']:.3f}" in lines[1]
    assert f"{layer['first_key_mean']:.3f}" in lines[1]
    assert lines[2:] == [
        f"H{h:2d}: first={r['first']:.3f}, mid={r['mid']:.3f}, last={r['last']:.3f}, "
        f"sink={r['sink']:+.3f}"
        for h, r in heads.iterrows()
    ]


def test_statistics_name_the_keys_of_first_and_last_where_keys_have_labels(cli, tmp_path):
    rows = np.array([[3.0, 1.0, 2.0, 4.0], [3.0, 1.0, 2.0, np.nan]])
    told = {
        (0, 1): "first = token 0 'The', last = token 2 '\u241b[1m' or 3 'mat'",
        (1,): "first = token 0 'The', last = token 2 '\u241b[1m'",
    }
    for heads, line in told.items():
        labels = ["The", "cat", "\x1b[1m", "mat"]
        capture = Capture.from_array(last_block=rows[list(heads)], key_labels=labels)
        result = cli("stats", save_capture(capture, tmp_path / "layer0.npz"))
        assert result.stdout.splitlines()[2] == line
    rows[:, 0] = np.nan
    capture = Capture.from_array(last_block=rows[:1], key_labels=["a", "b", "c", "d"])
    result = cli("stats", save_capture(capture, tmp_path / "layer0.npz"))
    assert result.stdout.splitlines()[2] == "last = token 3 'd'"


def test_statistics_as_csv_are_a_table(cli, capture_file, tmp_path):
    for number in (10, 2):
        capture_file(f"in/layer{number}.npz")
    result = cli("stats", tmp_path / "in", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [(row["layer"], row["head"]) for row in rows] == [
        ("2", "0"), ("2", "1"), ("10", "0"), ("10", "1")
    ]  # fmt: skip
    capture = headgrid.load_capture(tmp_path / "in/layer2.npz")
    assert float(rows[1]["sink"]) == pytest.approx(headgrid.sink_scores(capture)[1])
    diagonal = headgrid.layer_statistics(capture)["diagonal_mean"][0]
    assert float(rows[0]["diagonal_mean"]) == pytest.approx(diagonal)


def test_statistics_as_json_have_null_where_there_is_no_value(cli, tmp_path):
    capture = Capture.from_array(last_block=[[1.0, 2.0]], layer=4)
    path = save_capture(capture, tmp_path / "layer4.npz")
    (layer,) = json.loads(cli("stats", path, "--format", "json").stdout)
    assert (layer["layer"], layer["statistic"], layer["diagonal_mean"]) == (4, "logit", None)
    assert layer["heads"] == [{"head": 0, "first": 1.0, "mid": None, "last": 2.0, "sink": None}]
    assert "n/a" in cli("stats", path).stdout


def test_one_bad_file_does_not_hide_the_statistics_of_the_others(cli, capture_file, tmp_path):
    capture_file("in/layer1.npz")
    (tmp_path / "in/layer2.npz").write_bytes(b"")
    result = cli("stats", tmp_path / "in", "--format", "json")
    assert result.exit_code == 1
    assert len(json.loads(result.stdout)) == 1
    assert "layer2.npz" in result.stderr


# odd terminals and sudden ends


@pytest.mark.parametrize("command", ["stats", "render"])
def test_output_on_a_full_device_is_one_sentence(capture_file, tmp_path, command):
    arguments = {"stats": [], "render": ["-o", tmp_path / "out", "--format", "json"]}[command]
    with Path("/dev/full").open("w") as full:
        process = start_process(command, capture_file(), *arguments, stdout=full)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert stderr == (
        "headgrid: standard output can not be written (No space left on device), expected a place "
        "that has room\n"
    )


@pytest.mark.parametrize("number", [0, 1, *(pytest.param(n, marks=nightly) for n in range(2, 6))])
def test_a_reader_that_goes_away_ends_a_command_quietly(capture_file, tmp_path, number):
    process = start_process(*commands(capture_file("layer0.npz"), tmp_path / "out")[number])
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 1
    for path in tmp_path.rglob("*.json"):
        json.loads(path.read_bytes())
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_command_that_is_told_to_end_does_without_a_word(capture_file, tmp_path):
    process = start_process("render", capture_file(), "-o", tmp_path / "out")
    while not list_workers(process):
        time.sleep(0.01)
    process.terminate()
    _, stderr = process.communicate(timeout=60)  # of all its processes
    assert (process.returncode, stderr) == (128 + signal.SIGTERM, "")


def test_a_command_that_is_told_to_end_during_an_import_ends_after_it(tmp_path):
    told = "import os, signal; os.kill(os.getpid(), signal.SIGTERM); print('imported', flush=True)"
    (tmp_path / "told.py").write_text(told)
    run = "import headgrid.cli.main as cli, headgrid.__main__ as command, time\n"
    run += "def main():\n    import told\n    time.sleep(60)\ncli.main = main\ncommand.main()"
    done = subprocess.run([sys.executable, "-c", run], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGTERM, "imported\n", "")


def test_text_that_the_terminal_can_not_show_is_no_traceback(tmp_path):
    save_capture(block_capture(1, (1, 2)), (tmp_path / "注意.npz"))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = run_process("stats", tmp_path / "注意.npz", tmp_path / "力.npz", env=environment)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    assert "no such file" in done.stderr


def test_a_folder_whose_name_is_no_text_is_printed_on_one_line(cli, tmp_path):
    folder = tmp_path / os.fsdecode(b"run_0 \xff\n\x1b[31m")
    save_capture(block_capture(layer=3), folder / "layer3.npz")
    (folder / "layer4.npz").write_bytes(b"PK")
    done = cli("render", tmp_path, "-o", tmp_path / "o", "--figure", "perhead", "--format", "json")
    assert done.exit_code == 1
    (line,) = done.stdout.splitlines()
    assert line.endswith("/run_0 \ufffd\u240a\u241b[31m/layer3_perhead_grid.json")
    assert done.stderr.replace("\n", "").isprintable()


@pytest.mark.parametrize("format", ["svg", "png", "json"])
def test_one_figure_may_be_one_file(format, cli, tmp_path):
    layers = [block_capture(layer=layer) for layer in (0, 1)]
    saved = [save_capture(one, tmp_path / f"layer{one.layer_index}.npz") for one in layers]
    other = save_capture(layers[0], tmp_path / "other/layer0.npz")
    target, one = tmp_path / f"new/map.{format.upper()}", ["--figure", "heatmap"]
    done = cli("render", saved[0], "-o", target, *one)
    assert (done.exit_code, done.stdout.strip()) == (0, str(target))
    assert files_under(tmp_path / "new") == [target.name]
    cli("render", saved[0], "-o", tmp_path / "folder", *one, "--format", format)
    assert target.read_bytes() == (tmp_path / f"folder/layer0_2d_heatmap.{format}").read_bytes()
    target.unlink()
    for arguments, told in (
        ([saved[0]], "is one file, but both figures of a capture would be drawn; choose one"),
        ([*saved, *one], "is one file, but 2 captures would be drawn, expected one"),
        ([saved[0], other, *one], "is one file, but 2 captures would be drawn, expected one"),
        ([saved[0], "--format", "pdf"], "is a file and --format pdf, expected one of the two"),
    ):
        done = cli("render", *arguments, "-o", target)
        assert (done.exit_code != 0, target.exists()) == (True, False)
        assert f"headgrid: {target.name} {told}" in done.stderr


def test_a_file_of_another_format_is_no_folder(cli, capture_file, tmp_path):
    def render(name):
        return cli("render", capture_file(), "-o", tmp_path / name, "--format", "json")

    done = render("x.jpg")
    assert (done.exit_code, (tmp_path / "x.jpg").exists()) == (2, False)
    assert "x.jpg: suffix is '.jpg', expected a folder, or a file that ends in .svg, .png" in (
        done.stderr
    )
    assert "did you mean 'svg'" in render("x.svgg").stderr
    (tmp_path / "old.maps").mkdir()
    assert [render(name).exit_code for name in ("old.maps", "run.2", "maps.v2")] == [0, 0, 0]


def test_a_shell_completes_values():
    shell = ShellComplete(main, {}, "headgrid", "_HEADGRID_COMPLETE")

    def complete(*words):
        return [one.value for one in shell.get_completions([*words[:-1]], words[-1])]

    assert complete("render", "--theme", "p") == ["paper"]
    assert complete("render", "--format", "svg,p") == ["svg,png", "svg,pdf"]
    assert complete("survey", "--statistic", "sink_b") == ["sink_band", "sink_band_keys"]
    assert complete("record", "--statistic", "ma") == ["mass", "max_logit"]
