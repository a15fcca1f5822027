import csv
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

import headgrid
from commandline import files_under, run_process
from headgrid import Capture, save_capture
from synthetic import block_capture, waves

pytestmark = pytest.mark.filterwarnings("default")

FULL = "full_frame_attention"


# render


def test_one_capture_becomes_two_svg_files_in_a_real_process(capture_file, tmp_path):
    path = capture_file("layer3.npz", heads=2)
    done = run_process("render", path, "-o", tmp_path / "out")
    assert done.returncode == 0
    assert files_under(tmp_path / "out") == ["layer3_2d_heatmap.svg", "layer3_perhead_grid.svg"]
    assert done.stdout.splitlines() == [
        str(tmp_path / "out" / name) for name in files_under(tmp_path / "out")
    ]
    assert done.stderr == ""  # no progress bar in a pipe
    for name in files_under(tmp_path / "out"):
        ElementTree.parse(tmp_path / "out" / name)


def test_the_demo_draws_both_figures_in_a_real_process(tmp_path):
    done = run_process("demo", "--format", "svg,json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "headgrid-demo"
    expected = {
        f"layer{layer}_{figure}.{format}"
        for layer in (0, 1)
        for figure in ("2d_heatmap", "perhead_grid")
        for format in ("svg", "json")
    }
    assert set(files_under(folder)) == expected
    assert "synthetic" in (folder / "layer0_2d_heatmap.svg").read_text(encoding="utf-8")
    assert len(done.stdout.splitlines()) == 8


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


def test_collisions_are_an_error_before_anything_is_drawn(cli, capture_file, tmp_path):
    inputs = [capture_file("a/layer3.npz"), capture_file("b/layer3.npz")]
    result = cli("render", *inputs, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "would both become" in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "out").exists()


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


@pytest.mark.parametrize("format", ["png", "pdf"])
def test_other_formats_are_what_they_say(cli, capture_file, tmp_path, format):
    out = tmp_path / "out"
    assert cli("render", capture_file(), "-o", out, "--format", format).exit_code == 0
    for path in out.iterdir():
        assert path.read_bytes().startswith({"png": b"\x89PNG", "pdf": b"%PDF-"}[format])


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


def test_a_shared_colour_range_spans_all_inputs(cli, capture_file, tmp_path):
    inputs = [capture_file(f"layer{n}.npz", scale=s) for n, s in enumerate((1.0, 6.0))]
    ends = {}
    for rule in ("shared", "symmetric"):
        out = tmp_path / rule
        options = ["--color-range", rule, "--format", "json", "--figure", "heatmap"]
        assert cli("render", *inputs, "-o", out, *options).exit_code == 0
        specs = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(out.glob("layer*"))]
        ends[rule] = [s["usermeta"]["headgrid"]["color_range"][1] for s in specs]
    assert ends["shared"] == [ends["symmetric"][1]] * 2
    assert ends["symmetric"][0] == pytest.approx(ends["symmetric"][1] / 6)


def test_two_numbers_are_a_colour_range_even_with_a_minus_in_front(cli, capture_file, tmp_path):
    options = ["--color-range", "-5,10", "--format", "json", "--figure", "heatmap"]
    assert cli("render", capture_file(), "-o", tmp_path / "out", *options).exit_code == 0
    spec = json.loads((tmp_path / "out/layer3_2d_heatmap.json").read_text(encoding="utf-8"))
    assert spec["usermeta"]["headgrid"]["color_range"] == [-5, 10]


def test_columns_palette_and_title_reach_the_figure(cli, capture_file, tmp_path):
    capture_file("in/run_007/layer5.npz", prompt="a <cat> & {dog}")
    options = ["--columns", "1", "--palette", "custom", "--format", "json"]
    options += ["--title", "{run}/{layer}: {prompt}"]
    assert cli("render", tmp_path / "in", "-o", tmp_path / "out", *options).exit_code == 0
    text = (tmp_path / "out/run_007/layer5_2d_heatmap.json").read_text(encoding="utf-8")
    spec = json.loads(text)
    assert spec["columns"] == 1
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


def test_an_unknown_statistics_format_is_wrong_usage(cli, capture_file):
    result = cli("stats", capture_file(), "--format", "jsn")
    assert result.exit_code == 2
    assert "expected one of text, csv, json; did you mean 'json'?" in result.stderr


def test_help_and_version_are_exit_0(cli):
    assert "render" in cli("--help").stdout
    assert "--color-range" in cli("render", "--help").stdout
    assert headgrid.__version__ in cli("--version").stdout
    assert cli("--help").exit_code == cli("-h").exit_code == cli("--version").exit_code == 0


# bad input


class Evil:
    def __reduce__(self):
        return (os.system, ("touch evil-was-here",))


def write_bad(tmp_path, raw_file, case):
    """Make one bad input of the list and return its path."""
    path = tmp_path / "layer3.pt"
    if case == "missing file":
        return path
    if case == "empty file":
        path.write_bytes(b"")
        return path
    if case == "not a capture":
        path.write_bytes(b"\x89PNG\r\n\x1a\n not a capture at all")
        return path
    if case == "code":
        path.write_bytes(pickle.dumps({FULL: Evil()}, protocol=2))
        return path
    if case == "code in a zip":
        import torch

        torch.save({FULL: Evil()}, path)
        return path
    if case == "folder without captures":
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty/notes.txt").write_text("x")
        return tmp_path / "empty"
    if case == "not a dictionary":
        return raw_file(waves(1, 2, 2))
    infinite, nothing = waves(2, 3, 3), waves(2, 3, 3)
    infinite[1, 2, 0], nothing[1] = np.inf, np.nan
    data = {
        "neither tensor": {"prompt": "x"},
        "wrong axes": {FULL: waves(1, 2, 2)[0]},
        "head counts": {FULL: waves(2, 2, 2), "last_block_frame_attention": np.ones((3, 2))},
        "complex": {FULL: waves(1, 2, 2).astype(np.complex64)},
        "infinity": {FULL: infinite},
        "no value": {FULL: nothing[1:]},
        "blocks": {FULL: waves(1, 4, 4), "block_sizes": [3, 3]},
        "zero heads": {FULL: np.ones((0, 2, 2))},
        "zero frames": {FULL: np.ones((2, 0, 0))},
    }[case]
    return raw_file(data)


BAD = {
    "missing file": "there is no such file",
    "empty file": "the file is empty",
    "not a capture": "",
    "code": "",
    "code in a zip": "",
    "not a dictionary": "expected a dictionary",
    "neither tensor": "neither full_frame_attention .* nor",
    "wrong axes": r"has shape \(2, 2\), expected \(heads, query, key\)",
    "head counts": "head counts disagree: 2 in .* 3 in",
    "complex": "complex64 values, expected real numbers",
    "infinity": r"has 1 infinite value in visible cells \(head 1, query 2, key 0\)",
    "no value": r"has no visible value in 1 of 1 heads \(head 0:",
    "blocks": r"block_sizes sum to 6 \(3, 3\), but there are 4 frames",
    "zero heads": "that is zero heads",
    "zero frames": "that is zero query frames",
    "folder without captures": "holds no capture",
}


@pytest.mark.parametrize("command", ["render", "stats"])
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_exit_1_and_nothing_written(
    cli, raw_file, tmp_path, monkeypatch, case, command
):
    monkeypatch.chdir(tmp_path)
    path = write_bad(tmp_path, raw_file, case)
    output = ["-o", tmp_path / "out"] if command == "render" else []
    result = cli(command, path, *output)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("headgrid: ")
    assert path.name in result.stderr
    assert re.search(BAD[case], result.stderr)
    assert result.stdout in ("", "[]\n")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "evil-was-here").exists()


def test_bad_input_is_one_sentence_in_a_real_process(tmp_path):
    (tmp_path / "layer1.pt").write_bytes(pickle.dumps({FULL: Evil()}))
    done = run_process("render", "layer1.pt", "-o", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert files_under(tmp_path) == ["layer1.pt"]


def test_an_unwritable_output_folder_is_one_sentence(cli, capture_file, tmp_path):
    path = capture_file()
    (tmp_path / "file").write_text("x")
    result = cli("render", path, "-o", tmp_path / "file/out", "--format", "json")
    assert result.exit_code == 1
    assert "can not be written" in result.stderr
    assert result.stdout == ""
    assert files_under(tmp_path) == ["file", "layer3.npz"]


# stats


def test_statistics_are_printed_in_the_seeds_line_format(cli, capture_file):
    path = capture_file("run_002/layer3.npz")
    capture = headgrid.load_capture(path)
    heads = headgrid.head_statistics(capture)
    layer = headgrid.layer_statistics(capture).iloc[0]
    result = cli("stats", path)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "run_002, layer 3 (logit)"
    assert f"{layer['diagonal_mean']:.3f}" in lines[1]
    assert f"{layer['first_key_mean']:.3f}" in lines[1]
    assert lines[2:] == [
        f"H{h:2d}: first={r['first']:.3f}, mid={r['mid']:.3f}, last={r['last']:.3f}, "
        f"sink={r['sink']:+.3f}"
        for h, r in heads.iterrows()
    ]


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


@pytest.mark.parametrize("format", ["text", "csv", "json"])
def test_nothing_usable_is_still_valid_output(cli, tmp_path, format):
    result = cli("stats", tmp_path / "nothing.pt", "--format", format)
    assert result.exit_code == 1
    if format == "json":
        assert json.loads(result.stdout) == []


# processes


def test_a_killed_run_leaves_whole_files_or_none(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(40):
        capture = block_capture(4, (3,) * 7, layer=number)
        save_capture(capture, tmp_path / f"in/layer{number}.npz")
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "headgrid", "render", tmp_path / "in", "-o", out],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(list(out.glob("*.svg"))) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    drawn = list(out.glob("*.svg"))
    assert 3 <= len(drawn) < 80
    for path in drawn:
        assert path.read_bytes().rstrip().endswith(b"</svg>")
        ElementTree.parse(path)


def test_a_reader_that_goes_away_is_no_traceback(capture_file):
    path = capture_file()
    process = subprocess.Popen(
        [sys.executable, "-m", "headgrid", "stats", path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    stderr = process.stderr.read()
    process.stderr.close()
    process.wait()
    assert stderr == ""


def test_text_that_the_terminal_can_not_show_is_no_traceback(tmp_path):
    folder = tmp_path / "run_0"
    save_capture(block_capture(1, (1, 2)), (tmp_path / "注意.npz"))
    folder.mkdir()
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = run_process("stats", tmp_path / "注意.npz", tmp_path / "力.npz", env=environment)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    assert "no such file" in done.stderr


def test_a_folder_whose_name_is_no_text_is_printed_on_one_line(tmp_path):
    folder = tmp_path / os.fsdecode(b"run_0 \xff\n\x1b[31m")
    headgrid.save_capture(block_capture(layer=3), folder / "layer3.npz")
    (folder / "layer4.npz").write_bytes(b"PK")
    command = [sys.executable, "-m", "headgrid", "render", str(tmp_path), "-o", str(tmp_path / "o")]
    done = subprocess.run([*command, "--figure", "perhead"], capture_output=True, check=False)
    assert done.returncode == 1
    (line,) = done.stdout.decode().splitlines()
    assert line.endswith("/run_0 \ufffd\u240a\u241b[31m/layer3_perhead_grid.svg")
    assert done.stderr.decode().replace("\n", "").isprintable()
