import re

import numpy as np
import pytest

import headgrid
from headgrid import CaptureError, OptionError, pick, save_capture, sink_scores
from headgrid.charts.pick import HeadName
from headgrid.cli.main import main
from headgrid.render.convert import render
from svgreader import read_svg
from synthetic import block_capture


def spec_of(chart):
    return headgrid.to_spec(chart, validate=False)


def drawn(chart):
    return read_svg(render(spec_of(chart), "svg").decode())


@pytest.fixture
def run():
    """Return layers 0, 3 and 10 of one run, each larger than the one before."""
    return [block_capture(4, (2, 3), scale=s, layer=n) for n, s in ((0, 1.0), (3, 4.0), (10, 9.0))]


@pytest.mark.parametrize("text", ["3:0", " 15:7 ", "run_002/28:2", "SET A/run_002/28:2"])
def test_heads_are_named_layer_head_with_the_run_in_front(text):
    name = HeadName.read(text)
    assert str(name) == text.strip()
    assert (name.run, f"{name.layer}:{name.head}") == text.strip().rpartition("/")[::2]


@pytest.mark.parametrize("wrong", ["3", "3:", ":0", "a:0", "3:0:1", "/3:0", "-1:0", "", None, 3])
def test_what_names_no_head_is_an_error_that_shows_how(wrong):
    with pytest.raises(OptionError, match=r"expected LAYER:HEAD or RUN/LAYER:HEAD, as in 3:0"):
        HeadName.read(wrong)


def test_panels_stand_in_the_order_asked_for_and_show_those_heads(run):
    spec = spec_of(pick(run, ["10:3", "0:1", "3:0"]))
    table = {}
    for record in spec["data"]["values"]:
        table.setdefault(record["panel"], []).extend(v for v in record["logit"] if v is not None)
    for panel, (capture, head) in enumerate([(run[2], 3), (run[0], 1), (run[1], 0)]):
        matrix = capture.head_matrix(head)
        expected = matrix[~np.isnan(matrix)]
        np.testing.assert_allclose(sorted(table[panel]), sorted(expected), rtol=6e-4)


def test_the_caption_tells_of_each_letter_and_of_the_one_color_range_of_chosen_heads(run):
    captures = [run[0].replace(run="run_000"), run[1].replace(run="run_001")]
    spec = spec_of(pick(captures, ["run_001/3:2", "run_000/0:0"]))
    first, second = sink_scores(captures[1])[2], sink_scores(captures[0])[0]
    assert spec["usermeta"]["headgrid"]["panels"] == [
        f"(a) run_001, layer 3, head 2, sink {first:.2f}",
        f"(b) run_000, layer 0, head 0, sink {second:.2f}",
    ]
    low, high = spec["usermeta"]["headgrid"]["color_range"]
    assert -low == high == pytest.approx(np.nanmax(np.abs(run[1].head_matrix(2))))
    assert "(a) run_001, layer 3, head 2" in spec["description"]
    told = f"One color range for all maps, \u2212{high:.4g} to {high:.4g} (symmetric)"
    assert told in spec["description"]


def test_letters_go_on_behind_z():
    capture = block_capture(30, (1, 2))
    names = spec_of(pick([capture], [f"0:{head}" for head in range(30)]))
    panels = names["usermeta"]["headgrid"]["panels"]
    assert [p.partition(" ")[0] for p in panels[24:29]] == ["(y)", "(z)", "(aa)", "(ab)", "(ac)"]


@pytest.mark.parametrize(
    ("figure", "theme"), [("heatmap", "paper"), ("perhead", "default"), ("both", "paper")]
)
def test_every_letter_is_in_the_picture_once(run, figure, theme):
    drawing = drawn(pick(run, ["0:0", "3:1", "10:2"], figure=figure, theme=theme, columns=2))
    letters = [re.match(r"\([a-z]\)", text.content) for text in drawing.texts]
    assert sorted(m.group() for m in letters if m) == ["(a)", "(b)", "(c)"]


def test_paired_rows_put_each_profile_under_its_map_and_the_key_axis_under_the_lowest(run):
    drawing = drawn(pick(run, ["0:0", "3:1", "10:2"], figure="both", columns=2, theme="paper"))
    titles = [text for text in drawing.texts if text.content == "Key Frame"]
    assert len(titles) == len({round(text.y) for text in titles}) == 2
    frames = [s.box for group in drawing.marks["frame"] for s in group]
    bars = [[s.box for s in group] for group in drawing.marks["bars"]]
    assert len(frames) == len(bars) == 3
    for group in bars:
        left, right = min(box[0] for box in group), max(box[2] for box in group)
        above = [f for f in frames if f[0] - 1 <= left and right <= f[2] + 1]
        assert any(f[3] < min(box[1] for box in group) for f in above)


def test_paired_rows_share_one_value_axis_and_one_color_bar(run):
    drawing = drawn(pick(run, ["0:0", "10:0"], figure="both", columns=1))
    heights = [max(s.box[3] - s.box[1] for s in group) for group in drawing.marks["bars"]]
    assert heights[1] == pytest.approx(9 * heights[0], rel=0.02)
    assert [t.content for t in drawing.texts].count("Attention Logits") == 1 + 2  # bar, axes


def test_long_names_give_way_to_short_ones_where_panels_are_narrow(run):
    captures = [c.replace(run=f"run_{n:03d}_of_a_long_name") for n, c in enumerate(run)]
    heads = [f"{c.run}/{c.layer_index}:0" for c in captures]
    for width in ("12cm", "30cm"):
        drawing = drawn(pick(captures, heads, theme="paper", width=width))
        frames = [s.box for group in drawing.marks["frame"] for s in group]
        for text in drawing.texts:
            if text.content.startswith("("):
                x0, _, x1, _ = text.box()
                assert any(f[0] <= x0 and x1 <= f[2] for f in frames), text.content


@pytest.mark.parametrize("figure", ["heatmap", "both"])
def test_names_that_fit_over_their_panels_are_there(figure):
    heads = ["28:0", "29:11", "28:2"]
    captures = [block_capture(12, (3,) * 7, layer=n) for n in (28, 29)]
    texts = drawn(pick(captures, heads, figure=figure, width="17.4cm")).texts
    assert {"(a) L28 H0", "(b) L29 H11", "(c) L28 H2"} <= {t.content for t in texts}


def test_a_pick_needs_one_statistic_and_the_same_frames(run):
    mass, longer = block_capture(4, (2, 3), statistic="mass"), block_capture(4, (2, 4))
    for other, message in ((mass, "the statistic: logit and mass"), (longer, "the query frames")):
        with pytest.raises(CaptureError, match=message):
            pick([run[0], other.replace(layer_index=5)], ["0:0", "5:0"])


@pytest.mark.parametrize(
    ("head", "runs", "error", "message"),
    [
        ("9:2", [""], CaptureError, r"no layer 9, .* 0, 3, 10; did you mean 10:2\?"),
        ("3:7", [""], CaptureError, r"no head 7 in layer 3, .* 0 to 3; did you mean 3:3\?"),
        ("run_02/3:0", ["run_002"], CaptureError, r"no run of that name.*did you mean 'run_002'\?"),
        ("3:0", ["run_000", "run_001"], CaptureError, r"3:0 is in 2 runs .*as in run_000/3:0"),
        ("3:0", ["", ""], CaptureError, r"2 captures are of that run and layer, expected one"),
        ((), [""], OptionError, "no head is named"),
    ],
)
def test_a_head_that_is_not_one_is_an_error_that_names_the_nearest(run, head, runs, error, message):
    with pytest.raises(error, match=message):
        pick([capture.replace(run=name) for name in runs for capture in run], head)


# the command


@pytest.fixture
def tree(tmp_path, run):
    for number in (0, 2):
        for capture in run:
            folder = tmp_path / f"set/run_{number:03d}"
            save_capture(capture, folder / f"layer{capture.layer_index}.npz")
    return tmp_path / "set"


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main.main([str(argument) for argument in arguments], prog_name="headgrid")
    out = capsys.readouterr()
    return ended.value.code, out.out, out.err


def test_the_command_writes_every_format_asked_for_and_prints_the_caption(tree, tmp_path, capsys):
    files = [tmp_path / "fig.svg", tmp_path / "fig.json"]
    (tree / "run_000/layer3.npz").write_bytes(b"damaged, but no figure needs it")
    code, out, err = call(
        capsys, "pick", tree, "--head", "run_002/3:1", "--head", "run_000/10:0",
        "-o", files[0], "-o", files[1], "--theme", "paper", "--width", "13.97cm",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert out.splitlines()[:2] == [str(file) for file in files]
    assert "(a) run_002, layer 3, head 1" in out
    assert 'width="396pt"' in files[0].read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--head", "3:1"], 1, "3:1 is in 2 runs"),
        (["--head", "run_002/4:1"], 1, "did you mean run_002/3:1?"),
        (["--head", "run_00/3:1"], 1, "did you mean 'run_00"),
        (["--head", "3"], 2, "expected LAYER:HEAD"),
        (["--head", "run_002/3:1", "--figure", "bot"], 2, "did you mean 'both'?"),
        (["--head", "run_002/3:1", "--width", "1px"], 2, "pt, in, cm, mm"),
        (["--head", "run_002/3:1", "-o", "f.jpg"], 2, "the suffix of f.jpg is '.jpg'"),
    ],
)
def test_mistakes_are_one_sentence_and_an_exit_code(
    tree, tmp_path, capsys, arguments, code, message
):
    output = tmp_path / "out/fig.svg"
    found, _, err = call(capsys, "pick", tree, *arguments, "-o", output)
    assert found == code
    assert message in err
    assert len(err.splitlines()) == 1
    assert not output.exists()


def test_a_file_whose_name_lies_about_its_layer_is_named(tree, tmp_path, capsys):
    (tree / "run_000/layer10.npz").rename(tree / "run_000/layer4.npz")
    code, _, err = call(capsys, "pick", tree, "--head", "run_000/4:0", "-o", tmp_path / "f.svg")
    assert code == 1
    assert "layer4.npz: holds layer 10, expected layer 4, as its name says" in err


@pytest.mark.parametrize("inputs", [["cats", "dogs"], ["."]])
def test_heads_of_runs_of_one_name_in_two_sets_are_told_apart(tmp_path, run, capsys, inputs):
    for name in ("cats", "dogs"):
        save_capture(run[1], tmp_path / name / "run_000/layer3.npz")
    given = "pick", *(tmp_path / name for name in inputs), "-o", tmp_path / "f.svg", "--head"
    code, out, err = call(capsys, *given, "cats/run_000/3:0", "--head", "dogs/run_000/3:0")
    assert (code, err) == (0, "")
    assert "(a) cats/run_000, layer 3, head 0" in out
    assert "(b) dogs/run_000, layer 3, head 0" in out
    code, _, err = call(capsys, *given, "run_000/3:0")
    assert code == 1
    assert "is in 2 runs (cats/run_000, dogs/run_000)" in err
